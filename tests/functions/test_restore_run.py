"""restore_run: what a run archived comes back by a run of its own, as its own role, and is proven equal."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.call import by_hand
from shared.database import Database
from shared.errors import Outcome
from shared.plans import request_run
from shared.result import Result
from shared.settings import Settings
from tests.conftest import NOW, RunTask

Rows = Callable[..., list[Any]]
Restore = Callable[..., Result]

SENT = "select * from outbox_event order by id"


@pytest.fixture
def restore(db: Database, run_task: RunTask) -> Restore:
    """Ask for restore_run by hand, and run it."""

    def ask(run_id: uuid.UUID | str | None, *, planning: bool = False, **params: Any) -> Result:
        with db.transaction() as connection:
            asked = request_run(
                connection, task="restore_run", actor="ann", why="case 7", now=NOW, planning=planning,
                params={"run_id": str(run_id), **params},
            )  # fmt: skip
        return run_task("restore_run", by_hand(asked))

    return ask


@pytest.fixture
def purged(db: Database, run_task: RunTask, rows: Rows) -> tuple[uuid.UUID, list[Any]]:
    """A run of db_cleanup that archived and deleted twelve events, and the rows as they were."""
    with db.transaction() as connection:
        connection.execute(
            text("""
            insert into outbox_event (id, topic, payload, created_at, published_at, attempts)
            select gen_random_uuid(), 'app-events', '{"data": {"n": 1.50}, "account_id": null}', :at, :at, 1
              from generate_series(1, 12)"""),
            {"at": NOW - timedelta(days=40)},
        )
    before = rows(SENT)
    done = run_task("db_cleanup")
    assert (done.counts["outbox_event_published.deleted"], rows(SENT)) == (12, [])
    assert done.run_id is not None
    return done.run_id, before


def test_what_a_run_deleted_comes_back_equal_held_and_audited(
    restore: Restore, purged: tuple[uuid.UUID, list[Any]], rows: Rows, run_task: RunTask
) -> None:
    run_id, before = purged
    done = restore(run_id, hold_days=7)
    assert (done.outcome, done.error) == (Outcome.OK, None)
    assert done.counts == {"archives": 1, "archived": 12, "restored": 12, "present": 0}
    assert rows(SENT) == before
    held = rows("select expires_at, placed_by, reason from groundskeeper.legal_hold where released_at is null")
    assert [tuple(h) for h in held] == [(NOW + timedelta(days=7), "ann", f"restored from run {run_id}: case 7")]
    audited = rows("select actor, why from groundskeeper.operator_audit where action = 'restore'")
    assert [tuple(a) for a in audited] == [("ann", "case 7")]
    assert run_task("db_cleanup").counts["outbox_event_published.deleted"] == 0


def test_a_second_restore_finds_everything_there(
    restore: Restore, purged: tuple[uuid.UUID, list[Any]], rows: Rows
) -> None:
    restore(purged[0])
    again = restore(purged[0])
    assert (again.outcome, again.counts["restored"], again.counts["present"]) == (Outcome.OK, 0, 12)
    assert rows(SENT) == purged[1]


def test_a_plan_counts_what_would_come_back_and_writes_nothing(
    restore: Restore, purged: tuple[uuid.UUID, list[Any]], rows: Rows
) -> None:
    planned = restore(purged[0], planning=True)
    assert (planned.outcome, planned.counts) == (Outcome.PLANNED, {"archives": 1, "archived": 12})
    assert rows(SENT) == []
    assert rows("select 1 from groundskeeper.legal_hold") == []


def test_a_row_that_was_made_anew_with_other_values_stays_and_is_told(
    restore: Restore, purged: tuple[uuid.UUID, list[Any]], db: Database, rows: Rows
) -> None:
    run_id, before = purged
    with db.transaction() as connection:
        connection.execute(
            text("insert into outbox_event (id, topic, payload, created_at) values (:id, 'user-issues', '{}', :at)"),
            {"id": before[0].id, "at": NOW},
        )
    done = restore(run_id)
    assert done.outcome is Outcome.PARTIAL
    assert "1 row stayed away: there is a row of that key with other values" in (done.error or "")
    assert (done.counts["restored"], len(rows(SENT))) == (11, 12)


def test_a_damaged_archive_brings_nothing_back(
    restore: Restore, purged: tuple[uuid.UUID, list[Any]], settings: Settings, rows: Rows
) -> None:
    for data in Path(settings.bucket("archive")).rglob("*.parquet"):
        data.write_bytes(data.read_bytes()[:-1])
    done = restore(purged[0])
    assert (done.outcome, rows(SENT)) == (Outcome.REFUSED, [])
    assert "is damaged" in (done.error or "")


@pytest.mark.parametrize(
    ("run_id", "params", "said"),
    [
        ("", {}, "run_id is '': say which run"),
        ("yesterday", {}, "run_id is 'yesterday': say which run"),
        (uuid.UUID(int=0), {}, "archived nothing"),
        (uuid.UUID(int=0), {"hold_days": 0}, "hold_days is 0"),
    ],
)
def test_what_cannot_be_restored_is_refused_in_words(
    restore: Restore, run_id: uuid.UUID | str, params: dict[str, Any], said: str
) -> None:
    done = restore(run_id, **params)
    assert done.outcome is Outcome.REFUSED
    assert said in (done.error or "")
