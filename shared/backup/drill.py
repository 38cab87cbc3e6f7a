"""The drill: restore a backup into a throwaway server and compare every count and hash with its manifest.

    the file is as long as the manifest says -> streamed through both checksums into pg_restore -> compared

Whatever is wrong is said in words: stale, missing, unreadable, truncated, corrupted, another environment's, or restored
to something else than what was dumped.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from sqlalchemy import Engine

from shared.backup import fingerprint, programs, shelf
from shared.backup.dump import Digest
from shared.backup.fingerprint import Content, Fingerprint
from shared.backup.manifest import Manifest, Stamp
from shared.backup.postgres_binaries import Binaries
from shared.backup.throwaway import Target
from shared.errors import Refused
from shared.objects import Missing, Objects

# What the comparison may read of a restored database at once.
_AT_ONCE = 2

# A backup's moment may be this far ahead of our clock.
_SKEW = timedelta(minutes=5)


def newest(store: Objects, *, now: datetime, fresh: timedelta) -> Manifest:
    """The manifest of the newest backup. Raises Refused where there is none, it is too old, or cannot be read."""
    found = shelf.entries(store)
    if not found:
        raise Refused(f"there is no backup in {store.location}: run backup_database")
    last = found[-1]
    age = now - last.taken_at
    if age > fresh:
        raise Refused(
            f"the newest backup, {last.name}, is {age.total_seconds() / 3600:.1f} hours old, more than "
            f"{fresh.total_seconds() / 3600:.0f}: see the last run of backup_database"
        )
    if age < -_SKEW:
        raise Refused(f"the newest backup, {last.name}, is of the future: whose clock is wrong?")
    return shelf.read(store, last.name)


def check(store: Objects, manifest: Manifest, stamp: Stamp) -> None:
    """Refuse a backup of another environment, or whose dump is missing or of another size."""
    if manifest.stamp != stamp:
        raise Refused(
            f"backup {manifest.name} is of project {manifest.stamp.project}, livemode {manifest.stamp.livemode}, and "
            f"this is {stamp.project}, livemode {stamp.livemode}: it is foreign"
        )
    try:
        size = store.stat(shelf.dump_of(manifest.name)).size
    except Missing:
        raise Refused(f"backup {manifest.name} has a manifest and no dump") from None
    if size != manifest.dump.bytes:
        raise Refused(f"the dump of {manifest.name} has {size} bytes, its manifest says {manifest.dump.bytes}")


def restore(
    store: Objects, manifest: Manifest, found: Binaries, target: Target, *, each: Callable[[int], None]
) -> None:
    """Restore the backup into `target`, telling `each` how many bytes are read. Raises Refused.

    What does not have the manifest's checksums is never called restored, even if pg_restore took it.
    """
    digest = Digest()

    def take(chunk: bytes) -> None:
        digest.update(chunk)
        each(digest.bytes)

    arguments = [
        found.program("pg_restore"),
        "--format=custom",
        "--exit-on-error",
        "--no-tablespaces",
        "--no-subscriptions",
        "--no-password",
    ]
    failed: programs.Failed | None = None
    with store.open(shelf.dump_of(manifest.name)) as source:
        try:
            programs.feed(
                [*arguments, f"--dbname={target.environment['PGDATABASE']}"], target.environment, source, each=take
            )
        except programs.Failed as error:
            failed = error
            while chunk := source.read(programs.CHUNK):  # whether the file is at fault is what its checksum says
                take(chunk)
    if digest.dump() != manifest.dump:
        raise Refused(f"the dump of {manifest.name} is not the one that was written: its checksums differ")
    if failed is not None:
        raise Refused(f"the dump of {manifest.name} cannot be restored: {failed}")


def compare(engine: Engine, manifest: Manifest, *, check: Callable[[], None]) -> None:
    """Compare a restored database with its manifest. Raises Refused naming what differs."""
    found = fingerprint.differences(manifest.fingerprint, read(engine, check=check))
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise Refused(f"backup {manifest.name} restores to something else: {'; '.join(found[:5])}{more}")


def read(engine: Engine, *, check: Callable[[], None]) -> Fingerprint:
    """The fingerprint of a database nobody else writes to, its tables read several at once."""
    with engine.begin() as connection:
        fingerprint.settle(connection)
        tables, sequences = fingerprint.tables(connection), fingerprint.sequences(connection)
        shape, objects = fingerprint.shape(connection), fingerprint.large_objects(connection)

    def some(names: list[str]) -> dict[str, Content]:
        with engine.begin() as connection:
            fingerprint.settle(connection)
            contents = {}
            for name in names:
                check()
                contents[name] = fingerprint.content(connection, name)
            return contents

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="comparing") as pool:
        parts = list(pool.map(some, [tables[i::_AT_ONCE] for i in range(_AT_ONCE)]))
    return Fingerprint({k: v for part in parts for k, v in part.items()}, objects, sequences, shape)
