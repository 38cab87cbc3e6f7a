"""A restore brings back no row of an account that was erased since."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from shared import erasure
from shared.database import Database
from shared.errors import Refused
from shared.retention.restore import Restored, restore
from tests.conftest import ManualClock
from tests.retention.conftest import Execute, Rows, Sweep

KEY = "the key of a test"


@pytest.fixture
def archived(table: Callable[..., None], sweep: Sweep) -> Callable[[str, str], Any]:
    """Archive and delete two rows of two accounts; the run's id."""

    def run(column: str, value: str) -> Any:
        rows = ", ".join(f"({n}, '2026-01-01', '{value.replace('NAME', n * 'a')}')" for n in (1, 2))
        table("gone_by", f"id int primary key, at timestamptz, {column})", f"insert into gone_by values {rows}")
        result = sweep({"table": "gone_by", "archive": {"keep_days": 90}})
        assert result.counts["gone_by.deleted"] == 2, result.error
        return result.run_id

    return run


@pytest.mark.parametrize(
    ("column", "value"), [("account_id text", "NAME"), ("payload jsonb", json.dumps({"account_id": "NAME"}))]
)
def test_rows_of_erased_accounts_stay_away_and_others_come(
    archived: Callable[[str, str], Any], db: Database, clock: ManualClock, rows: Rows, column: str, value: str
) -> None:
    run_id = archived(column, value)
    with db.transaction() as connection:
        erasure.tombstone(connection, "a", KEY, clock.now())

    def back(key: str | None) -> Restored:
        until = clock.now() + timedelta(days=9)
        return restore(
            db.transaction, run_id, actor="ann", why="a test", now=clock.now(), hold_until=until, erasure_key=key
        )

    with pytest.raises(Refused, match="erasure-key"):
        back(None)
    done = back(KEY)
    assert (done.restored, done.equal) == (1, False)
    assert [(c.rows, c.why) for c in done.conflicts] == [(1, "their accounts are erased")]
    assert [r.id for r in rows("select id from gone_by")] == [2]


def test_where_nobody_is_erased_no_key_is_needed(
    archived: Callable[[str, str], Any], db: Database, clock: ManualClock, execute: Execute
) -> None:
    run_id = archived("account_id text", "NAME")
    until = clock.now() + timedelta(days=9)
    assert restore(db.transaction, run_id, actor="ann", why="a test", now=clock.now(), hold_until=until).restored == 2
