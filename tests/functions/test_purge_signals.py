"""purge_signals: thirty days of signals, and of log files that nobody is writing to."""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared import holds
from shared.database import Database
from shared.errors import Outcome
from shared.settings import Settings
from tests.conftest import NOW, ManualClock, RunTask

Rows = Callable[..., list[Any]]
LIMIT, TICK = NOW - timedelta(days=30), timedelta(microseconds=1)
Write = Callable[..., Path]


@pytest.fixture
def signals(db: Database) -> Callable[..., None]:
    def write(*moments: datetime) -> None:
        with db.transaction() as connection:
            for at in moments:
                connection.execute(text("insert into signal (source, created_at) values ('search', :at)"), {"at": at})

    return write


@pytest.fixture
def folder(settings: Settings) -> Path:
    place = Path(settings.bucket("logs"))
    place.mkdir(parents=True)
    return place


def log(folder: Path, name: str, at: datetime = LIMIT - TICK) -> Path:
    """A log file last changed at `at`."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a line\n")
    ns = int(at.timestamp()) * 10**9 + at.microsecond * 1000
    os.utime(file, ns=(ns, ns))
    return file


def _left(folder: Path) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if not f.is_dir())


def test_signals_and_logs_exactly_at_the_limit_are_kept(
    signals: Callable[..., None], folder: Path, rows: Rows, run_task: RunTask
) -> None:
    signals(LIMIT - TICK, LIMIT, LIMIT + TICK, NOW)
    log(folder, "old.log")
    log(folder, "deep/er/old.log.3.gz")
    log(folder, "limit.log", LIMIT)
    log(folder, "new.log", NOW)
    log(folder, "old.txt")
    result = run_task("purge_signals")
    assert (result.outcome, result.error) == (Outcome.OK, None)
    assert result.counts == {"signal.deleted": 1, "logs.deleted": 2}
    assert [r.created_at for r in rows("select created_at from signal order by 1")] == [LIMIT, LIMIT + TICK, NOW]
    assert _left(folder) == ["limit.log", "new.log", "old.txt"]
    assert run_task("purge_signals").counts == {"signal.deleted": 0, "logs.deleted": 0}


def test_links_and_what_they_point_at_are_never_touched(folder: Path, run_task: RunTask, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    kept = [log(outside, "precious.log"), log(outside, "sub/precious.log")]
    (folder / "file.log").symlink_to(kept[0])
    (folder / "folder").symlink_to(outside / "sub")
    (folder / "up.log").symlink_to("../../../outside/precious.log")
    os.mkfifo(folder / "pipe.log")
    assert run_task("purge_signals").counts["logs.deleted"] == 0
    assert all(file.is_file() for file in kept)
    assert sorted(os.listdir(folder)) == ["file.log", "folder", "pipe.log", "up.log"]


def test_an_open_log_is_left_and_goes_when_it_is_closed(folder: Path, run_task: RunTask) -> None:
    with log(folder, "open.log").open("rb"):
        log(folder, "closed.log")
        counts = run_task("purge_signals").counts
    assert (counts["logs.deleted"], counts["logs.in_use"]) == (1, 1)
    assert _left(folder) == ["open.log"]
    assert run_task("purge_signals").counts["logs.deleted"] == 1


def test_log_dir_is_the_folder_when_it_is_set(
    folder: Path, run_task: RunTask, settings: Settings, tmp_path: Path
) -> None:
    from dataclasses import replace

    own = tmp_path / "app-logs"
    log(own, "a.log")
    log(folder, "b.log")
    using = replace(settings, environ={**settings.environ, "LOG_DIR": str(own)})
    assert run_task("purge_signals", using=using).counts["logs.deleted"] == 1
    assert (_left(own), _left(folder)) == ([], ["b.log"])


def test_no_folder_at_all_is_nothing_to_do(run_task: RunTask) -> None:
    assert run_task("purge_signals").counts == {"signal.deleted": 0, "logs.deleted": 0}


@pytest.mark.parametrize("table", [None, "logs"])
def test_a_hold_keeps_logs(
    table: str | None, folder: Path, run_task: RunTask, db: Database, clock: ManualClock
) -> None:
    log(folder, "old.log")
    with db.transaction() as connection:
        holds.add(connection, reason="case 3", by="ann", now=clock.now(), table=table)
    assert run_task("purge_signals").counts["logs.deleted"] == 0
    assert _left(folder) == ["old.log"]


def test_the_plan_equals_the_act_and_writes_nothing(
    signals: Callable[..., None], folder: Path, run_task: RunTask
) -> None:
    signals(LIMIT - TICK, LIMIT)
    log(folder, "old.log")
    planned = run_task("purge_signals", planning=True)
    assert planned.plan is not None
    items = {i["what"]: (i["count"], i["unit"]) for i in planned.plan["items"]}
    assert items == {"signal": (1, "rows"), "logs": (1, "files")}
    assert _left(folder) == ["old.log"]
    assert run_task("purge_signals").counts == {"signal.deleted": 1, "logs.deleted": 1}


def test_a_folder_that_forbids_deleting_is_told_and_the_signals_go(
    signals: Callable[..., None], folder: Path, run_task: RunTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals(LIMIT - TICK)
    log(folder, "old.log")
    log(folder, "older.log")
    unlink = os.unlink

    def refuse(name: str, **where: Any) -> None:
        # root may delete anywhere: what a read-only folder answers is said here
        if name == "old.log":
            raise PermissionError(13, "Permission denied")
        unlink(name, **where)

    monkeypatch.setattr(os, "unlink", refuse)
    result = run_task("purge_signals")
    assert result.outcome is Outcome.PARTIAL
    assert "logs: old.log: Permission denied" in (result.error or "")
    assert (result.counts["signal.deleted"], result.counts["logs.deleted"]) == (1, 1)
