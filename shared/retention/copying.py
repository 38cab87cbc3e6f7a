"""The rows an archive takes next, with the versions they have: a stretch of the table, as COPY gives it.

One message holds a whole stretch, which the server puts together: a message for each row would cost more than all the
rest of an archive.
"""

import re
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from shared.context import Context
from shared.retention import held, parquet
from shared.retention.catalogue import Leaf
from shared.retention.preflight import Target
from shared.retention.rules import Condition, inlined, quoted

_STATEMENT_MS = 60_000
_SIGNATURE = 19  # bytes before the first row of COPY's binary format: its name, flags and no extension


_TOGETHER = (
    "cast(count(*) as text), coalesce(cast(array_agg(ctid) as text), ''), coalesce(cast(array_agg(xmin) as text), ''),"
    " coalesce(string_agg(line, E'\\n'), '')"
)
_SINGLY = "'1', cast(array[ctid] as text), cast(array[xmin] as text), line"


class Copied(NamedTuple):
    """Rows as lines of PostgreSQL's text, and which versions they are.

    `tids` and `xmins` are the elements of array literals; each of `xmins` stands once.
    """

    rows: int
    tids: bytes
    xmins: frozenset[bytes]
    data: bytes | memoryview


def together(rows: Sequence[Copied]) -> Copied:
    """Several as one, in their order."""
    if len(rows) == 1:
        return rows[0]
    return Copied(
        sum(r.rows for r in rows),
        b",".join(r.tids for r in rows),
        frozenset().union(*(r.xmins for r in rows)),
        b"\n".join(r.data for r in rows),
    )


@dataclass
class Walk:
    """Where the copying is: rows that changed since they were copied are left behind, not met again."""

    indexed: bool
    low: object = None
    block: int = 0


@dataclass
class Message:
    """Takes what COPY gives in its binary format; a stream for the driver."""

    _parts: deque[bytes] = field(default_factory=deque)

    def write(self, part: bytes) -> int:
        """Take one part. PostgreSQL's protocol: a part holds whole rows."""
        self._parts.append(part)
        return len(part)

    def rows(self) -> Iterator[list[memoryview]]:
        """The fields of each row, where none is null, once: each part is let go of here."""
        at = _SIGNATURE
        while self._parts:
            content = memoryview(self._parts.popleft())
            while at < len(content) and (fields := struct.unpack_from("!h", content, at)[0]) >= 0:
                row, at = [], at + 2
                for _ in range(fields):
                    end = at + 4 + struct.unpack_from("!i", content, at)[0]
                    row.append(content[at + 4 : end])
                    at = end
                yield row
            at = 0


def copy_out(
    ctx: Context, target: Target, leaf: Leaf, walk: Walk, rows: int, *, singly: bool
) -> tuple[list[Copied], bool] | None:
    """The next rows, by key, all in one or each for itself (`singly`); and whether these were the last. None: the
    table is held."""
    message, relation = Message(), target.relation
    with ctx.read(statement_timeout_ms=_STATEMENT_MS) as connection:
        state = held.now(connection, target, ctx.clock.now())
        if state.whole:
            return None
        connection.execute(text(parquet.TEXT_SETTINGS))
        span, last = _span(connection, target, leaf, walk, rows)
        due = held.spared(target, state)
        condition = inlined(Condition(f"{span.sql} and {due.sql}", {**span.binds, **due.binds}))
        stretch = (
            f"select t.ctid, t.xmin, {parquet.line(relation.columns)} as line from only {leaf.name} t"
            f" where {condition} order by {key_order(relation.key, relation.columns)}"
        )
        copy(
            connection,
            f"copy (select {_SINGLY if singly else _TOGETHER} from ({stretch}) rows) to stdout (format binary)",
            message,
        )
    found = [
        Copied(int(bytes(count)), bytes(tids[1:-1]), frozenset(bytes(xmins[1:-1]).split(b",")), data)
        for count, tids, xmins, data in message.rows()
    ]
    return [copied for copied in found if copied.rows], last


def copy(connection: Connection, statement: str, stream: Any) -> None:
    """Run a COPY on the transaction's connection, to or from `stream`."""
    # The driver reads % as the beginning of a bind.
    doubled = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|%", lambda m: "%%" if m[0] == "%" else m[0], statement)
    connection.connection.cursor().execute(doubled, stream=stream)  # type: ignore[call-arg]


def key_order(key: tuple[str, ...], columns: dict[str, str]) -> str:
    """The order by a primary key that no collation changes."""
    text_like = ("text", "character varying", "character", "name", "citext")
    return ", ".join(f"t.{quoted(c)}" + (' collate "C"' if columns[c] in text_like else "") for c in key)


def _span(connection: Connection, target: Target, leaf: Leaf, walk: Walk, rows: int) -> tuple[Condition, bool]:
    """The next stretch of the table: of the index by the timestamp, or of the heap. Moves `walk` on."""
    if not walk.indexed:
        blocks = connection.execute(
            text("select pg_relation_size(cast(:oid as oid)) / cast(current_setting('block_size') as bigint)"),
            {"oid": leaf.oid},
        ).scalar_one()
        first, past = walk.block, walk.block + max(8, rows // 64)
        walk.block = past
        inside = "t.ctid >= cast(:first as tid) and t.ctid < cast(:past as tid)"
        return Condition(inside, {"first": f"({first},0)", "past": f"({past},0)"}), past >= blocks
    stamp, due = target.timestamp, target.due()
    start, binds = "true", {}
    if walk.low is not None:
        start, binds["low"] = f"{stamp} >= cast(:low as {target.kind})", str(walk.low)
    edge = connection.execute(
        text(
            f"select cast(max(stamp) as text) from (select {stamp} as stamp from only {leaf.name} t"
            f" where {start} and {due.sql} order by {stamp} limit :rows) batch"
        ),
        {**binds, **due.binds, "rows": rows},
    ).scalar()
    if edge is None:
        return Condition("false", {}), True
    after = connection.execute(
        text(
            f"select cast({stamp} as text) from only {leaf.name} t"
            f" where {stamp} > cast(:edge as {target.kind}) and {due.sql} order by {stamp} limit 1"
        ),
        {**due.binds, "edge": edge},
    ).scalar()
    start_at, walk.low = walk.low, after
    within = f"{start} and {stamp} <= cast(:edge as {target.kind})"
    crowd = connection.execute(
        text(
            f"select 1 from only {leaf.name} t where {stamp} = cast(:edge as {target.kind}) and {due.sql}"
            " offset :most limit 1"
        ),
        {**due.binds, "edge": edge, "most": 3 * rows},
    ).scalar()
    if crowd is not None:  # too many of one moment to take at once: go by place instead of by time
        walk.indexed, walk.low = False, start_at
        return _span(connection, target, leaf, walk, rows)
    return (
        Condition(within, {**binds, "edge": edge}),
        after is None,
    )
