"""Archive, then delete: a verified copy first, and then exactly the row versions that are in it.

    copy rows out -> write Parquet -> read it back and compare -> manifest -> delete these row versions, and enter
    the manifest into the ledger in the same transaction

No transaction is open while anything is written elsewhere. A row that changed meanwhile has another version and
stays. Killed before the last step, a run leaves files nobody knows of; the next run removes them. What has no entry
in the ledger does not exist.
"""

import hashlib
import json
import re
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import DBAPIError

from shared.clock import rfc3339
from shared.context import Context
from shared.objects import Objects
from shared.redaction import sqlstate
from shared.retention import companions, held, parquet
from shared.retention.catalogue import Leaf
from shared.retention.companions import Copy
from shared.retention.pace import Pace
from shared.retention.preflight import Target
from shared.retention.rules import Condition, inlined, quoted
from shared.retention.shelf import NotArchived, folder_of, put, remove, store_of, storing
from shared.schema import archive_manifest

FORMAT = 1

# One file: small enough to stay in memory some times over, large enough to compress well.
_MOST_ROWS, _FIRST_ROWS = 250_000, 5_000
_MOST_BYTES = 16 << 20

_LOCK_MS, _STATEMENT_MS = 250, 60_000
_LOCKED = "55P03"

# Each copied version is looked up at its place; reading the whole table for a join would be the planner's guess.
_BY_PLACE = text(
    "select set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),"
    " set_config('enable_mergejoin', 'off', true)"
)


