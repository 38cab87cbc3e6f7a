"""Fixtures every test shares: a real PostgreSQL, a migrated database of its own for each test, a clock, and tasks
run as their own database role.

One server a worker process; one migrated template database; each test gets a copy (some 30 ms).
"""

import functools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared import plans
from shared import settings as settings_module
from shared.backup.postgres_binaries import find_binaries
from shared.call import Call, by_hand
from shared.database import Database
from shared.laptop.postgres import Postgres
from shared.manifest import FUNCTIONS, load_all
from shared.migrations import grants as granting
from shared.migrations import run as migrations
from shared.result import Result
from shared.settings import Settings
from shared.task import load
from tests import leaks

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
ROLE_PASSWORD = "a task's role in a test"


def pytest_configure(config: pytest.Config) -> None:
    """Nothing secret may leave any test."""
    config.pluginmanager.register(leaks)


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> None:
    """The developer's own variables must not reach a test."""
    for name in list(os.environ):
        if name.startswith("KEEPER_") or name in (
            "DATABASE_URL",
            "DATABASE_CA",
            "GOOGLE_CLOUD_PROJECT",
            *settings_module.EMULATORS,
        ):
            del os.environ[name]


@dataclass
class ManualClock:
    """A clock that moves when told to, or slept on."""

    moment: datetime = NOW
    elapsed: float = field(default=0.0)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.elapsed

    def sleep(self, seconds: float) -> None:
        self.advance(timedelta(seconds=max(0.0, seconds)))

    def advance(self, span: timedelta) -> None:
        """Let `span` go by."""
        self.moment += span
        self.elapsed += span.total_seconds()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def memory() -> Path | None:
    """A file system in memory with room for the tests' databases, where there is one: a copy takes a fifth there."""
    place = Path("/dev/shm")
    roomy = place.is_dir() and os.access(place, os.W_OK) and shutil.disk_usage(place).free > 8 * 2**30
    return place if roomy else None


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """The newest PostgreSQL there is (18, from the package)."""
    with Postgres.temporary(parent=memory()) as started:
        _leave_alone(started)
        _log_in_quickly(started)
        yield started


@pytest.fixture(scope="session", params=[15, 18], ids=["pg15", "pg18"])
def each_server(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """PostgreSQL 15 and 18 in turn, for what must hold on both."""
    with Postgres.temporary(binaries=find_binaries(request.param), parent=memory()) as started:
        _leave_alone(started)
        yield started


def _leave_alone(server: Postgres) -> None:
    """Let no autovacuum come between what a test does and what it then counts."""
    server.execute("alter system set autovacuum_naptime = '1h'")
    server.execute("select pg_reload_conf()")


def _log_in_quickly(server: Postgres) -> None:
    """Spare the superuser's connections, of which each test makes several, SCRAM's thousands of hashes in Python."""
    rules = server.data / "pg_hba.conf"
    rules.write_text("host all postgres 127.0.0.1/32 password\n" + rules.read_text())
    server.execute("select pg_reload_conf()")


def prepare(server: Postgres, name: str) -> str:
    """A migrated, stamped database with every task's role and grants; its URL."""
    url = server.create_database(name)
    database = Database(settings_for(url), "test")
    for branch in ("groundskeeper", "platform"):
        migrations.upgrade(database.engine, branch)
    migrations.stamp_environment(database.engine, "demo-groundskeeper", False, NOW)
    tasks = load_all()
    with database.transaction() as connection:
        for statement in granting.grants(tasks, role_of=lambda task: task.slug):
            connection.execute(text(statement))
        for task in tasks.values():
            connection.execute(
                text(f"""alter role "{task.slug}" login password '{ROLE_PASSWORD.replace("'", "''")}'""")
            )
    database.close()
    return url


@pytest.fixture(scope="session")
def template(server: Postgres) -> str:
    prepare(server, "template_migrated")
    return "template_migrated"


_counter = iter(range(1_000_000))


@pytest.fixture
def database_url(server: Postgres, template: str, tmp_path: Path) -> Iterator[str]:
    """A migrated database of this test's own, as superuser."""
    name = f"t{next(_counter)}"
    url = server.create_database(name, template=template)
    yield url
    leaks.note(leaks.stored(url, leaks.planted_in(tmp_path)))
    server.drop_database(name)


def settings_for(url: str, **variables: str) -> Settings:
    """Settings as the laptop's plane has them, on `url`."""
    return settings_module.read(
        {"DATABASE_URL": url, "KEEPER_MODE": "enforce", "KEEPER_BACKUP_GATE_HOURS": "0", **variables}
    )


@functools.cache
def _buckets() -> frozenset[str]:
    """The logical buckets of all tasks: a fifth of a second to read, and the same for every test."""
    return frozenset(b.bucket for task in load_all().values() for b in task.buckets)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    archive = {
        f"KEEPER_BUCKET_{bucket.upper().replace('-', '_')}": str(tmp_path / "objects" / bucket) for bucket in _buckets()
    }
    keyring = str(tmp_path / "keyring")
    return settings_for(database_url, KEEPER_SECRETS=str(tmp_path / "secrets"), KEEPER_KEY_KEK=keyring, **archive)


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    """The test's database as superuser: for arranging and asserting."""
    database = Database(settings, "test")
    yield database
    database.close()


def as_role(settings: Settings, slug: str) -> Settings:
    """`settings`, connecting as the task's own role."""
    from sqlalchemy import make_url

    url = make_url(settings.database()).set(username=slug, password=ROLE_PASSWORD)
    return replace(settings, database_url=url.render_as_string(hide_password=False))


RunTask = Callable[..., Result]


@pytest.fixture
def run_task(db: Database, settings: Settings, clock: ManualClock) -> RunTask:
    """Run a task of functions/ as its own database role, by hand unless a `call` is given."""

    def run(
        name: str,
        call: Call | None = None,
        *,
        planning: bool = False,
        plan_hash: str | None = None,
        params: Mapping[str, Any] | None = None,
        actor: str = "tester",
        functions: Path = FUNCTIONS,
        using: Settings | None = None,
        break_glass: bool = False,
    ) -> Result:
        if call is None:
            with db.transaction() as connection:
                call = by_hand(
                    plans.request_run(
                        connection,
                        task=name,
                        actor=actor,
                        why="a test",
                        params=params,
                        planning=planning,
                        plan_hash=plan_hash,
                        break_glass=break_glass,
                        now=clock.now(),
                    )
                )
        entry = load(functions / name)
        runner = entry.runner(as_role(using or settings, entry.task.slug), clock)
        try:
            return runner.execute(call)
        finally:
            runner.close()

    return run


@pytest.fixture
def rows(db: Database) -> Callable[..., list[Any]]:
    """The rows of a query, as superuser."""

    def query(sql: str, **binds: Any) -> list[Any]:
        with db.transaction() as connection:
            return list(connection.execute(text(sql), binds))

    return query
