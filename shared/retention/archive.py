"""Archive, then delete: a verified copy first, and then exactly the row versions that are in it.

    copy rows out -> write Parquet -> read it back and compare -> manifest -> delete these row versions, and enter
    the manifest into the ledger in the same transaction

No transaction is open while anything is written elsewhere. A row that changed meanwhile has another version and
stays. Killed before the last step, a run leaves files nobody knows of; the next run removes them. What has no entry
in the ledger does not exist.
"""

import hashlib
import json
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import DBAPIError

from shared.clock import rfc3339
from shared.context import Context
from shared.database import BY_INDEX
from shared.objects import Objects
from shared.redaction import sqlstate
from shared.retention import companions, held, parquet
from shared.retention.catalogue import Leaf
from shared.retention.companions import Copy
from shared.retention.copying import VERSION, Copied, Stretch, Walk, copy_out, together
from shared.retention.pace import Pace
from shared.retention.preflight import Target
from shared.retention.rules import Condition, both
from shared.retention.shelf import NotArchived, folder_of, put, remove, store_of, storing
from shared.schema_retention import archive_manifest
from shared.wording import counted

FORMAT = 1

# One file: small enough to stay in memory some times over, large enough to compress well.
_MOST_ROWS, _FIRST_ROWS = 250_000, 5_000
_MOST_BYTES = 6 << 20
_BUSY_ROWS = 10_000

_LOCK_MS, _STATEMENT_MS = 250, 60_000
_LOCKED = "55P03"