def archive_rows(ctx: Context, target: Target, leaf: Leaf, *, indexed: bool, pace: Pace) -> None:
    """Archive and delete the due rows of `leaf`; counts `<rule>.archived` and `<rule>.deleted`.

    Raises NotArchived, Stopped and GaveWay; what is done by then is done.
    """
    store = store_of(ctx, target.rule)
    most = companions.MOST_ROWS if target.rule.objects else _MOST_ROWS
    rows, walk = min(_FIRST_ROWS, most), _Walk(indexed)
    trouble = _Trouble()
    while True:
        pace.ready([leaf.oid, target.relation.oid])
        ctx.check()
        taken = _copy_out(ctx, target, leaf, walk, rows)
        if taken is None:
            return
        versions, done = taken
        if count := len(versions):
            size = _archive(ctx, target, leaf, store, versions, trouble)
            rows = min(most, rows * 4, max(100, _MOST_BYTES * count // max(size, 1)))
        if done:
            break
    if trouble.missing:
        ctx.count(f"{target.rule.name}.missing", trouble.missing)
    if trouble.failed:
        raise NotArchived(f"{len(trouble.failed)} rows stay: {'; '.join(trouble.failed[:3])}")


@dataclass
class _Trouble:
    """What became of rows' objects: how many are missing, and which could not be copied, in words."""

    missing: int = 0
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Copied:
    """Rows as COPY gave them, by key, and which versions they are (array literals, in the same order)."""

    rows: int
    tids: str
    xmins: str
    data: bytes


class _Walk:
    """Where the copying is: rows that changed since they were copied are left behind, not met again."""

    def __init__(self, indexed: bool) -> None:
        self.indexed = indexed
        self.low: object = None
        self.block = 0


def _copy_out(ctx: Context, target: Target, leaf: Leaf, walk: _Walk, rows: int) -> tuple[parquet.Versions, bool] | None:
    """The next rows with their versions, by key; and whether these were the last. None: the table is held."""
    versions = parquet.Versions()
    columns = ", ".join(quoted(c) for c in target.relation.columns)
    with ctx.read(statement_timeout_ms=_STATEMENT_MS) as connection:
        state = held.now(connection, target, ctx.clock.now())
        if state.whole:
            return None
        connection.execute(text(parquet.TEXT_SETTINGS))
        span, last = _span(connection, target, leaf, walk, rows)
        due = held.spared(target, state)
        condition = inlined(Condition(f"{span.sql} and {due.sql}", {**span.binds, **due.binds}))
        copy(
            connection,
            f"copy (select t.xmin, t.ctid, {columns} from only {leaf.name} t where {condition}"
            f" order by {key_order(target.relation.key, target.relation.columns)}) to stdout (format csv)",
            versions,
        )
    return versions, last


def _span(connection: Connection, target: Target, leaf: Leaf, walk: _Walk, rows: int) -> tuple[Condition, bool]:
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


def _archive(
    ctx: Context, target: Target, leaf: Leaf, store: Objects, versions: parquet.Versions, trouble: _Trouble
) -> int:
    """Archive and delete these rows; the size of their text in bytes. `trouble` takes what became of their objects."""
    archive_id, rule = uuid.uuid4(), target.rule
    folder = f"{folder_of(target.source)}/{ctx.run_id}/{archive_id}"
    names = {"data": f"{folder}.parquet", "manifest": f"{folder}.json"}
    copies: tuple[Copy, ...] = ()
    if rule.objects:
        seen = parquet.parse(versions.without(()).take()[2], target.relation.columns)
        taken = companions.take(ctx, target, seen.column(rule.objects.column).to_pylist(), store, folder)
        trouble.missing += taken.missing
        trouble.failed += taken.failed
        versions, copies = versions.without(taken.left), taken.copies
        if not len(versions):
            return 0
    copied = _Copied(len(versions), *versions.take())
    table = parquet.parse(copied.data, target.relation.columns)
    packed = parquet.pack(table)
    keep_days = rule.archive.keep_days if rule.archive else 0
    expires_at = ctx.now + timedelta(days=keep_days)
    manifest = json.dumps(
        {
            "format": FORMAT,
            "run_id": str(ctx.run_id),
            "source": target.source,
            "rule": rule.name,
            "rows": copied.rows,
            "columns": target.relation.columns,
            "key": list(target.relation.key),
            "cutoff": rfc3339(target.cutoff),
            "data": names["data"].rpartition("/")[2],
            "bytes": len(packed),
            "sha256": hashlib.sha256(packed).hexdigest(),
            "copy_sha256": hashlib.sha256(copied.data).hexdigest(),
            "written_at": rfc3339(ctx.clock.now()),
            "expires_at": rfc3339(expires_at),
            **({"objects": [vars(copy) for copy in copies]} if rule.objects else {}),
        },
        indent=1,
    ).encode()
    with storing(f"{target.source} could not be archived, so nothing of it was deleted"):
        put(store, names["data"], packed)
        with store.open(names["data"]) as stream:
            if not parquet.same(parquet.unpack(stream.read()), table):
                raise NotArchived(f"the archive {names['data']} does not read back as it was written: kept both")
        put(store, names["manifest"], manifest)
        with store.open(names["manifest"]) as stream:
            if stream.read() != manifest:
                raise NotArchived(f"the manifest {names['manifest']} does not read back as it was written")
    entry = {
        "archive_id": archive_id,
        "run_id": ctx.run_id,
        "source": target.source,
        "location": f"{store.location}/{names['manifest']}",
        "items": copied.rows,
        "bytes": len(packed) + sum(copy.bytes for copy in copies),
        "sha256": hashlib.sha256(manifest).hexdigest(),
        "cutoff": target.cutoff,
        "written_at": ctx.clock.now(),
        "expires_at": expires_at,
    }
    if not _delete(ctx, target, leaf, copied, entry, copies):
        for name in (*names.values(), *(f"{folder}/{copy.copy.partition('/')[2]}" for copy in copies)):
            remove(store, name)
    return len(copied.data)


def _delete(
    ctx: Context, target: Target, leaf: Leaf, copied: _Copied, entry: dict[str, Any], copies: tuple[Copy, ...]
) -> int:
    """Delete exactly these row versions, enter their archive into the ledger and note their objects; how many rows
    there still were."""
    rule = target.rule.name
    with ctx.begin(lock_timeout_ms=_LOCK_MS, statement_timeout_ms=_STATEMENT_MS) as connection:
        state = held.now(connection, target, ctx.clock.now())
        if state.whole:
            return 0
        spared = held.spared(target, state)
        connection.execute(_BY_PLACE)
        these = "unnest(cast(:tids as tid[]), cast(:xmins as xid[])) copied(copied_tid, copied_xmin)"
        same = f"t.ctid = copied_tid and t.xmin = copied_xmin and {spared.sql}"
        binds = {**spared.binds, "tids": copied.tids, "xmins": copied.xmins}
        try:
            with connection.begin_nested():
                deleted: int = connection.execute(
                    text(f"delete from only {leaf.name} t using {these} where {same}"), binds
                ).rowcount
        except DBAPIError as error:
            if sqlstate(error) != _LOCKED:
                raise
            free = f"select t.ctid from only {leaf.name} t join {these} on {same} for update of t skip locked"
            deleted = connection.execute(
                text(f"delete from only {leaf.name} t where t.ctid = any(array({free}))"), binds
            ).rowcount
        if deleted:
            connection.execute(insert(archive_manifest).values(**entry))
            companions.note(connection, target, entry["archive_id"], copies, ctx.clock.now())
        ctx.count(f"{rule}.deleted", deleted)
        ctx.count(f"{rule}.archived", deleted)
        if changed := copied.rows - deleted:
            ctx.count(f"{rule}.in_use", changed)
    return deleted


def copy(connection: Connection, statement: str, stream: Any) -> None:
    """Run a COPY on the transaction's connection, to or from `stream`."""
    # The driver reads % as the beginning of a bind.
    doubled = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|%", lambda m: "%%" if m[0] == "%" else m[0], statement)
    connection.connection.cursor().execute(doubled, stream=stream)  # type: ignore[call-arg]


def key_order(key: tuple[str, ...], columns: dict[str, str]) -> str:
    """The order by a primary key that no collation changes."""
    text_like = ("text", "character varying", "character", "name", "citext")
    return ", ".join(f"t.{quoted(c)}" + (' collate "C"' if columns[c] in text_like else "") for c in key)
