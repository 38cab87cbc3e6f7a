"""backup_database: whole or not there, from one moment, and never the last one gone."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared import holds
from shared.backup import shelf
from shared.clock import rfc3339
from shared.database import Database
from shared.errors import Outcome
from shared.manifest import FUNCTIONS
from shared.objects import Objects, at
from shared.settings import Settings
from tests.conftest import NOW, RunTask, as_role
from tests.killing import killer

Rows = Callable[..., list[Any]]
DAY = timedelta(days=1)


@pytest.fixture
def store(settings: Settings) -> Objects:
    return at(settings.bucket("backups"))


@pytest.fixture(autouse=True)
def _no_drill(db: Database) -> None:
    """verify_backup has its own tests: here its start is noted and nothing more."""
    with db.transaction() as connection:
        connection.execute(
            text("insert into groundskeeper.pause values ('verify_backup', 'not here', 'tester', :now, null)"),
            {"now": NOW},
        )


def _document(store: Objects, name: str) -> dict[str, Any]:
    with store.open(shelf.manifest_of(name)) as stream:
        return dict(json.loads(stream.read()))


def _put(store: Objects, taken_at: datetime, *, whole: bool = True) -> str:
    """An old backup, as far as its name tells."""
    name = shelf.name_of(taken_at, "0" * 32, 1)
    for path in (shelf.dump_of(name), *([shelf.manifest_of(name)] if whole else [])):
        with store.create(path) as sink:
            sink.write(b"{}")
    return name


def test_a_backup_has_its_dump_its_manifest_and_its_verification_started(
    run_task: RunTask, store: Objects, rows: Rows, db: Database
) -> None:
    with db.transaction() as connection:
        connection.execute(text("insert into idea (title, created_at) values ('a', :now), ('b', :now)"), {"now": NOW})
    result = run_task("backup_database")
    assert result.outcome is Outcome.OK, result.error
    (entry,) = shelf.entries(store)
    made = _document(store, entry.name)
    assert entry.taken_at == NOW
    assert made["dump"]["bytes"] == store.stat(shelf.dump_of(entry.name)).size == result.counts["bytes"]
    assert made["tables"]["groundskeeper.environment"][0] == 1
    assert made["tables"]["public.idea"][0] == 2
    assert made["stamp"] == {"project": "demo-groundskeeper", "livemode": False}
    assert made["run_id"] == str(result.run_id)
    (asked,) = rows("select task, actor, why from groundskeeper.run_request where task = 'verify_backup'")
    assert asked.actor == "backup_database"
    assert entry.name in asked.why


def test_what_is_committed_after_the_snapshot_is_neither_in_the_dump_nor_in_the_hashes(
    run_task: RunTask, store: Objects, db: Database
) -> None:
    """Rows are written all the while; both halves show the same moment, or the drill of the full test would fail."""
    stop, written = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            with db.transaction() as connection:
                connection.execute(text("insert into idea (title, created_at) values ('x', :now)"), {"now": NOW})
            written.append(1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        result = run_task("backup_database")
    finally:
        stop.set()
        writer.join()
    assert result.outcome is Outcome.OK, result.error
    (entry,) = shelf.entries(store)
    counted = _document(store, entry.name)["tables"]["public.idea"][0]
    dumped = _dumped_rows(store, entry.name, "idea")
    assert counted == dumped
    assert counted < len(written)


def _dumped_rows(store: Objects, name: str, table: str) -> int:
    from shared.backup.programs import programs

    with store.open(shelf.dump_of(name)) as stream:
        sql = subprocess.run(
            [programs(15).program("pg_restore"), "--data-only", "--table", table, "--file=-"],
            stdin=stream,
            capture_output=True,
            check=True,
        ).stdout.decode()
    return len(sql.partition(" FROM stdin;\n")[2].partition("\\.\n")[0].splitlines())


def test_backup_bucket_says_where_backups_lie(run_task: RunTask, settings: Settings, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    using = replace(settings, environ={**settings.environ, "BACKUP_BUCKET": str(place)})
    assert run_task("backup_database", using=using).outcome is Outcome.OK
    assert len(shelf.entries(at(str(place)))) == 1
    assert not Path(settings.bucket("backups")).exists()
    assert shelf.location(settings, "acme-backups") == "gs://acme-backups"


def test_a_planning_run_writes_nothing(run_task: RunTask, store: Objects) -> None:
    assert run_task("backup_database", planning=True).outcome is Outcome.PLANNED
    assert shelf.entries(store) == []


def test_a_tiny_dump_is_refused_and_leaves_nothing(run_task: RunTask, store: Objects) -> None:
    result = run_task("backup_database", params={"dump": {"gzip_level": 1, "least_bytes": 10**9}})
    assert result.outcome is Outcome.REFUSED
    assert "least_bytes" in (result.error or "")
    assert list(store.list()) == []


@contextmanager
def _table(db: Database, *statements: str) -> Iterator[None]:
    with db.transaction() as connection:
        for statement in statements:
            connection.execute(text(statement))
    yield


def test_a_table_the_role_cannot_read_whole_is_refused_in_words(
    run_task: RunTask, store: Objects, db: Database
) -> None:
    with _table(
        db,
        "create table secret (id int)",
        "insert into secret values (1)",
        "alter table secret enable row level security",
    ):
        result = run_task("backup_database")
    assert result.outcome is Outcome.REFUSED
    assert "BYPASSRLS" in (result.error or "")
    assert list(store.list()) == []


def test_a_large_object_the_role_cannot_read_is_refused_in_words(
    run_task: RunTask, store: Objects, db: Database
) -> None:
    with _table(db, "select lo_from_bytea(0, 'x')"):
        result = run_task("backup_database")
    assert result.outcome is Outcome.REFUSED, result
    assert list(store.list()) == []


def test_a_server_that_breaks_off_is_tried_again(run_task: RunTask, store: Objects, settings: Settings) -> None:
    """pg_dump's connection ends while it runs: whatever was sent is not under the final name."""
    from shared.backup import programs

    with (
        pytest.raises(programs.Failed),
        programs.reading(
            [programs.programs(15).program("pg_dump"), "--format=custom", "--no-password"],
            {"PGHOST": "127.0.0.1", "PGPORT": "1", "PGDATABASE": "x", "PGUSER": "x"},
        ) as stream,
    ):
        stream.read()
    assert list(store.list()) == []