def archive_rows(ctx: Context, target: Target, leaf: Leaf, *, indexed: bool, pace: Pace) -> None:
    """Archive and delete the due rows of `leaf`; counts `<rule>.archived` and `<rule>.deleted`.

    Alone, the next rows are read and the last ones' file is written and verified while those before them are deleted.
    Raises NotArchived, Stopped and GaveWay; what is done by then is done.
    """
    store, objects = store_of(ctx, target.rule), target.rule.objects
    most = companions.MOST_ROWS if objects else _MOST_ROWS
    rows, walk = _first(leaf, most), Walk(indexed)
    trouble = _Trouble()
    written: Future[_Written] | None = None
    pace.anew()

    def read() -> Future[tuple[list[Copied], bool] | None]:
        pace.ready([leaf.oid, target.relation.oid])
        ctx.check()
        few = min(rows, _BUSY_ROWS) if pace.busy else rows
        return beside.submit(copy_out, ctx, target, leaf, walk, few, singly=objects is not None)

    with ThreadPoolExecutor(2, "archive") as beside:
        reading: Future[tuple[list[Copied], bool] | None] | None = read()
        while reading or written:
            following = None
            if reading:
                found, last = reading.result() or ([], True)
                if found:
                    place = _Place(store, uuid.uuid4(), f"{folder_of(target.source)}/{ctx.run_id}")
                    found, copies = (
                        _companions(ctx, target, objects.column, place, found, trouble) if objects else (found, ())
                    )
                if found:
                    copied = together(found)
                    following = beside.submit(_write, ctx, target, place, copied, copies)
                    rows = min(most, rows * 4, max(100, _MOST_BYTES * copied.rows // max(len(copied.data), 1)))
                reading = None if last or pace.busy else read()
            if written:
                _delete(ctx, target, leaf, written.result(), pace)
            written = following
            if not (last or reading):  # in company one thing at a time
                if written:
                    _delete(ctx, target, leaf, written.result(), pace)
                written, reading = None, read()
    if trouble.missing:
        ctx.count(f"{target.rule.name}.missing", trouble.missing)
    if trouble.failed:
        raise NotArchived(f"{counted(len(trouble.failed), 'row')} kept: {'; '.join(trouble.failed[:3])}")


def _first(leaf: Leaf, most: int) -> int:
    """How many rows to begin with: as few as fit into a file where rows are wide."""
    width = leaf.bytes // leaf.rows if leaf.rows > 0 else 1
    return max(1, min(_FIRST_ROWS, most, _MOST_BYTES // max(width, 1)))


@dataclass
class _Trouble:
    """What became of rows' objects: how many are missing, and which could not be copied, in words."""

    missing: int = 0
    failed: list[str] = field(default_factory=list)


class _Place(NamedTuple):
    """Where one archive lies: `<folder>/<archive>.parquet`, .json and /<companions>."""

    store: Objects
    archive_id: uuid.UUID
    above: str

    @property
    def folder(self) -> str:
        return f"{self.above}/{self.archive_id}"

    @property
    def data(self) -> str:
        return f"{self.folder}.parquet"

    @property
    def manifest(self) -> str:
        return f"{self.folder}.json"


class _Written(NamedTuple):
    """A verified archive: its rows' versions, its entry for the ledger, the copies of its rows' objects."""

    place: _Place
    copied: Copied
    entry: dict[str, Any]
    copies: tuple[Copy, ...]


def _companions(
    ctx: Context, target: Target, column: str, place: _Place, found: list[Copied], trouble: _Trouble
) -> tuple[list[Copied], tuple[Copy, ...]]:
    """Copy the objects of these single rows; the rows that can go, and the copies."""
    names = parquet.parse(together(found).data, target.relation.columns).column(column).to_pylist()
    taken = companions.take(ctx, target, names, place.store, place.folder)
    trouble.missing += taken.missing
    trouble.failed += taken.failed
    return [row for number, row in enumerate(found) if number not in taken.left], taken.copies


def _write(ctx: Context, target: Target, place: _Place, copied: Copied, copies: tuple[Copy, ...]) -> _Written:
    """Write the archive and read it back; it does not exist before `_delete` enters it. Runs beside the run's own
    thread, so it asks `ctx` for nothing that changes. Raises NotArchived."""
    rule, store = target.rule, place.store
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
            "data": place.data.rpartition("/")[2],
            "bytes": len(packed),
            "sha256": hashlib.sha256(packed).hexdigest(),
            "copy_sha256": hashlib.sha256(copied.data).hexdigest(),
            "written_at": rfc3339(ctx.clock.now()),
            "expires_at": rfc3339(expires_at),
            **({"objects": [copy._asdict() for copy in copies]} if rule.objects else {}),
        },
        indent=1,
    ).encode()
    with storing(f"{target.source} could not be archived, so nothing of it was deleted"):
        put(store, place.data, packed)
        with store.open(place.data) as stream:
            if not parquet.same(parquet.unpack(stream.read()), table):
                raise NotArchived(f"the archive {place.data} does not read back as it was written: kept both")
        put(store, place.manifest, manifest)
        with store.open(place.manifest) as stream:
            if stream.read() != manifest:
                raise NotArchived(f"the manifest {place.manifest} does not read back as it was written")
    entry = {
        "archive_id": place.archive_id,
        "run_id": ctx.run_id,
        "source": target.source,
        "location": f"{store.location}/{place.manifest}",
        "items": copied.rows,
        "bytes": len(packed) + sum(copy.bytes for copy in copies),
        "sha256": hashlib.sha256(manifest).hexdigest(),
        "cutoff": target.cutoff,
        "written_at": ctx.clock.now(),
        "expires_at": expires_at,
    }
    return _Written(place, copied._replace(data=b""), entry, copies)  # the rows are on the shelf now


def _delete(ctx: Context, target: Target, leaf: Leaf, written: _Written, pace: Pace) -> None:
    """Delete exactly these row versions, enter their archive into the ledger and note their objects; where none of
    them is there any more, remove the archive."""
    began = ctx.clock.monotonic()
    deleted = _deleted(ctx, target, leaf, written)
    pace.rest(ctx.clock.monotonic() - began, transactions=2)  # the savepoint is one of its own
    if not deleted:
        place = written.place
        for name in (place.data, place.manifest, *(f"{place.above}/{copy.copy}" for copy in written.copies)):
            remove(place.store, name)


def _deleted(ctx: Context, target: Target, leaf: Leaf, written: _Written) -> int:
    rule, copied = target.rule.name, written.copied
    with ctx.begin(lock_timeout_ms=_LOCK_MS, statement_timeout_ms=_STATEMENT_MS) as connection:
        state = held.now(connection, target, ctx.clock.now())
        if state.whole:
            return 0
        # CLUSTER and VACUUM FULL put every row into another file, at another's place.
        there = "pg_relation_filenode(cast(:leaf as oid)) = :filenode"
        where = Condition(there, {"leaf": leaf.oid, "filenode": copied.filenode})
        spared = both(held.spared(target, state), where)
        deleted = copied.rows
        if not (copied.stretch and _whole(connection, leaf, copied.stretch, spared, copied.rows)):
            deleted = _each(connection, leaf, copied, spared)
        if deleted:
            connection.execute(insert(archive_manifest).values(**written.entry))
            companions.note(connection, target, written.place.archive_id, written.copies, ctx.clock.now())
        ctx.count(f"{rule}.deleted", deleted)
        ctx.count(f"{rule}.archived", deleted)
        if changed := copied.rows - deleted:
            ctx.count(f"{rule}.in_use", changed)
    return deleted


def _whole(connection: Connection, leaf: Leaf, stretch: Stretch, spared: Condition, rows: int) -> bool:
    """Delete what is due in `stretch`, if these are the versions that were copied, all of them and no other; else
    nothing."""
    due = both(stretch.within, spared)
    connection.execute(BY_INDEX)
    try:
        with connection.begin_nested() as attempt:
            gone = connection.execute(
                text(
                    f"with gone as (delete from only {leaf.name} t where {due.sql} returning {VERSION} as version)"
                    " select count(*) as rows, cast(sum(version) as text) as versions from gone"
                ),
                due.binds,
            ).one()
            same: bool = (gone.rows, gone.versions) == (rows, stretch.versions)
            if not same:
                attempt.rollback()
            return same
    except DBAPIError as error:
        if sqlstate(error) != _LOCKED:
            raise
        return False


def _each(connection: Connection, leaf: Leaf, copied: Copied, spared: Condition) -> int:
    """Delete those of the copied versions that are still there and nobody is at; how many."""
    # The place and a transaction that wrote one of these rows: whatever is written there later has another.
    free = (
        f"select t.ctid from only {leaf.name} t where t.ctid = any(cast(:tids as tid[]))"
        f" and t.xmin = any(cast(:xmins as xid[])) and {spared.sql} for update of t skip locked"
    )
    deleted: int = connection.execute(
        text(f"delete from only {leaf.name} t where t.ctid = any(array({free}))"),
        {
            **spared.binds,
            "tids": f"{{{copied.tids.decode()}}}",
            "xmins": f"{{{b','.join(copied.xmins).decode()}}}",
        },
    ).rowcount
    return deleted
