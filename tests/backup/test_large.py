"""A large database of varied types: backed up, restored and equal by hash; and whatever is wrong with its dump is red.

About 200 MB from each version in `make verify`; more than 2 GB by hand, with the figures it prints.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.backup import shelf
from shared.call import of_slot
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.postgres import Postgres
from shared.manifest import FUNCTIONS, Cron
from shared.migrations import run as migrations
from shared.objects import at
from shared.result import Result
from shared.settings import Settings
from shared.task import load
from tests.backup.test_types import clean, fill
from tests.conftest import NOW, ManualClock, settings_for

_MINUTE = timedelta(minutes=1)


class _Large:
    """A database with one of everything, its backups, and what verify_backup says of them."""

    def __init__(self, server: Postgres, folder: Path, rows: int) -> None:
        self.folder = folder
        self.settings: Settings = settings_for(server.create_database("large"), KEEPER_BUCKET_BACKUPS=str(folder))
        self.database = Database(self.settings, "test")
        migrations.upgrade(self.database.engine, "groundskeeper")
        migrations.stamp_environment(self.database.engine, "demo-groundskeeper", False, NOW)
        fill(server, self.database, rows)
        with self.database.transaction() as connection:
            paused = "insert into groundskeeper.pause values ('verify_backup', 'by itself', 'tester', :now, :until)"
            connection.execute(text(paused), {"now": NOW, "until": NOW + _MINUTE})
        self.now, self.seconds = NOW, defaultdict[str, list[float]](list)
        self.taken = self._run("backup_database", NOW)

    def _run(self, task: str, now: datetime) -> Result:
        runner = load(FUNCTIONS / task).runner(self.settings, ManualClock(now))
        began = time.perf_counter()
        try:
            return runner.execute(of_slot(Cron("* * * * *"), now))
        finally:
            self.seconds[task].append(time.perf_counter() - began)
            runner.close()

    def megabytes(self) -> float:
        with self.database.transaction(read_only=True) as connection:
            size = connection.execute(text("select pg_database_size(current_database())")).scalar_one()
        return float(size) / (1 << 20)

    def verify(self, later: timedelta = timedelta(0)) -> Result:
        """One drill, a minute after the one before."""
        self.now += _MINUTE
        with self.database.transaction() as connection:
            connection.execute(text("delete from groundskeeper.verified_backup"))
        return self._run("verify_backup", self.now + later)

    @property
    def dump(self) -> Path:
        (entry,) = shelf.entries(at(str(self.folder)))
        return self.folder / shelf.dump_of(entry.name)

    @contextmanager
    def instead(self) -> Iterator[Path]:
        """The place of the dump, empty, until the block ends."""
        place, aside = self.dump, self.dump.with_suffix(".aside")
        place.rename(aside)
        try:
            yield place
        finally:
            aside.replace(place)

    @contextmanager
    def edited(self, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
        """The manifest as `change` makes it, until the block ends."""
        place = self.dump.with_name(shelf.MANIFEST)
        before = place.read_bytes()
        document = json.loads(before)
        change(document)
        place.write_text(json.dumps(document))
        try:
            yield
        finally:
            place.write_bytes(before)


@contextmanager
def _large(server: Postgres, folder: Path, rows: int) -> Iterator[_Large]:
    made = None
    try:
        made = _Large(server, folder, rows)
        yield made
    finally:
        if made is not None:
            made.database.close()
        clean(server, "large")


def _prove(large: _Large) -> None:
    """Green for what was written, red for everything else, and green again."""
    assert large.taken.outcome is Outcome.OK, large.taken.error
    good = large.verify()
    assert good.outcome is Outcome.OK, good.error
    assert good.counts["rows"] == large.taken.counts["rows"]

    def red(words: str, *, later: timedelta = timedelta(0)) -> None:
        ended = large.verify(later)
        assert ended.outcome is Outcome.REFUSED, ended
        assert words in (ended.error or "")

    red("hours old", later=timedelta(days=1))
    with large.dump.open("r+b") as stream:
        middle = large.dump.stat().st_size // 2
        for words in ("checksums differ", ""):  # there and back
            stream.seek(middle)
            bit = stream.read(1)[0] ^ 1
            stream.seek(middle)
            stream.write(bytes([bit]))
            stream.flush()
            if words:
                red(words)
    with large.instead() as place:
        red("no dump")
        place.touch()
        red("has 0 bytes")
        with large.dump.with_suffix(".aside").open("rb") as whole:
            place.write_bytes(whole.read(middle))
        red(f"has {middle} bytes")
        with large.edited(lambda document: document["dump"].update(bytes=middle)):
            red("checksums differ")
    with large.edited(lambda document: document["stamp"].update(project="elsewhere")):
        red("foreign")
    again = large.verify()
    assert (again.outcome, again.counts["rows"]) == (Outcome.OK, good.counts["rows"]), again.error


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_database_of_200_mb_is_proven_from_each_version_and_any_other_dump_is_red(
    each_server: Postgres, tmp_path: Path
) -> None:
    with _large(each_server, tmp_path, 160_000) as large:
        assert large.megabytes() > 180
        _prove(large)


@pytest.mark.soak
def test_a_database_of_2_gb_is_proven_and_any_other_dump_is_red(server: Postgres, tmp_path: Path) -> None:
    with _large(server, tmp_path, 1_700_000) as large:
        assert large.megabytes() > 2048
        _prove(large)
        taken = large.taken.counts
        print(
            f"{large.megabytes():,.0f} MiB, {taken['rows']:,} rows, {taken['large_objects']:,} large objects; "
            f"dumped {taken['bytes'] >> 20:,} MiB in {large.seconds['backup_database'][0]:.0f} s; proven in "
            f"{large.seconds['verify_backup'][0]:.0f} s and {large.seconds['verify_backup'][-1]:.0f} s; red dumps in "
            f"{max(large.seconds['verify_backup'][1:-1]):.1f} s at most"
        )
