"""The drill: restore a backup into a throwaway server and compare every count and hash with its manifest.

    the file is as long as the manifest says -> fetched, both checksums hold -> pg_restore -> compared

Whatever is wrong is said in words: stale, missing, unreadable, truncated, corrupted, another environment's, or restored
to something else than what was dumped.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from shared.backup import fingerprint, programs, shelf
from shared.backup.dump import Digest
from shared.backup.fingerprint import Content, Fingerprint
from shared.backup.manifest import Manifest, Stamp
from shared.backup.postgres_binaries import Binaries
from shared.backup.throwaway import Target
from shared.errors import Refused
from shared.objects import Missing, Objects

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


def fetch(store: Objects, manifest: Manifest, folder: Path, *, each: Callable[[int], None]) -> Path:
    """The backup's dump as a file in `folder`, telling `each` how many bytes there are. Raises Refused.

    What does not have the manifest's checksums is never restored at all.
    """
    digest, path = Digest(), folder / shelf.DUMP
    with store.open(shelf.dump_of(manifest.name)) as source, path.open("xb") as sink:
        while chunk := source.read(programs.CHUNK):
            sink.write(chunk)
            digest.update(chunk)
            each(digest.bytes)
    if digest.dump() != manifest.dump:
        raise Refused(f"the dump of {manifest.name} is not the one that was written: its checksums differ")
    return path


def restore(dump: Path, manifest: Manifest, found: Binaries, target: Target, *, check: Callable[[], None]) -> None:
    """Restore a `dump` that was fetched into `target`, with as many workers as there are processors. Raises Refused.

    Each worker fills a table in the transaction that empties it, so a server that keeps no log for others writes none.
    """
    arguments = [
        found.program("pg_restore"),
        "--format=custom",
        f"--jobs={os.cpu_count() or 1}",
        "--exit-on-error",
        "--no-tablespaces",
        "--no-subscriptions",
        "--no-password",
        f"--dbname={target.environment['PGDATABASE']}",
        str(dump),
    ]
    try:
        programs.run(arguments, target.environment, check=check)
    except programs.Failed as failed:
        raise Refused(f"the dump of {manifest.name} cannot be restored: {failed}") from None


def compare(engine: Engine, manifest: Manifest, *, check: Callable[[], None]) -> None:
    """Compare a restored database with its manifest. Raises Refused naming what differs."""
    found = fingerprint.differences(manifest.fingerprint, read(engine, check=check))
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise Refused(f"backup {manifest.name} restores to something else: {'; '.join(found[:5])}{more}")


def read(engine: Engine, *, check: Callable[[], None]) -> Fingerprint:
    """The fingerprint of a database nobody else writes to, as many tables at once as there are processors."""
    with engine.begin() as connection:
        fingerprint.settle(connection)
        tables, sequences = fingerprint.tables(connection), fingerprint.sequences(connection)
        shape = fingerprint.shape(connection)
    waiting = iter(tables)  # all take the next from it

    def some() -> dict[str, Content]:
        with engine.begin() as connection:
            fingerprint.settle(connection)
            contents = {}
            for name in waiting:
                check()
                contents[name] = fingerprint.content(connection, name)
            return contents

    def objects() -> Content:
        with engine.begin() as connection:
            fingerprint.settle(connection)
            return fingerprint.large_objects(connection)

    at_once = os.cpu_count() or 1
    with ThreadPoolExecutor(at_once, thread_name_prefix="comparing") as pool:
        large, parts = pool.submit(objects), [pool.submit(some) for _ in range(at_once)]
        contents = {name: content for part in parts for name, content in part.result().items()}
        return Fingerprint(contents, large.result(), sequences, shape)
