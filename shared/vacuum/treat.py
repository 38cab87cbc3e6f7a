"""Give one table what it needs, gently, and prove by the server's own count that it happened.

VACUUM by somebody who may not is a warning to PostgreSQL, not an error, and a table under somebody's lock is left
out in silence just so: what counts is that the table's counter moved.
"""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.exc import DBAPIError

from shared.context import Context
from shared.redaction import sqlstate
from shared.vacuum.need import Limits, Need, Table, look, need_of

_preparer = dialect().identifier_preparer  # type: ignore[no-untyped-call]

# Ages beyond which indexes are left as they are: freezing has to be over before the ids are, and nothing else counts.
# PostgreSQL's own failsafe is at the same age (vacuum_failsafe_age).
_EMERGENCY_AGE = 1_600_000_000


@dataclass(frozen=True)
class Pace:
    """How gently: PostgreSQL's cost limit and delay, how long a lock is waited for and a table worked on."""

    cost_limit: int
    cost_delay_ms: float
    lock_timeout_ms: int
    table_s: int

    def __post_init__(self) -> None:
        for name, most in (("cost_limit", 10_000), ("cost_delay_ms", 100), ("lock_timeout_ms", 60_000)):
            if not 0 < getattr(self, name) <= most:
                raise ValueError(f"pace.{name}: expected more than 0 and at most {most}, got {getattr(self, name)}")
        if self.table_s < 1:
            raise ValueError(f"pace.table_s: expected at least 1 second, got {self.table_s}")


class Ended(StrEnum):
    """How the treatment of one table ended."""

    DONE = "done"
    NOT_NEEDED = "not_needed"  # any more: somebody else did it meanwhile
    BUSY = "busy"  # autovacuum or somebody else is at it
    LOCKED = "locked"  # no lock within the timeout
    NOT_PERMITTED = "not_permitted"
    FAILED = "failed"


@dataclass(frozen=True)
class Treated:
    """One table before and after; `error` says what failed, in words."""

    need: Need
    ended: Ended
    after: Table | None = None
    error: str | None = None


def treat(ctx: Context, need: Need, *, limits: Limits, pace: Pace) -> Treated:
    """Do what `need`'s table needs now. Raises Stopped at the deadline; errors of one table come back as FAILED."""
    with ctx.read() as connection:
        version = int(connection.exec_driver_sql("show server_version_num").scalar_one())
        before = _again(connection, need.table.oid)
    now = need_of(before, limits) if before else None
    if before is None or now is None:
        return Treated(need, Ended.NOT_NEEDED)
    if not before.may:
        return Treated(now, Ended.NOT_PERMITTED, error=f"{before.label}: {_REMEDY}")
    if before.busy:
        return Treated(now, Ended.BUSY)
    try:
        with ctx.autocommit(
            lock_timeout_ms=pace.lock_timeout_ms, statement_timeout_ms=pace.table_s * 1000
        ) as connection:
            connection.exec_driver_sql(f"set vacuum_cost_limit = {pace.cost_limit}")
            connection.exec_driver_sql(f"set vacuum_cost_delay = {pace.cost_delay_ms}")
            connection.exec_driver_sql(statement(now, version))
    except DBAPIError as error:
        return _failed(ctx, now, error, pace)
    with ctx.read() as connection:
        after = _again(connection, before.oid)
    if after is None:
        return Treated(now, Ended.NOT_NEEDED)
    undone = [
        word
        for word, wanted, moved in (
            ("VACUUM", now.vacuum, after.vacuums > before.vacuums),
            ("ANALYZE", now.analyze, after.analyzes > before.analyzes),
        )
        if wanted and not moved
    ]
    if undone:
        return Treated(now, Ended.FAILED, after, f"{before.label}: {' and '.join(undone)} ended well and did nothing")
    return Treated(now, Ended.DONE, after)


def statement(need: Need, version: int) -> str:
    """The VACUUM or ANALYZE for `need` on a server of `version` (server_version_num)."""
    table = f"{_preparer.quote_identifier(need.table.schema)}.{_preparer.quote_identifier(need.table.name)}"
    if not need.vacuum:
        # From 18 on the partitions, each analysed by itself, can be left out of their parent's turn.
        return f"analyze {'only ' if need.table.partitioned and version >= 180_000 else ''}{table}"
    # Giving the file's empty end back takes an exclusive lock, also on every replica; parallel workers take others'.
    options = ["truncate false", "parallel 0"]
    if need.freeze:
        options.append("freeze")
    if need.table.age >= _EMERGENCY_AGE:
        options.append("index_cleanup off")
    if need.analyze:
        options.append("analyze")
    if version >= 160_000:
        options.append("skip_database_stats")  # once at the end, not a scan of pg_class for each table
    return f"vacuum ({', '.join(options)}) {table}"


def close(ctx: Context, pace: Pace) -> None:
    """Bring the database's own age up to date, which the tables' statements left out from version 16 on."""
    with ctx.read() as connection:
        version = int(connection.exec_driver_sql("show server_version_num").scalar_one())
    if version >= 160_000:
        with ctx.autocommit(lock_timeout_ms=pace.lock_timeout_ms) as connection:
            connection.execute(text("vacuum (only_database_stats)"))


_REMEDY = (
    "this role may not maintain it: `keeper migrate --grants` gives it pg_maintain (PostgreSQL 17 and later); "
    "before, make it a member of the table's owner"
)


def _again(connection: Connection, oid: int) -> Table | None:
    return next(iter(look(connection, only=oid)), None)


def _failed(ctx: Context, need: Need, error: DBAPIError, pace: Pace) -> Treated:
    state, label = sqlstate(error), need.table.label
    if state == "55P03":
        return Treated(need, Ended.LOCKED)
    if state in ("42P01", "3F000"):  # dropped meanwhile
        return Treated(need, Ended.NOT_NEEDED)
    if state == "57014":
        ctx.check()  # cut short by the deadline, not by the table's own limit
        return Treated(need, Ended.FAILED, error=f"{label}: took longer than {pace.table_s} s: raise pace.cost_limit")
    if state is None or state.startswith(("08", "57P", "53")):
        raise error  # the server's trouble, not this table's
    return Treated(need, Ended.FAILED, error=f"{label}: SQLSTATE {state}: see the server's log")
