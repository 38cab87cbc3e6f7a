"""Bring a database to a version of a branch, one short transaction a revision.

Each transaction waits at most LOCK_TIMEOUT for a table's lock, so that a migration never queues the traffic of a
busy table behind itself: it fails whole, and is started again. Two migrations at once take turns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, bindparam, column, func, inspect, select, table, text
from sqlalchemy.dialects.postgresql import insert

from shared.errors import ConfigurationError
from shared.schema import SCHEMA, environment, serves
from shared.schema_rooms import metadata as own

LOCK_TIMEOUT = "5s"

# Waiting for another migration is not waiting in front of traffic.
_TURN_TIMEOUT = "60s"
_TURN_KEY = 0x67726F756E64  # "ground", the advisory lock of everybody who migrates this database

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Branch:
    """One line of revisions: its folder's name and the table that holds its version."""

    name: str
    version_table: str

    @property
    def folder(self) -> Path:
        """Where the revisions are."""
        return _HERE / self.name

    def metadata(self) -> MetaData:
        """The tables as the code knows them."""
        if self.name == "groundskeeper":
            return own
        from shared.platform import tables  # ours never needs the platform's

        return tables.METADATA


BRANCHES = {b.name: b for b in (Branch("groundskeeper", "schema_version"), Branch("platform", "platform_version"))}


def head(branch: str) -> str:
    """The newest revision of `branch`. Raises ConfigurationError for an unknown branch."""
    newest = ScriptDirectory.from_config(configuration(_branch(branch))).get_current_head()
    if newest is None:
        raise ConfigurationError(f"branch {branch} has no revision: add one to {_branch(branch).folder}")
    return newest


def current(engine: Engine, branch: str) -> str | None:
    """The revision `engine`'s database is at; None where the branch was never brought there."""
    with engine.connect() as connection:
        return _current(connection, _branch(branch))


def pending(engine: Engine, branch: str) -> list[str]:
    """The revisions that `upgrade` would run, in order. Raises ConfigurationError where the database is ahead."""
    at = current(engine, branch)
    script = ScriptDirectory.from_config(configuration(_branch(branch)))
    revisions = [revision.revision for revision in script.walk_revisions()][::-1]
    if at is None:
        return revisions
    if at not in revisions:
        raise ConfigurationError(
            f"the database's {branch} is at revision {at}, which this code does not know: "
            "deploy the code that made it, or newer"
        )
    return revisions[revisions.index(at) + 1 :]


def upgrade(engine: Engine, branch: str) -> list[str]:
    """Run what is pending, each revision in a transaction of its own; the revisions run.

    Raises ConfigurationError where the database is ahead of this code.
    """
    known, done = _branch(branch), []
    while waiting := pending(engine, branch):
        _index_first(engine, known, waiting[0])
        with _turn(engine) as connection:
            before = _current(connection, known)
            if before == head(branch):
                break  # somebody else's turn brought it there
            make_schema(connection)
            command.upgrade(configuration(known, connection), "+1")
            done.append(str(_current(connection, known)))
            _say_whom_it_serves(connection, known, done[-1])
    return done


def _index_first(engine: Engine, branch: Branch, revision: str) -> None:
    """Make the indexes that a revision adds to tables that are there, while these are written to.

    Its module names them in `concurrently`, {index: "table (columns)"}: no transaction can make them. One that a killed
    migration left unfinished is made anew; nobody's writing waits, so there is no limit to our own waiting.
    """
    wanted = getattr(
        ScriptDirectory.from_config(configuration(branch)).get_revision(revision).module, "concurrently", {}
    )
    with engine.connect() as connection:
        connection.connection.rollback()  # a pool that looks whether a connection lives leaves a transaction open
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for index, on in wanted.items():
            if connection.execute(_UNFINISHED, {"index": index}).first() is not None:
                connection.exec_driver_sql(f"drop index concurrently {index}")
            connection.exec_driver_sql(f"create index concurrently if not exists {index} on {on}")


_UNFINISHED = text("""
    select indexrelid from pg_index where indexrelid = to_regclass(:index) and not indisvalid""")


