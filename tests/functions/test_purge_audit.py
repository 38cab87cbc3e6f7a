"""purge_audit: eighteen calendar months, to the microsecond, and back again."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared import holds
from shared.database import Database
from shared.errors import Outcome
from shared.retention.restore import restore
from shared.settings import Settings
from tests.conftest import NOW, ManualClock, RunTask

Rows = Callable[..., list[Any]]
LIMIT = datetime(2024, 12, 15, 12, 0, tzinfo=UTC)  # eighteen months before NOW
INSTANT = timedelta(microseconds=1)


@pytest.fixture
def entries(db: Database) -> Callable[..., None]:
    def write(*moments: datetime) -> None:
        with db.transaction() as connection:
            for moment in moments:
                connection.execute(
                    text("""insert into groundskeeper.operator_audit (at, actor, action, subject, why, details)
                            values (:at, 'alma', 'approve', 'db_cleanup', 'Zoë''s "case", 12', '{"a": [1, null]}')"""),
                    {"at": moment},
                )

    return write


def _left(rows: Rows) -> list[datetime]:
    return [r.at for r in rows("select at from groundskeeper.operator_audit where actor = 'alma' order by at")]


def test_entries_exactly_eighteen_months_old_are_kept(
    entries: Callable[..., None], rows: Rows, run_task: RunTask, settings: Settings
) -> None:
    entries(LIMIT - timedelta(days=400), LIMIT - INSTANT, LIMIT, LIMIT + INSTANT, NOW)
    result = run_task("purge_audit")
    assert (result.outcome, result.error) == (Outcome.OK, None)
    assert (result.counts["operator_audit.deleted"], result.counts["operator_audit.archived"]) == (2, 2)
    assert _left(rows) == [LIMIT, LIMIT + INSTANT, NOW]
    assert len(list(Path(settings.bucket("archive")).rglob("*.parquet"))) == 1


def test_what_was_purged_comes_back_equal_and_is_held(
    entries: Callable[..., None], rows: Rows, run_task: RunTask, db: Database
) -> None:
    entries(*(LIMIT - n * INSTANT for n in range(1, 40)))
    before = rows("select * from groundskeeper.operator_audit order by audit_id")
    done = run_task("purge_audit")
    assert done.run_id is not None
    back = restore(db.transaction, done.run_id, actor="ann", why="a test", now=NOW, hold_until=NOW + timedelta(days=9))
    assert (back.restored, back.conflicts, back.equal) == (39, (), True)
    assert rows("select * from groundskeeper.operator_audit where actor = 'alma' order by audit_id") == before
    again = run_task("purge_audit")
    assert (again.counts["operator_audit.deleted"], again.counts["operator_audit.held"]) == (0, 39)


def test_nothing_to_do_is_ok_and_twice_equals_once(entries: Callable[..., None], rows: Rows, run_task: RunTask) -> None:
    assert run_task("purge_audit").counts["operator_audit.deleted"] == 0
    entries(LIMIT - INSTANT, NOW)
    assert run_task("purge_audit").counts["operator_audit.deleted"] == 1
    second = run_task("purge_audit")
    assert (second.outcome, second.counts["operator_audit.deleted"]) == (Outcome.OK, 0)
    assert _left(rows) == [NOW]


def test_the_plan_equals_the_act_and_tells_when_all_is_gone(
    entries: Callable[..., None], rows: Rows, run_task: RunTask
) -> None:
    entries(LIMIT - INSTANT, LIMIT - INSTANT, NOW)
    planned = run_task("purge_audit", planning=True)
    assert planned.plan is not None
    (item,) = planned.plan["items"]
    assert (item["what"], item["count"]) == ("operator_audit", 2)
    assert "18 calendar months" in item["why"]
    assert "gone after 912 days" in item["why"]
    assert len(_left(rows)) == 3
    assert run_task("purge_audit").counts["operator_audit.deleted"] == item["count"]


def test_a_hold_on_the_trail_keeps_it(
    entries: Callable[..., None], rows: Rows, run_task: RunTask, db: Database, clock: ManualClock
) -> None:
    entries(LIMIT - INSTANT)
    with db.transaction() as connection:
        holds.add(connection, reason="case 7", by="ann", now=clock.now(), table="groundskeeper.operator_audit")
    assert run_task("purge_audit").counts == {"operator_audit.deleted": 0, "operator_audit.held": 1}
    assert len(_left(rows)) == 1


def test_without_a_place_for_archives_nothing_goes(
    entries: Callable[..., None], rows: Rows, run_task: RunTask, settings: Settings
) -> None:
    from dataclasses import replace

    entries(LIMIT - INSTANT)
    nowhere = replace(settings, buckets={})
    result = run_task("purge_audit", using=nowhere)
    assert result.outcome is Outcome.PARTIAL
    assert "KEEPER_BUCKET_ARCHIVE" in (result.error or "")
    assert len(_left(rows)) == 1
