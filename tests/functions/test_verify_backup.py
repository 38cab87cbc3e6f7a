"""verify_backup: green only for what can be restored and is the same; everything else is red, in words."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.backup import shelf
from shared.backup.throwaway import workplace
from shared.call import of_slot
from shared.clock import rfc3339
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.postgres import Postgres
from shared.manifest import FUNCTIONS, Cron
from shared.objects import Objects, at
from shared.settings import Settings
from shared.task import load
from tests.conftest import NOW, ManualClock, RunTask, as_role, settings_for
from tests.killing import killer

Rows = Callable[..., list[Any]]
_SOME_ROWS = (
    "insert into groundskeeper.pause values ('verify_backup', 'not here', 'tester', '2026-06-15', null)",
    "insert into idea (title, created_at) select 'idea ' || n, '2026-06-01' from generate_series(1, 50) n",
    'create table odd ("a%b:c" jsonb, t int, "Ü" numrange)',
    "insert into odd values ('{\"x\": [1, 2]}', 7, '[1,2)')",
    "create function f(int) returns int language sql immutable as 'select $1 + 1'",
    "alter table odd add column g int generated always as (f(t)) stored",
)


@pytest.fixture(scope="module")
def taken(server: Postgres, template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one backup of NOW, of a database with some rows."""
    folder = tmp_path_factory.mktemp("backups")
    settings = settings_for(server.create_database("backed_up", template=template), KEEPER_BUCKET_BACKUPS=str(folder))
    database = Database(settings, "test")
    with database.transaction() as connection:
        for statement in _SOME_ROWS:
            connection.execute(text(statement.replace(":", "\\:")))
    database.close()
    runner = load(FUNCTIONS / "backup_database").runner(settings, ManualClock())
    result = runner.execute(of_slot(Cron("0 12 * * *"), NOW))
    runner.close()
    server.drop_database("backed_up")
    assert result.outcome is Outcome.OK, result.error
    return folder


@pytest.fixture
def folder(taken: Path, settings: Settings) -> Path:
    """This test's copy of the backup, where its task looks."""
    place = Path(settings.bucket("backups"))
    shutil.copytree(taken, place)
    return place


@pytest.fixture
def store(folder: Path) -> Objects:
    return at(str(folder))


@pytest.fixture
def name(store: Objects) -> str:
    (entry,) = shelf.entries(store)
    return entry.name