def _say_whom_it_serves(connection: Connection, branch: Branch, revision: str) -> None:
    """Tell older code whether it may go on here. A revision that takes or changes what older code uses names
    `oldest_code`, the oldest revision whose code knows better; every other one only adds, and serves all."""
    script = ScriptDirectory.from_config(configuration(branch))
    behind = list(script.walk_revisions("base", revision))
    oldest = max(getattr(one.module, "oldest_code", behind[-1].revision) for one in behind)
    says = serves(revision, oldest)
    connection.exec_driver_sql(f"comment on table {SCHEMA}.{branch.version_table} is '{says}'")


def downgrade(engine: Engine, branch: str, to: str) -> list[str]:
    """Take revisions back until `to` (a revision, or `base` for all); the revisions taken back, newest first.

    Data of the tables taken back is gone. At base the version table goes too, and our schema once it is empty.
    Raises ConfigurationError when `to` does not lie behind the database's revision.
    """
    known, undone = _branch(branch), []
    script = ScriptDirectory.from_config(configuration(known))
    behind = {
        "base",
        *(revision.revision for revision in script.walk_revisions("base", current(engine, branch) or "base")),
    }
    if to not in behind:
        raise ConfigurationError(f"branch {branch} is at {current(engine, branch)}: {to!r} does not lie behind it")
    while (at := current(engine, branch)) is not None and at != to:
        with _turn(engine) as connection:
            command.downgrade(configuration(known, connection), "-1")
            undone.append(at)
            if _current(connection, known) is None:
                _drop_schema(connection, known)
            else:
                _say_whom_it_serves(connection, known, str(_current(connection, known)))
    return undone


def stamp_environment(engine: Engine, project: str, livemode: bool, now: datetime) -> None:
    """Say which environment this database is of; the same again changes nothing.

    Raises ConfigurationError when it bears another's stamp: such a stamp is never overwritten.
    """
    with _turn(engine) as connection:
        connection.execute(
            insert(environment).values(project=project, livemode=livemode, stamped_at=now).on_conflict_do_nothing()
        )
        stamp = connection.execute(select(environment.c.project, environment.c.livemode)).one()
    if (stamp.project, stamp.livemode) != (project, livemode):
        raise ConfigurationError(
            f"the database is stamped for project {stamp.project!r} (livemode {stamp.livemode}), not {project!r} "
            f"(livemode {livemode}): correct DATABASE_URL; a copy made for another environment is stamped anew when "
            "the row of groundskeeper.environment is removed by hand before `keeper migrate`"
        )


@contextmanager
def _turn(engine: Engine) -> Iterator[Connection]:
    """A transaction in which nobody else migrates this database."""
    with engine.begin() as connection:
        wait = text("select set_config('lock_timeout', :limit, true)")
        connection.execute(wait, {"limit": _TURN_TIMEOUT})
        connection.execute(select(func.pg_advisory_xact_lock(bindparam("key", _TURN_KEY))))
        connection.execute(wait, {"limit": LOCK_TIMEOUT})
        yield connection


def _branch(name: str) -> Branch:
    if name not in BRANCHES:
        raise ConfigurationError(f"there is no branch {name!r}: known are {', '.join(BRANCHES)}")
    return BRANCHES[name]


def configuration(branch: Branch, connection: Connection | None = None, **options: Any) -> Config:
    """Alembic's configuration for `branch` on `connection`; `options` go to its context."""
    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(branch.folder).replace("%", "%%"))
    config.attributes["keeper"] = {
        "connection": connection,
        "target_metadata": branch.metadata(),
        "version_table": branch.version_table,
        "version_table_schema": SCHEMA,
        "include_schemas": True,
        "compare_server_default": True,
        **options,
    }
    return config


def _current(connection: Connection, branch: Branch) -> str | None:
    if not inspect(connection).has_table(branch.version_table, schema=SCHEMA):
        return None
    return connection.execute(
        select(column("version_num")).select_from(table(branch.version_table, schema=SCHEMA))
    ).scalar()


def make_schema(connection: Connection) -> None:
    """Create our schema where it is missing."""
    # Looked at first: `if not exists` asks for the right to create schemas even where there is one.
    if not inspect(connection).has_schema(SCHEMA):
        connection.execute(text(f"create schema {SCHEMA}"))


def _drop_schema(connection: Connection, branch: Branch) -> None:
    connection.execute(text(f"drop table {SCHEMA}.{branch.version_table}"))
    if not inspect(connection).get_table_names(schema=SCHEMA):
        connection.execute(text(f"drop schema {SCHEMA}"))