# --- what is kept


def test_grades_shorter_than_the_buckets_retention_are_refused(run_task: RunTask) -> None:
    result = run_task("backup_database", params={"keep": {"daily": 7, "weekly": 1, "monthly": 1}})
    assert result.outcome in (Outcome.REFUSED, Outcome.FAILED)
    assert "at least 9" in (result.error or "")


def test_backups_of_no_grade_and_leftovers_go_and_the_verified_one_stays(
    run_task: RunTask, store: Objects, rows: Rows
) -> None:
    old = [_put(store, NOW - age * DAY) for age in (400, 399, 398)]
    left = _put(store, NOW - 9 * DAY, whole=False)
    fresh_left = _put(store, NOW - DAY, whole=False)
    rows(
        "insert into groundskeeper.verified_backup values (:m, :t, :t, 1) returning 1",
        m=f"{store.location}/{shelf.manifest_of(old[1])}",
        t=NOW - 399 * DAY,
    )
    result = run_task("backup_database", params={"keep": {"daily": 9, "weekly": 0, "monthly": 1}})
    assert result.outcome is Outcome.OK, result.error
    # four are the newest of their days: only two of the three old ones are beyond nothing
    assert result.counts["removed"] == 1
    names = {entry.name for entry in shelf.entries(store)}
    assert set(old) < names
    assert {s.name.split("/")[1] for s in store.list()} - names == {fresh_left}
    assert left != fresh_left


def test_while_a_legal_hold_is_in_force_no_backup_is_removed(run_task: RunTask, store: Objects, db: Database) -> None:
    for age in range(420, 400, -1):
        _put(store, NOW - age * DAY)
    with db.transaction(lock_timeout_ms=5000) as connection:
        holds.add(connection, reason="a case", by="ann", now=NOW - DAY)
    result = run_task("backup_database")
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["removed"] == 0
    assert len(shelf.entries(store)) == 21


# --- killed


def _kill(settings: Settings, store: Objects, rows: Rows, steps: Callable[[int], range]) -> None:
    environment = {**settings.environ, "DATABASE_URL": as_role(settings, "backup-database").database()}
    slot = datetime(2026, 6, 15, tzinfo=UTC)
    with killer(environment, FUNCTIONS / "backup_database") as kill:
        whole = kill.run(slot=rfc3339(slot), now=rfc3339(slot))
        assert whole.outcome == "ok", whole.error
        for number, step in enumerate(steps(whole.steps), 1):
            day = rfc3339(slot + number * DAY)
            before = {e.name for e in shelf.entries(store)}
            assert kill.run(slot=day, now=day, step=step).killed, step
            for entry in shelf.entries(store):
                assert store.stat(shelf.dump_of(entry.name)).size == shelf.read(store, entry.name).dump.bytes
            rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")
            again = kill.run(slot=day, now=day)
            assert again.outcome in ("ok", "skipped"), (step, again)
            assert len({e.name for e in shelf.entries(store)} - before) == 1, f"killed before step {step}"


def test_killed_at_some_steps_the_next_run_leaves_one_whole_backup(
    settings: Settings, store: Objects, rows: Rows
) -> None:
    _kill(settings, store, rows, lambda steps: range(steps // 2, steps, max(1, steps // 4)))


@pytest.mark.full
def test_killed_before_any_step_the_next_run_leaves_one_whole_backup(
    settings: Settings, store: Objects, rows: Rows
) -> None:
    _kill(settings, store, rows, lambda steps: range(1, steps + 1))
