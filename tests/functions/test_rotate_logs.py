"""rotate_logs: every line once, in the log or in an archive, whoever writes and whenever the run dies."""

import gzip
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared import holds
from shared.database import Database
from shared.errors import Outcome
from shared.manifest import FUNCTIONS
from shared.settings import Settings
from tests.conftest import NOW, ManualClock, RunTask
from tests.killing import killer

Rows = Callable[..., list[Any]]
SLOT = "2026-06-15T01:00:00Z"


@pytest.fixture
def logs(settings: Settings) -> Path:
    folder = Path(settings.bucket("logs"))
    folder.mkdir(parents=True)
    return folder


def _archived(logs: Path) -> dict[str, str]:
    """The archives by name, unpacked."""
    return {f.name: gzip.decompress(f.read_bytes()).decode() for f in sorted((logs / "archive").glob("*.gz"))}


def test_logs_go_into_the_archive_compressed_and_others_stay(logs: Path, run_task: RunTask) -> None:
    (logs / "app.log").write_text("one\n")
    (logs / "empty.log").write_text("")
    (logs / "notes.txt").write_text("kept")
    (logs / "deep").mkdir()
    (logs / "deep" / "other.log").write_text("not at the top")
    result = run_task("rotate_logs")
    assert (result.outcome, result.error) == (Outcome.OK, None)
    assert result.counts == {"logs.rotated": 1, "logs.emptied": 0, "archives.removed": 0}
    assert _archived(logs) == {"app.log.20260615T120000Z.gz": "one\n"}
    assert sorted(os.listdir(logs)) == ["archive", "deep", "empty.log", "notes.txt"]
    assert run_task("rotate_logs").counts["logs.rotated"] == 0


def test_the_same_name_in_the_same_second_never_collides(logs: Path, run_task: RunTask) -> None:
    for n in range(3):
        (logs / "app.log").write_text(f"{n}\n")
        assert run_task("rotate_logs").counts["logs.rotated"] == 1
    assert sorted(_archived(logs).values()) == ["0\n", "1\n", "2\n"]


def test_a_log_its_writer_keeps_open_is_emptied_and_goes_on(logs: Path, run_task: RunTask) -> None:
    with (logs / "app.log").open("a") as writer:
        writer.write("before\n")
        writer.flush()
        counts = run_task("rotate_logs").counts
        assert (counts["logs.rotated"], counts["logs.emptied"]) == (1, 1)
        writer.write("after\n")
    assert (logs / "app.log").read_text() == "after\n"
    assert list(_archived(logs).values()) == ["before\n"]


def test_lines_written_meanwhile_are_kept(logs: Path, run_task: RunTask) -> None:
    log, done, count = logs / "app.log", threading.Event(), 0

    def write() -> None:
        nonlocal count
        with log.open("a") as writer:
            while not done.is_set():
                writer.write(f"{count}\n")
                writer.flush()
                count += 1
                done.wait(0.002)

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(5):
        assert run_task("rotate_logs").outcome is Outcome.OK
    done.set()
    thread.join()
    lines = [line for content in (*_archived(logs).values(), log.read_text()) for line in content.split()]
    assert len(lines) == len(set(lines)) == count


def test_archives_exactly_seven_days_old_are_kept(logs: Path, run_task: RunTask) -> None:
    (logs / "archive").mkdir()
    for name, age in (("a.gz", 7 * 86400 + 1), ("b.gz", 7 * 86400), ("c.txt", 90 * 86400)):
        (logs / "archive" / name).write_bytes(gzip.compress(b"x"))
        os.utime(logs / "archive" / name, (NOW.timestamp() - age,) * 2)
    planned = run_task("rotate_logs", planning=True)
    assert planned.plan is not None
    assert {i["what"]: i["count"] for i in planned.plan["items"]} == {"rotated": 0, "archives": 1}
    assert run_task("rotate_logs").counts["archives.removed"] == 1
    assert sorted(os.listdir(logs / "archive")) == ["b.gz", "c.txt"]


def test_links_are_never_followed(logs: Path, run_task: RunTask, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (logs / "link.log").symlink_to(tmp_path / "precious")
    assert run_task("rotate_logs").counts["logs.rotated"] == 0
    (tmp_path / "elsewhere").mkdir()
    (logs / "archive").symlink_to(tmp_path / "elsewhere")
    (logs / "app.log").write_text("x")
    result = run_task("rotate_logs")
    assert result.outcome is Outcome.PARTIAL
    assert "is a link" in (result.error or "")
    assert ((tmp_path / "precious").read_text(), (logs / "app.log").read_text()) == ("kept", "x")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_hold_keeps_archives(logs: Path, run_task: RunTask, db: Database, clock: ManualClock) -> None:
    (logs / "archive").mkdir()
    (logs / "archive" / "a.gz").write_bytes(b"x")
    os.utime(logs / "archive" / "a.gz", (0, 0))
    with db.transaction() as connection:
        holds.add(connection, reason="case 3", by="ann", now=clock.now(), table="logs")
    assert run_task("rotate_logs").counts["archives.removed"] == 0


def _kill_each(logs: Path, rows: Rows, settings: Settings, *, start: int, every: int) -> None:
    def arrange(writer: list[Any]) -> None:
        shutil.rmtree(logs)
        logs.mkdir()
        rows("delete from groundskeeper.task_run returning 1")
        (logs / "closed.log").write_text("closed\n")
        (logs / "open.log").write_text("open\n")
        writer.append((logs / "open.log").open("a"))

    def state() -> tuple[list[str], list[str], list[str]]:
        assert [f for f in os.listdir(logs / "archive") if f.startswith(".")] == []
        live = {f.name: f.read_text() for f in logs.glob("*.log")}
        return sorted(_archived(logs).values()), sorted(live), [v for v in live.values() if v]

    writers: list[Any] = []
    with killer(dict(settings.environ), FUNCTIONS / "rotate_logs") as kill:
        arrange(writers)
        undisturbed = kill.run(slot=SLOT, now=SLOT)
        assert undisturbed.outcome == "ok", undisturbed.error
        wanted: Any = (["closed\n", "open\n"], ["open.log"], [])
        assert state() == wanted
        for step in range(start, undisturbed.steps + 1, every):
            writers.pop().close()
            arrange(writers)
            assert kill.run(slot=SLOT, step=step, now=SLOT).killed, step
            rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")
            assert kill.run(slot=SLOT, now=SLOT).outcome in ("ok", "skipped"), step
            assert state() == wanted, step
    writers.pop().close()


def test_killed_at_some_steps_every_line_is_kept_once(logs: Path, rows: Rows, settings: Settings) -> None:
    _kill_each(logs, rows, settings, start=33, every=9)


@pytest.mark.full
def test_killed_before_every_step_every_line_is_kept_once(logs: Path, rows: Rows, settings: Settings) -> None:
    _kill_each(logs, rows, settings, start=1, every=1)
