"""Delete due rows in short transactions that never look twice at the same place.

Where an index orders the rows by the timestamp, a batch is a range of it (a keyset walk): cost follows the rows
that go. Where there is none, a batch is a window of the heap (a TID range): one pass over the table. Both delete
by range, without collecting rows first, which is what makes them nearly as fast as one DELETE.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared.context import Context
from shared.database import BY_INDEX
from shared.redaction import sqlstate
from shared.retention import catalogue, held
from shared.retention.catalogue import Leaf
from shared.retention.pace import Pace
from shared.retention.preflight import Target
from shared.retention.rules import Condition, both, inlined

# A row somebody is at is not waited for long: it stays for the next run.
_LOCK_MS = 250
_STATEMENT_MS = 20_000
_GUESSED_MS = 2_000
_ROWS_A_BLOCK = 32  # a first guess of how dense rows lie; the pace corrects it

_LOCKED, _TOO_LONG = "55P03", "57014"
# Above this correlation of time and place, a range of time is a stretch of the heap.
_ORDERLY = 0.9
_ORDER = text("""
    select s.correlation from pg_stats s join pg_class c on c.relname = s.tablename
      join pg_namespace n on n.oid = c.relnamespace and n.nspname = s.schemaname
     where c.oid = cast(:oid as oid) and s.attname = :column and not s.inherited""")
_BLOCKS = text("select pg_relation_size(cast(:oid as oid)) / cast(current_setting('block_size') as bigint)")


def delete_rows(ctx: Context, target: Target, leaf: Leaf, *, indexed: bool, pace: Pace) -> int:
    """Delete the due rows of `leaf`; how many others were at and stay for the next run.

    The run counts what went as `<rule>.deleted`. Raises Stopped and GaveWay; what is done by then is done.
    """
    walk = _Walk(ctx, target, leaf, pace)
    if indexed and not _scattered(ctx, target, leaf):
        walk.by_index()
    else:
        walk.by_window()
    return walk.in_use


def _scattered(ctx: Context, target: Target, leaf: Leaf) -> bool:
    """Whether due rows lie all over the heap, so that each batch by time would visit (and prune) every page again.

    With a due row on most pages, one pass by place costs no more than the rows that go.
    """
    with ctx.read() as connection:
        order = connection.execute(_ORDER, {"oid": leaf.oid, "column": target.rule.timestamp}).scalar()
        if order is None or abs(order) > _ORDERLY:
            return False
        blocks = connection.execute(_BLOCKS, {"oid": leaf.oid}).scalar_one()
        due = catalogue.explained(connection, f"select 1 from only {leaf.name} t where {inlined(target.due())}")
    return bool(due["Plan Rows"] >= blocks)


class _Stride:
    """Where a batch would end, judged by the last one: to ask the index costs a sixth of what deleting costs.

    After a batch that was not as large as expected, and at the end, the index is asked. A guess that catches far too
    much is stopped by its statement timeout.
    """

    def __init__(self, bound: Any) -> None:
        self._bound = bound
        self._a_row: Any = None  # how much of time one due row takes, as a timedelta or a number

    def beyond(self, low: Any, rows: int) -> Any:
        """The end of a batch of `rows` that begins at `low`; None where the index has to be asked."""
        if self._a_row is None:
            return None
        step = self._a_row * rows if isinstance(self._a_row, timedelta) else int(self._a_row * rows)
        return low + step if low < low + step < self._bound else None

    def went(self, low: Any, edge: Any, rows: int, deleted: int) -> None:
        """A batch that should have been of `rows`, from `low` to before `edge`, deleted so many."""
        told = isinstance(low, datetime | int) and isinstance(edge, datetime | int) and rows <= 2 * deleted <= 4 * rows
        self._a_row = (edge - low) / deleted if told else None


class _Walk:
    def __init__(self, ctx: Context, target: Target, leaf: Leaf, pace: Pace) -> None:
        self._ctx, self._target, self._leaf, self._pace = ctx, target, leaf, pace
        self._went = True  # whether the last batch went, or must be tried again in another way
        self._careful = False  # pass over rows that others are at
        self.in_use = 0
        pace.anew()

    def by_index(self) -> None:
        low: object = None
        inclusive = True
        stride = _Stride(self._target.bound)
        while True:
            edge, tie, deleted, rows = None, False, 0, self._pace.rows
            guess = None if self._pace.busy or self._careful else stride.beyond(low, rows)
            with self._batch(_STATEMENT_MS if guess is None else _GUESSED_MS) as (connection, due):
                if connection is None:
                    return
                edge = guess
                if edge is None:
                    edge = self._edge(connection, both(self._span(low, inclusive, None), due))
                # More rows may share one moment than a batch may hold.
                tie = edge is not None and edge == low and inclusive
                if tie:
                    deleted = self._some(connection, both(self._at(edge), due))
                else:
                    deleted = self._all(connection, both(self._span(low, inclusive, edge), due))
            stride.went(low, edge, rows, deleted if self._went else 0)
            if not self._went or (tie and deleted):
                continue
            if edge is None:
                return
            low, inclusive = edge, not tie

    def by_window(self) -> None:
        with self._ctx.read() as connection:
            blocks = connection.execute(_BLOCKS, {"oid": self._leaf.oid}).scalar_one()
        first = 0
        while first < blocks:
            past = min(first + max(8, self._pace.rows // _ROWS_A_BLOCK), blocks)
            inside = Condition(
                "t.ctid >= cast(:first as tid) and t.ctid < cast(:past as tid)",
                {"first": f"({first},0)", "past": f"({past},0)"},
            )
            with self._batch() as (connection, due):
                if connection is None:
                    return
                self._all(connection, both(inside, due))
            if self._went:
                first = past

    @contextmanager
    def _batch(self, statement_ms: int = _STATEMENT_MS) -> Iterator[tuple[Connection | None, Condition]]:
        """A transaction for one batch and what may go in it; no connection where the whole table is held.

        A batch that takes too long, or meets rows that others are at, is no failure: it is rolled back, `_went` says
        so, and the next one is smaller, or careful.
        """
        self._pace.ready([self._leaf.oid, self._target.relation.oid])
        self._went = True
        try:
            with self._ctx.begin(lock_timeout_ms=_LOCK_MS, statement_timeout_ms=statement_ms) as connection:
                state = held.now(connection, self._target, self._ctx.clock.now())
                connection.execute(BY_INDEX)  # by its range, whatever the statistics say of a table half gone
                began = self._ctx.clock.monotonic()  # what others feel: not what it takes to ask who holds what
                yield None if state.whole else connection, held.spared(self._target, state)
            self._careful = False
        except DBAPIError as error:
            self._went = False
            if sqlstate(error) == _LOCKED and not self._careful:
                self._careful = True
            elif sqlstate(error) != _TOO_LONG or not self._pace.smaller():
                raise
            self._ctx.check()
        else:
            self._pace.took(self._ctx.clock.monotonic() - began)

    def _span(self, low: object, inclusive: bool, high: object) -> Condition:
        """The rows from `low` (None: from the beginning), with it or after it, to before `high` (None: the cutoff)."""
        sql, binds = "true", {}
        if low is not None:
            sql, binds["low"] = f"{self._target.timestamp} {'>=' if inclusive else '>'} {self._bind('low', low)}", low
        if high is not None:
            sql, binds["high"] = f"{sql} and {self._target.timestamp} < {self._bind('high', high)}", high
        return Condition(sql, binds)

    def _at(self, moment: object) -> Condition:
        return Condition(f"{self._target.timestamp} = {self._bind('low', moment)}", {"low": moment})

    def _bind(self, name: str, value: object) -> str:
        # The driver gives -infinity as text.
        return f"cast(:{name} as {self._target.kind})" if isinstance(value, str) else f":{name}"

    def _edge(self, connection: Connection, rest: Condition) -> object:
        """The timestamp of the first row beyond a batch, or None where one batch takes all the rest."""
        timestamp = self._target.timestamp
        return connection.execute(
            text(
                f"select {timestamp} from only {self._leaf.name} t where {rest.sql}"
                f" order by {timestamp} offset :rows limit 1"
            ),
            {**rest.binds, "rows": self._pace.rows},
        ).scalar()

    def _all(self, connection: Connection, due: Condition) -> int:
        """Delete all of `due`, or, when others were at one of these rows, all they are not at."""
        if not self._careful:
            return self._delete(connection, due)
        deleted = self._some(connection, due, limit=False)
        self.in_use += connection.execute(
            text(f"select count(*) from only {self._leaf.name} t where {due.sql}"), due.binds
        ).scalar_one()
        return deleted

    def _some(self, connection: Connection, due: Condition, *, limit: bool = True) -> int:
        """Delete up to a batch of `due`, passing over rows that others are at."""
        chosen = (
            f"ctid = any(array(select ctid from only {self._leaf.name} t where {due.sql}"
            f"{' limit :rows' if limit else ''} for update skip locked))"
        )
        return self._delete(
            connection, Condition(chosen, {**due.binds, "rows": self._pace.rows} if limit else due.binds)
        )

    def _delete(self, connection: Connection, due: Condition) -> int:
        rule = self._target.rule
        for reference in self._target.restricting if rule.children == "delete" else ():
            gone = connection.execute(
                text(
                    f"delete from {reference.child} r where exists (select 1 from only {self._leaf.name} t"
                    f" where {reference.join('t', 'r')} and {due.sql})"
                ),
                due.binds,
            ).rowcount
            self._ctx.count(f"{rule.name}.{reference.child}.deleted", gone)
        deleted = connection.execute(text(f"delete from only {self._leaf.name} t where {due.sql}"), due.binds).rowcount
        self._ctx.count(f"{rule.name}.deleted", deleted)
        return deleted
