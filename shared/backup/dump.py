"""Take a backup: one snapshot for pg_dump and for the counts and hashes, streamed to its place, manifest last.

export a snapshot -> list what there is -> pg_dump with it, streamed, while another connection hashes the tables
-> look at the dump's own table of contents -> manifest
"""

import base64
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from google_crc32c import Checksum
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from shared.backup import fingerprint, programs, shelf
from shared.backup.fingerprint import Content, Fingerprint
from shared.backup.manifest import Dump, Manifest, Stamp
from shared.backup.postgres_binaries import Binaries
from shared.context import Context
from shared.errors import Refused, Retry
from shared.objects import Objects
from shared.redaction import sqlstate
from shared.schema import environment
from shared.wording import counted

# A table of ours that is locked longer than this by DDL is tried again by the job's next try.
_LOCK_WAIT = "60s"

_NO_RIGHT = "42501"


@dataclass(frozen=True)
class How:
    """How to dump: gzip's level, and the size in bytes below which a dump is none."""

    gzip_level: int
    least_bytes: int


class Digest:
    """SHA-256 and CRC32C of a stream, and its length."""

    def __init__(self) -> None:
        self.bytes = 0
        self._sha256, self._crc32c = hashlib.sha256(), Checksum()  # type: ignore[no-untyped-call]

    def update(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        self._sha256.update(chunk)
        self._crc32c.update(chunk)  # type: ignore[no-untyped-call]

    def dump(self) -> Dump:
        crc32c = self._crc32c.digest()  # type: ignore[no-untyped-call]
        return Dump(self.bytes, self._sha256.hexdigest(), base64.b64encode(crc32c).decode())


def take(ctx: Context, store: Objects, how: How) -> Manifest:
    """Back the database up into `store`. The manifest, already written.

    Raises Refused when the dump is empty, tiny or short or a right is missing, Unavailable without pg_dump, Retry
    when the world was not ready, Stopped. Whatever happens, there is no manifest without a whole dump.
    """
    with ctx.read(statement_timeout_ms=_all_of(ctx)) as connection:
        fingerprint.settle(connection)
        snapshot, taken_at = fingerprint.export(connection), ctx.clock.now()
        around = fingerprint.surroundings(connection)
        found = programs.programs(around.server_version // 10_000)
        name = shelf.name_of(taken_at, str(ctx.run_id), ctx.attempt)
        tables, sequences = fingerprint.tables(connection), fingerprint.sequences(connection)
        shape, stamp = fingerprint.shape(connection), stamp_of(connection)
        with _Hashing(ctx, snapshot, tables, connection) as hashing:
            dump = _stream(ctx, store, name, found, snapshot, how, hashing.check)
            contents, objects = hashing.result()
    content = Fingerprint(contents, objects, sequences, shape)
    _whole(store, name, found, dump, content, how)
    made = Manifest(
        name=name,
        run_id=str(ctx.run_id),
        stamp=stamp,
        client=programs.version(found, "pg_dump"),
        taken_at=taken_at,
        finished_at=ctx.clock.now(),
        dump=dump,
        surroundings=around,
        fingerprint=content,
    )
    ctx.check()
    with store.create(shelf.manifest_of(name)) as sink:
        sink.write(made.document())
    return made


def _all_of(ctx: Context) -> int:
    """Milliseconds for statements that may take what is left of the run."""
    return max(1, int(ctx.time_left() * 1000))


def stamp_of(connection: Connection) -> Stamp:
    """Which environment the database belongs to."""
    row = connection.execute(select(environment.c.project, environment.c.livemode)).one()
    return Stamp(row.project, row.livemode)


class _Hashing:
    """Counts and hashes of the tables, taken in the same snapshot by a thread and a connection of its own."""

    def __init__(self, ctx: Context, snapshot: str, tables: list[str], holder: Connection) -> None:
        self._ctx, self._snapshot, self._tables, self._holder = ctx, snapshot, tables, holder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hashing")
        self._pid: int | None = None
        self._given_up = False

    def __enter__(self) -> "_Hashing":
        self._future: Future[tuple[dict[str, Content], Content]] = self._pool.submit(self._work)
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up = True
        if not self._future.done() and self._pid is not None:
            self._holder.execute(text("select pg_catalog.pg_cancel_backend(:pid)"), {"pid": self._pid})
        self._pool.shutdown()

    def _work(self) -> tuple[dict[str, Content], Content]:
        with self._ctx.read(statement_timeout_ms=_all_of(self._ctx)) as connection:
            fingerprint.settle(connection, self._snapshot)
            connection.exec_driver_sql("set local max_parallel_workers_per_gather = 0")  # others use this server
            self._pid = connection.execute(text("select pg_catalog.pg_backend_pid()")).scalar_one()
            contents = {}
            for table in self._tables:
                if self._given_up:
                    break
                with _readable(f"table {table}"):
                    contents[table] = fingerprint.content(connection, table)
            with _readable("large objects"):
                return contents, fingerprint.large_objects(connection)

    def check(self) -> None:
        """Raise what the hashing has raised, if it has."""
        if self._future.done():
            self._future.result()

    def result(self) -> tuple[dict[str, Content], Content]:
        """Contents by table, and the large objects, when all is hashed. Raises Stopped."""
        while True:
            try:
                return self._future.result(timeout=1.0)
            except TimeoutError:
                self._ctx.check()


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Say which thing the role may not read whole."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) != _NO_RIGHT:
            raise
        raise Refused(
            f"{what} cannot be read whole: the role of backup_database needs `keeper migrate --grants`, BYPASSRLS for "
            "a table with row-level security, and select on each large object (or lo_compat_privileges)"
        ) from None


def _stream(
    ctx: Context,
    store: Objects,
    name: str,
    found: Binaries,
    snapshot: str,
    how: How,
    check: Callable[[], None],
) -> Dump:
    """pg_dump's output under its final name, which appears when pg_dump ended well."""
    digest = Digest()
    with tempfile.TemporaryDirectory(prefix="keeper-") as private:
        arguments = [
            found.program("pg_dump"),
            "--format=custom",
            f"--compress={how.gzip_level}",
            f"--snapshot={snapshot}",
            f"--lock-wait-timeout={_LOCK_WAIT}",
            "--no-password",
        ]
        try:
            with (
                store.create(shelf.dump_of(name)) as sink,
                programs.reading(arguments, ctx.program_environment(Path(private))) as dumped,
            ):
                while chunk := dumped.read(programs.CHUNK):
                    digest.update(chunk)
                    sink.write(chunk)
                    ctx.check()
                    check()
                    ctx.progress(digest.bytes, None)
        except programs.Failed as failed:
            raise programs.ending_of(failed) or Retry(f"pg_dump failed: {failed}") from None
    return digest.dump()


def _whole(store: Objects, name: str, found: Binaries, dump: Dump, content: Fingerprint, how: How) -> None:
    """Refuse a dump that cannot be one: empty, tiny, short of a table, or not what was sent. Removes it then."""
    try:
        if content.rows == 0:
            raise Refused("the database has no row in any table: this is no backup of a platform")
        if dump.bytes < how.least_bytes:
            raise Refused(f"the dump has {dump.bytes} bytes, fewer than {how.least_bytes} (least_bytes): it is none")
        stored = store.stat(shelf.dump_of(name))
        if stored.size != dump.bytes or stored.crc32c not in (None, dump.crc32c):
            raise Retry("the dump is not stored as it was sent: another size or checksum")
        listed = _data_entries(store, name, found)
        if listed < len(content.tables):
            raise Refused(
                f"the dump holds the rows of {counted(listed, 'table')}, the snapshot has {len(content.tables)}"
            )
    except (Refused, Retry):
        shelf.remove(store, name)
        raise


def _data_entries(store: Objects, name: str, found: Binaries) -> int:
    """How many tables' rows the dump's own table of contents names."""
    with store.open(shelf.dump_of(name)) as stream:
        try:
            listed = programs.answer([found.program("pg_restore"), "--list"], stream)
        except programs.Failed as failed:
            raise Refused(f"pg_restore cannot read the dump: {failed}") from None
    return listed.count(b" TABLE DATA ")
