"""Expired partitions go as a whole: detached without a lock that anybody feels, then dropped.

    note it -> detach concurrently -> drop it and end the note

A run may be killed between any two of these. A detach that was begun and not finished hides its rows and stops
every other detach, so a run first finishes what is pending; a table that was detached and not dropped is known by
its note, and dropped. What somebody else detached has no note and is never touched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from shared.context import Context
from shared.redaction import sqlstate
from shared.retention import catalogue, held
from shared.retention.catalogue import Child
from shared.retention.pace import Pace
from shared.retention.preflight import Target
from shared.retention.rules import Condition
from shared.schema_retention import detached_partition

# Dropping a table with a foreign key takes, for a moment, the strongest lock on the table it points at: whoever
# comes to that table waits behind us meanwhile, so we ask briefly and come again.
_BRIEF_MS, _BRIEF_TRIES, _BRIEF_PAUSE_S = 250, 20, 0.5
# A detach that is under way is worth waiting for: it cannot be taken back.
_DETACH_MS, _FINALIZE_TRIES = 2000, 5
# Who reads the table for longer than this would make a detach hang.
_READER_LOOKS, _READER_PAUSE_S = 8, 0.25

# Counting is worth it while it takes milliseconds; above that the planner's estimate has to do.
_COUNTED_BYTES = 8 << 20

_LOCKED, _TOO_LONG = "55P03", "57014"

_AT_IT = text("""
    select distinct pid || ' ' || virtualtransaction from pg_locks
     where relation = cast(:oid as oid) and granted and pid <> pg_backend_pid()""")

_STATE = text("""
    select c.relispartition, coalesce(i.inhdetachpending, false) as pending
      from pg_class c left join pg_inherits i on i.inhrelid = c.oid
     where c.oid = cast(:oid as oid)""")


class Undroppable(Exception):
    """A partition cannot go whole now; rows go one by one. `lost`: it left its table and has to wait as it is."""

    def __init__(self, why: str, *, lost: bool = False) -> None:
        super().__init__(why)
        self.lost = lost


@dataclass(frozen=True)
class Size:
    """How many rows partitions hold; `exact` when all were counted."""

    rows: int = 0
    exact: bool = True

    def __add__(self, other: "Size") -> "Size":
        return Size(self.rows + other.rows, self.exact and other.exact)


class Orphan(NamedTuple):
    """A partition an earlier run noted and did not drop."""

    name: str
    oid: int


def size(connection: Connection, oid: int) -> Size:
    """How many rows the table `oid` (with its partitions) holds: counted where it is small, or was never analysed."""
    total = Size()
    for leaf in catalogue.leaves(connection, oid):
        if leaf.rows >= 0 and leaf.bytes > _COUNTED_BYTES:
            total += Size(leaf.rows, exact=False)
        else:
            total += Size(connection.execute(text(f"select count(*) from only {leaf.name}")).scalar_one())
    return total


def orphans(connection: Connection, target: Target) -> list[Orphan]:
    """What earlier runs noted of this table and left detached or half detached."""
    if target.relation.kind != "p":
        return []
    noted = connection.execute(
        select(detached_partition.c.partition, detached_partition.c.partition_oid).where(
            detached_partition.c.parent == target.relation.name, detached_partition.c.ended_at.is_(None)
        )
    ).all()
    found = []
    for row in noted:
        state = connection.execute(_STATE, {"oid": row.partition_oid}).one_or_none()
        if state is not None and (state.pending or not state.relispartition):
            found.append(Orphan(row.partition, row.partition_oid))
    return found


def recover(ctx: Context, target: Target) -> list[str]:
    """Finish what earlier runs left half done on the table; what had to be left, in words."""
    if target.relation.kind != "p" or not target.relation.may_own:
        return []
    with ctx.read() as connection:
        pending = [c for c in catalogue.children(connection, target.relation.oid) if c.pending]
        left_over = orphans(connection, target)
    for child in pending:
        with ctx.autocommit(lock_timeout_ms=_DETACH_MS) as outside:
            if not _finalize(ctx, outside, target, child.name):
                return [_hangs(target, child.name)]
        if child.oid not in {o.oid for o in left_over}:
            ctx.log.warning("finished a detach that somebody else began", table=child.name)
    left = []
    for orphan in left_over:
        if why := _kept(ctx, target, orphan):
            left.append(why)
        else:
            _drop(ctx, target, orphan.name, orphan.oid)
    with ctx.begin() as connection:  # noted, then killed before the detach: judged anew
        open_notes = connection.execute(
            select(detached_partition.c.partition_oid).where(
                detached_partition.c.parent == target.relation.name, detached_partition.c.ended_at.is_(None)
            )
        ).scalars()
        still = {o.oid for o in orphans(connection, target)}
        for oid in set(open_notes) - still:
            _end_note(ctx, connection, oid)
    return left


@contextmanager
def outside(ctx: Context) -> Iterator[Connection]:
    """The connection on which partitions are detached, one for all of a table."""
    with ctx.autocommit(lock_timeout_ms=_DETACH_MS) as connection:
        yield connection


def drop(ctx: Context, target: Target, child: Child, pace: Pace, detaching: Connection) -> bool:
    """Detach and drop `child`; False where a hold covers rows of it, so that they must be looked at singly.

    Raises Undroppable where it cannot be detached now, and what `Pace.ready` raises.
    """
    pace.ready([target.relation.oid, child.oid])
    _wait_for_readers(ctx, target)
    with ctx.begin() as connection:
        if _is_held(ctx, connection, target, child.name):
            return False
        connection.execute(
            insert(detached_partition).values(
                run_id=ctx.run_id,
                parent=target.relation.name,
                partition=child.name,
                partition_oid=child.oid,
                noted_at=ctx.clock.now(),
            )
        )
    try:
        detaching.execute(text(f"alter table {target.relation.name} detach partition {child.name} concurrently"))
    except DBAPIError as error:
        state = sqlstate(error)
        if state is None or state.startswith(("08", "57P")):
            raise
        _settle(ctx, target, child, detaching, state)
    with ctx.read() as connection:
        late = _is_held(ctx, connection, target, child.name)
    if late:
        raise Undroppable(
            f"{child.name} came under a legal hold after it was detached: it is kept, detached", lost=True
        )
    _drop(ctx, target, child.name, child.oid)
    pace.rest(0, transactions=4)  # the note, the detach's two, the drop
    return True


def _settle(ctx: Context, target: Target, child: Child, detaching: Connection, state: str) -> None:
    """After a detach that failed: finish it where it is half-way, else forget it. Raises Undroppable."""
    with ctx.read() as connection:
        found = connection.execute(_STATE, {"oid": child.oid}).one()
    if found.pending:
        if not _finalize(ctx, detaching, target, child.name):
            raise Undroppable(_hangs(target, child.name), lost=True)
        return
    if found.relispartition:
        with ctx.begin() as connection:
            _end_note(ctx, connection, child.oid)
        raise Undroppable(f"{child.name} could not be detached (SQLSTATE {state})")


def _hangs(target: Target, name: str) -> str:
    return (
        f"the detach of {name} waits for a transaction that reads {target.relation.name}: its rows are hidden, and the "
        "next run finishes it"
    )


def _finalize(ctx: Context, outside: Connection, target: Target, name: str) -> bool:
    """Finish a pending detach; False when somebody keeps it from being finished."""
    for _ in range(_FINALIZE_TRIES):
        ctx.check()
        try:
            outside.execute(text(f"alter table {target.relation.name} detach partition {name} finalize"))
        except DBAPIError as error:
            if sqlstate(error) not in (_LOCKED, _TOO_LONG):
                raise
        else:
            return True
    return False


def _wait_for_readers(ctx: Context, target: Target) -> None:
    """A detach waits for everybody who is at the table, and once begun it cannot be taken back: look before."""
    before: set[str] = set()
    for attempt in range(_READER_LOOKS):
        if attempt:
            ctx.clock.sleep(_READER_PAUSE_S)
        with ctx.read() as connection:
            at_it = set(connection.execute(_AT_IT, {"oid": target.relation.oid}).scalars())
        staying = at_it & before if attempt else at_it
        if not staying:
            return
        before = staying
    raise Undroppable(f"a long transaction is at {target.relation.name}, and a detach would hang behind it")


def _is_held(ctx: Context, connection: Connection, target: Target, name: str) -> bool:
    state = held.now(connection, target, ctx.clock.now())
    if state.whole:
        return True
    if not state.some:
        return False
    free = held.spared(target, state)
    return bool(
        connection.execute(
            text(f"select exists (select 1 from {name} t where not coalesce({free.sql}, false))"), free.binds
        ).scalar_one()
    )


def _kept(ctx: Context, target: Target, orphan: Orphan) -> str:
    """Why an orphan must not be dropped, in words; empty when it may."""
    with ctx.read() as connection:
        young = Condition(f"({target.timestamp} < :cutoff) is not true", {"cutoff": target.bound})
        if connection.execute(
            text(f"select exists (select 1 from {orphan.name} t where {young.sql})"), young.binds
        ).scalar_one():
            return (
                f"{orphan.name} was detached by an earlier run and holds rows that are not due (was the rule "
                f"lengthened?): attach it to {target.relation.name} again, or drop it"
            )
        if _is_held(ctx, connection, target, orphan.name):
            return f"{orphan.name} was detached by an earlier run and is under a legal hold now: it is kept"
    return ""


def _drop(ctx: Context, target: Target, name: str, oid: int) -> None:
    """Drop a detached table and end its note, counting what it held. Raises Undroppable where a hold came first."""
    rule = target.rule.name
    for attempt in range(_BRIEF_TRIES):
        try:
            with ctx.begin(lock_timeout_ms=_BRIEF_MS) as connection:
                if _is_held(ctx, connection, target, name):
                    raise Undroppable(f"{name} came under a legal hold once detached: it is kept so", lost=True)
                held_rows = size(connection, oid)
                connection.execute(text(f"drop table {name}"))
                _end_note(ctx, connection, oid)
                ctx.count(f"{rule}.deleted", held_rows.rows)
                ctx.count(f"{rule}.partitions")
                if not held_rows.exact:
                    ctx.count(f"{rule}.estimated", held_rows.rows)
            return
        except DBAPIError as error:
            if sqlstate(error) != _LOCKED or attempt == _BRIEF_TRIES - 1:
                raise
        ctx.clock.sleep(_BRIEF_PAUSE_S)


def _end_note(ctx: Context, connection: Connection, oid: int) -> None:
    connection.execute(
        update(detached_partition)
        .where(detached_partition.c.partition_oid == oid, detached_partition.c.ended_at.is_(None))
        .values(ended_at=ctx.clock.now())
    )
