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
from shared.retention.rules import Condition, both, inlined, quoted

_STATEMENT_MS = 60_000
_SIGNATURE = 19  # bytes before the first row of COPY's binary format: its name, flags and no extension
_CROWD = 4  # so many times the rows asked for are of one moment: too many to take at once
# A stretch is sorted in memory, not in a file of the server's.
_SORTED = text("select set_config('work_mem', '64MB', true)")

_FILENODE = text("select pg_relation_filenode(cast(:oid as oid))")

# A version of a row of table `t`, as a number: its place, and the transaction that wrote it.
VERSION = "hash_record_extended(row(t.ctid, t.xmin), 0)"


class Stretch(NamedTuple):
    """A part of a table, and the versions of its due rows: the sum of their numbers."""

    within: Condition
    versions: str


class Copied(NamedTuple):
    """Rows as lines of PostgreSQL's text, and which versions they are.

    `tids` and `xmins` are the elements of array literals; each of `xmins` stands once. `filenode` is the file in which
    the places are these rows'. `stretch` is where they are all that was due; None where single rows were chosen.
    """

    rows: int
    tids: bytes
    xmins: frozenset[bytes]
    data: bytes | memoryview
    filenode: int
    stretch: Stretch | None = None


def together(rows: Sequence[Copied]) -> Copied:
    """Several as one, in their order."""
    if len(rows) == 1:
        return rows[0]
    return Copied(
        sum(r.rows for r in rows),
        b",".join(r.tids for r in rows),
        frozenset().union(*(r.xmins for r in rows)),
        b"\n".join(r.data for r in rows),
        rows[0].filenode,
    )


@dataclass
class Walk:
    """Where the copying is: rows that changed since they were copied are left behind, not met again."""

    indexed: bool
    low: str | None = None  # the moment up to which all was copied, as text
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
    table is held. Moves `walk` on."""
    message, by_time = Message(), walk.indexed
    with ctx.read(statement_timeout_ms=_STATEMENT_MS) as connection:
        state = held.now(connection, target, ctx.clock.now())
        if state.whole:
            return None
        connection.execute(text(parquet.TEXT_SETTINGS))
        connection.execute(_SORTED)
        filenode = connection.execute(_FILENODE, {"oid": leaf.oid}).scalar_one()
        within, last = _later(target, walk), True
        if not by_time:
            window, last = _window(connection, leaf, walk, rows)
            within = both(within, window)
        some = f"order by {target.timestamp} fetch first {rows} rows with ties) t limit {_CROWD * rows}"
        stretch = (
            f"select * from (select t.*, t.ctid, t.xmin from only {leaf.name} t"
            f" where {inlined(both(within, held.spared(target, state)))} {some if by_time else ') t'}"
        )
        copy(connection, f"copy ({_lines(target, stretch, singly=singly)}) to stdout (format binary)", message)
    found, versions, edge = [], "", ""
    for count, tids, xmins, numbers, stamp, data in message.rows():
        if of := int(bytes(count)):
            found.append(Copied(of, bytes(tids[1:-1]), frozenset(bytes(xmins[1:-1]).split(b",")), data, filenode))
            versions, edge = bytes(numbers).decode(), bytes(stamp).decode()
    if by_time and found:
        copied = sum(one.rows for one in found)
        if copied == _CROWD * rows:
            walk.indexed = False
            return copy_out(ctx, target, leaf, walk, rows, singly=singly)
        within = both(within, Condition(f"{target.timestamp} <= cast(:edge as {target.kind})", {"edge": edge}))
        walk.low, last = edge, copied < rows
    if versions:
        found = [one._replace(stretch=Stretch(within, versions)) for one in found]
    return found, last


def _lines(target: Target, stretch: str, *, singly: bool) -> str:
    """SQL of the rows of `stretch`: how many, which versions, these as a number, up to which moment, lines."""
    relation, stamp = target.relation, target.timestamp
    line, order = parquet.line(relation.columns), f"order by {key_order(relation.key, relation.columns)}"
    if singly:
        return (
            f"select '1', cast(array[t.ctid] as text), cast(array[t.xmin] as text), '',"
            f" cast(max({stamp}) over () as text), {line} from ({stretch}) t {order}"
        )
    return (
        "select cast(count(*) as text), coalesce(cast(array_agg(t.ctid) as text), ''),"
        f" coalesce(cast(array_agg(t.xmin) as text), ''), coalesce(cast(sum({VERSION}) as text), ''),"
        f" coalesce(cast(max({stamp}) as text), ''), coalesce(string_agg({line}, E'\\n'), '')"
        f" from (select * from ({stretch}) t {order}) t"
    )


def copy(connection: Connection, statement: str, stream: Any) -> None:
    """Run a COPY on the transaction's connection, to or from `stream`."""
    # The driver reads % as the beginning of a bind.
    doubled = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|%", lambda m: "%%" if m[0] == "%" else m[0], statement)
    connection.connection.cursor().execute(doubled, stream=stream)  # type: ignore[call-arg]


def key_order(key: tuple[str, ...], columns: dict[str, str]) -> str:
    """The order by a primary key that no collation changes."""
    text_like = ("text", "character varying", "character", "name", "citext")
    return ", ".join(f"t.{quoted(c)}" + (' collate "C"' if columns[c] in text_like else "") for c in key)


def _later(target: Target, walk: Walk) -> Condition:
    """Rows of later moments than those that were copied by time."""
    if walk.low is None:
        return Condition("true", {})
    return Condition(f"{target.timestamp} > cast(:low as {target.kind})", {"low": walk.low})


def _window(connection: Connection, leaf: Leaf, walk: Walk, rows: int) -> tuple[Condition, bool]:
    """The next window of the heap, and whether it is the last."""
    blocks = connection.execute(
        text("select pg_relation_size(cast(:oid as oid)) / cast(current_setting('block_size') as bigint)"),
        {"oid": leaf.oid},
    ).scalar_one()
    first, past = walk.block, walk.block + max(8, rows // 64)
    walk.block = past
    inside = "t.ctid >= cast(:first as tid) and t.ctid < cast(:past as tid)"
    return Condition(inside, {"first": f"({first},0)", "past": f"({past},0)"}), past >= blocks
