"""dek_compliance: what it finds, and when it starts rotate_keys."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared import pauses
from shared import settings as settings_module
from shared.database import Database
from shared.errors import Outcome
from shared.keys.keyring import Keyring
from shared.result import Result
from shared.settings import Settings
from tests.conftest import ManualClock, RunTask
from tests.keys.conftest import Write
from tests.keys.conftest import accounts as accounts
from tests.keys.conftest import credentials as credentials
from tests.keys.conftest import keyring as keyring
from tests.keys.conftest import rotate_keys_at as rotate_keys_at
from tests.keys.conftest import write as write
from tests.started import Endpoint

Rows = Callable[..., list[Any]]
DAY, INSTANT = timedelta(days=1), timedelta(microseconds=1)


@pytest.fixture
def comply(run_task: RunTask, settings: Settings, rotate_keys_at: Endpoint) -> Callable[[], Result]:
    """Run dek_compliance, with rotate_keys at its address."""
    using = settings_module.read({**settings.environ, "KEEPER_TARGET_ROTATE_KEYS": rotate_keys_at.url})
    return lambda: run_task("dek_compliance", using=replace(using, database_url=settings.database_url))


def test_where_there_is_no_key_the_first_one_is_made(
    comply: Callable[[], Result], rotate_keys_at: Endpoint, rows: Rows
) -> None:
    result = comply()
    assert (result.outcome, result.counts["rotations_started"]) == (Outcome.OK, 1)
    assert [r.state for r in rows("select state from data_encryption_key")] == ["active"]
    assert rows("select task, actor, why from groundskeeper.run_request where task = 'rotate_keys'") == [
        ("rotate_keys", "dek_compliance", "there is no data key")
    ]


def test_a_key_exactly_thirty_days_old_stays_and_an_older_one_is_replaced(
    comply: Callable[[], Result], rotate_keys_at: Endpoint, rows: Rows, run_task: RunTask, clock: ManualClock
) -> None:
    run_task("rotate_keys")
    clock.advance(30 * DAY)
    assert comply().counts["rotations_started"] == 0
    clock.advance(INSTANT)
    result = comply()
    assert (result.counts["rotations_started"], result.counts["active_key_age_days"]) == (1, 30)
    assert [r.state for r in rows("select state from data_encryption_key order by id")] == ["retired", "active"]
    assert comply().counts["rotations_started"] == 0


def test_the_keks_rotation_leads_to_a_rewrap_without_a_new_key(
    comply: Callable[[], Result], run_task: RunTask, keyring: Keyring, rows: Rows, rotate_keys_at: Endpoint
) -> None:
    run_task("rotate_keys")
    keyring.rotate()
    assert comply().counts["keys_to_rewrap"] == 1
    assert [tuple(r) for r in rows("select kek, state from data_encryption_key")] == [("local/2", "active")]


def test_a_rotation_that_does_not_come_about_ends_the_check_as_partial(
    comply: Callable[[], Result], run_task: RunTask, settings: Settings, db: Database, clock: ManualClock
) -> None:
    run_task("rotate_keys")
    clock.advance(33 * DAY + INSTANT)
    nowhere = settings_module.read({**settings.environ, "KEEPER_TARGET_ROTATE_KEYS": "http://127.0.0.1:9/"})
    assert run_task("dek_compliance", using=nowhere).outcome is Outcome.RETRY
    with db.transaction() as connection:
        pauses.pause(connection, "rotate_keys", reason="a test", by="tester", now=clock.now(), until=None)
    result = comply()
    assert result.outcome is Outcome.PARTIAL
    assert "the active key is overdue" in (result.error or "")


def test_a_key_that_cannot_be_unwrapped_is_named(
    comply: Callable[[], Result], run_task: RunTask, keyring: Keyring, db: Database
) -> None:
    run_task("rotate_keys")
    with db.transaction() as connection:
        connection.execute(text("update data_encryption_key set wrapped_key = :b"), {"b": b"\0\0\0\1" + b"x" * 60})
    result = comply()
    assert (result.outcome, result.counts["keys_locked"]) == (Outcome.PARTIAL, 1)
    assert "data key 1 cannot be unwrapped" in (result.error or "")


def test_the_check_is_the_same_twice_and_reads_no_credential(
    comply: Callable[[], Result], run_task: RunTask, write: Write, clock: ManualClock
) -> None:
    run_task("rotate_keys")
    write("a1", "ga4", b"the token of a1")
    first, second = comply(), comply()
    assert first.counts == second.counts
    assert first.counts["credentials"] == 1