def _edit(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / shelf.manifest_of(name)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.fixture
def is_red(run_task: RunTask, rows: Rows) -> Callable[[str], None]:
    """Run verify_backup and expect it refused with these words, and nothing called verified."""

    def red(words: str) -> None:
        result = run_task("verify_backup")
        assert result.outcome is Outcome.REFUSED, result
        assert words in (result.error or "")
        assert rows("select 1 from groundskeeper.verified_backup") == []

    return red


def test_a_good_backup_is_verified_and_its_figures_kept(
    folder: Path, name: str, run_task: RunTask, rows: Rows, clock: ManualClock
) -> None:
    clock.advance(timedelta(minutes=90))
    servers = set(Path(tempfile.gettempdir()).glob("keeper-drill-*"))
    result = run_task("verify_backup")
    assert set(Path(tempfile.gettempdir()).glob("keeper-drill-*")) <= servers, "the throwaway server stays"
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["data_age_s"] == 90 * 60
    assert {"recovery_s", "tables", "rows", "bytes"} <= set(result.counts)
    (verified,) = rows("select manifest, taken_at, verified_at from groundskeeper.verified_backup")
    assert verified == (f"{folder}/{shelf.manifest_of(name)}", NOW, clock.now())
    again = run_task("verify_backup")
    assert (again.outcome, again.counts) == (Outcome.OK, {"verified_before": 1})


def test_no_backup_at_all_is_red(is_red: Callable[[str], None]) -> None:
    is_red("there is no backup")


def test_yesterdays_backup_is_red(folder: Path, clock: ManualClock, is_red: Callable[[str], None]) -> None:
    clock.advance(timedelta(hours=24, microseconds=1))
    is_red("hours old")


def test_a_backup_exactly_as_old_as_it_may_be_is_not_stale(folder: Path, clock: ManualClock, run_task: RunTask) -> None:
    clock.advance(timedelta(hours=24))
    assert run_task("verify_backup", params={"embedded_up_to_gb": 0}).outcome is Outcome.UNAVAILABLE


def test_a_backup_of_the_future_is_red(folder: Path, clock: ManualClock, is_red: Callable[[str], None]) -> None:
    clock.advance(timedelta(minutes=-6))
    is_red("of the future")


def test_a_missing_dump_is_red(folder: Path, name: str, is_red: Callable[[str], None]) -> None:
    (folder / shelf.dump_of(name)).unlink()
    is_red("no dump")


def test_a_dump_without_its_manifest_does_not_exist(folder: Path, name: str, is_red: Callable[[str], None]) -> None:
    (folder / shelf.manifest_of(name)).unlink()
    is_red("there is no backup")


def test_an_unreadable_manifest_is_red(folder: Path, name: str, is_red: Callable[[str], None]) -> None:
    for content in (b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1}', b"\xff\xfe"):
        (folder / shelf.manifest_of(name)).write_bytes(content)
        is_red("cannot be read")


def test_a_manifest_of_another_backup_is_red(folder: Path, name: str, is_red: Callable[[str], None]) -> None:
    _edit(folder, name, lambda document: document.update(name="20260614T000000Z-00000000-1"))
    is_red("moved or copied")


def test_a_foreign_backup_is_red(folder: Path, name: str, is_red: Callable[[str], None]) -> None:
    for stamp in ({"project": "elsewhere", "livemode": False}, {"project": "demo-groundskeeper", "livemode": True}):
        _edit(folder, name, lambda document, stamp=stamp: document.update(stamp=stamp))
        is_red("foreign")


def test_an_empty_or_truncated_dump_is_red(folder: Path, name: str, is_red: Callable[[str], None]) -> None:
    path = folder / shelf.dump_of(name)
    for left in (1000, 0):
        path.write_bytes(path.read_bytes()[:left])
        is_red(f"has {left} bytes")


def test_a_truncated_dump_whose_manifest_agrees_in_size_is_red(
    folder: Path, name: str, is_red: Callable[[str], None]
) -> None:
    path = folder / shelf.dump_of(name)
    path.write_bytes(path.read_bytes()[:5000])
    _edit(folder, name, lambda document: document["dump"].update(bytes=5000))
    is_red("checksums differ")


def test_a_dump_with_one_flipped_bit_is_red(folder: Path, name: str, is_red: Callable[[str], None]) -> None:
    path = folder / shelf.dump_of(name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    is_red("checksums differ")


def test_a_restore_that_differs_is_red_and_names_what(folder: Path, name: str, is_red: Callable[[str], None]) -> None:
    def change(document: dict[str, Any]) -> None:
        document["tables"]["public.idea"][0] = 51
        document["tables"]["public.odd"][1] = "0.0"
        document["tables"]["public.lost"] = [1, "0.0"]
        document["sequences"]["public.idea_id_seq"] = 1000

    _edit(folder, name, change)
    is_red(
        "table public.lost is missing; table public.idea: 50 rows, expected 51; table public.odd: 1 row, but their "
        "contents differ; sequence public.idea_id_seq is at 50, behind 1000"
    )


def test_an_extension_that_is_not_installed_is_unavailable_by_name(folder: Path, name: str, run_task: RunTask) -> None:
    _edit(folder, name, lambda document: document["surroundings"].update(extensions=["plpgsql", "postgis_x"]))
    result = run_task("verify_backup")
    assert result.outcome is Outcome.UNAVAILABLE
    assert "postgis_x" in (result.error or "")


def test_what_is_too_large_for_a_throwaway_server_is_unavailable(folder: Path, run_task: RunTask) -> None:
    result = run_task("verify_backup", params={"embedded_up_to_gb": 0})
    assert result.outcome is Outcome.UNAVAILABLE
    assert "embedded_up_to_gb" in (result.error or "")


# --- killed


def _leftovers() -> tuple[set[str], set[str]]:
    """The folders of drills, and the processes that have one in their command line: servers and their pg_restore."""
    place = tempfile.gettempdir()
    folders = {str(folder) for folder in Path(place).glob("keeper-drill-*")}
    running = set()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            running.add(process.read_bytes().decode(errors="replace"))
    return folders, {command for command in running if f"{place}/keeper-drill-" in command}


def _kill(settings: Settings, folder: Path, rows: Rows, steps: Callable[[int], range]) -> int:
    """Kill a drill before each of `steps`, and let the next one end well. How many steps a drill has."""
    environment = {**settings.environ, "DATABASE_URL": as_role(settings, "verify-backup").database()}
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    slot = rfc3339(NOW.replace(hour=1, minute=30) + timedelta(days=1))  # within a day of the backup
    with killer(environment, FUNCTIONS / "verify_backup") as kill:
        whole = kill.run(slot=slot, now=slot)
        assert whole.outcome == "ok", whole.error
        for step in steps(whole.steps):
            rows("with a as (delete from groundskeeper.task_run) delete from groundskeeper.verified_backup returning 1")
            assert kill.run(slot=slot, now=slot, step=step).killed, step
            rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")
            again = kill.run(slot=slot, now=slot)
            assert again.outcome in ("ok", "skipped"), (step, again)
            assert len(rows("select 1 from groundskeeper.verified_backup")) == 1, f"killed before step {step}"
            if again.outcome == "ok" and rows("select 1 from groundskeeper.task_run where counts ? 'verified'"):
                assert _leftovers() == (set(), set()), f"killed before step {step}"
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    return whole.steps


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Drills of this test in a folder for temporary files that no other test's are in."""
    place = Path(tempfile.mkdtemp(prefix="drills-"))
    place.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield
    shutil.rmtree(place)


def test_what_a_drill_killed_while_it_tidied_up_left_is_removed(alone: None) -> None:
    with workplace() as folder:
        pass
    folder.mkdir()
    (folder / "data").mkdir()
    with workplace() as at_work:
        assert not folder.exists()
        with workplace():
            assert at_work.exists()


def test_killed_at_some_steps_the_next_drill_ends_the_server_and_verifies(
    alone: None, settings: Settings, folder: Path, rows: Rows
) -> None:
    _kill(settings, folder, rows, lambda steps: range(steps * 2 // 3, steps, steps))


@pytest.mark.full
@pytest.mark.timeout(600)
def test_killed_before_every_few_steps_the_next_drill_ends_the_server_and_verifies(
    alone: None, settings: Settings, folder: Path, rows: Rows
) -> None:
    assert _kill(settings, folder, rows, lambda steps: range(5, steps + 1, steps // 8)) > 60


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_killed_before_every_step_the_next_drill_ends_the_server_and_verifies(
    alone: None, settings: Settings, folder: Path, rows: Rows
) -> None:
    _kill(settings, folder, rows, lambda steps: range(1, steps + 1))
