"""Leases under contention: starts never wait for work, take-overs and cancellations do, holds and deletes exclude."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared import holds, ledger, plans
from shared.call import by_hand, of_slot
from shared.clock import SystemClock
from shared.database import Database
from shared.errors import LeaseLost, Outcome, Refused
from shared.manifest import Cron, Every
from shared.settings import Settings
from tests.conftest import NOW, ManualClock
from tests.shared.conftest import SLOT, MakeTask, Rows

COUNT_ONE = 'with ctx.begin():\n    ctx.count("done")\nreturn ctx.counts'
NEXT_SLOT = of_slot(Cron("0 6 * * *"), NOW + timedelta(days=1))


def open_attempt(db: Database, run_key: str, *, age_s: int = 0, trigger: str = "cron") -> tuple[uuid.UUID, int]:
    """Another process's attempt, whose last heartbeat was `age_s` ago; its run and its fence."""
    run_id = uuid.uuid4()
    with db.transaction() as connection:
        connection.execute(
            text("""
            insert into groundskeeper.task_run (run_id, task, run_key, trigger, actor, code_version, started_at)
            values (:id, 'sample_task', :key, :trigger, 'scheduler', 'x', :now)"""),
            {"id": run_id, "key": run_key, "trigger": trigger, "now": NOW - timedelta(minutes=1)},
        )
        fence = connection.execute(
            text("""
            insert into groundskeeper.task_attempt (run_id, attempt, scope, lease_s, started_at, heartbeat_at)
            values (:id, 1, 'sample_task', 60, clock_timestamp(), clock_timestamp() - make_interval(secs => :age))
            returning fence"""),
            {"id": run_id, "age": age_s},
        ).scalar_one()
    return run_id, int(fence)


@contextmanager
def at_work(db: Database, fence: int) -> Iterator[Connection]:
    """A transaction of that attempt under way."""
    with db.transaction() as connection:
        ledger.check_fence(connection, fence)
        yield connection


def test_a_start_does_not_wait_for_a_transaction_under_way(make: MakeTask, db: Database) -> None:
    _, fence = open_attempt(db, "other")
    with at_work(db, fence):
        began = time.monotonic()
        result = make(COUNT_ONE).execute(SLOT)
    assert result.outcome is Outcome.SKIPPED, result.error
    assert time.monotonic() - began < 1.5  # the lock timeout is two seconds


def test_a_run_that_beats_again_before_it_is_taken_over_keeps_its_lease(db: Database) -> None:
    run_id, fence = open_attempt(db, "other", age_s=61)
    key = ledger.Key("sample_task", "mine", 0, "cron", NOW, "scheduler", None, "sample_task", "x")
    opened: list[Any] = []

    def start() -> None:
        with db.transaction(lock_timeout_ms=10_000) as connection:
            opened.append(ledger.open_run(connection, key, now=NOW))

    with at_work(db, fence):
        thread = threading.Thread(target=start)
        thread.start()
        time.sleep(0.3)
        with db.transaction() as connection:
            assert ledger.heartbeat(connection, fence, done=None, total=None)
    thread.join()
    assert opened == [ledger.Held(opened[0].run_id, run_id, True)]


def test_ten_starts_at_once_give_one_lease(db: Database, settings: Settings) -> None:
    outcomes: list[object] = []
    gate = threading.Barrier(10)

    def start(number: int) -> None:
        key = ledger.Key("sample_task", f"k{number}", 0, "cron", NOW, "scheduler", None, "sample_task", "x")
        database = Database(settings, "test", pool_size=1)
        gate.wait()
        with database.transaction(lock_timeout_ms=10_000) as connection:
            outcomes.append(type(ledger.open_run(connection, key, now=NOW)))
        database.close()

    threads = [threading.Thread(target=start, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (outcomes.count(ledger.Opened), outcomes.count(ledger.Held)) == (1, 9)


def test_now_is_the_runs_and_the_same_for_its_next_attempt(make: MakeTask, clock: ManualClock, rows: Rows) -> None:
    body = "with ctx.begin():\n    ctx.count(ctx.now.isoformat())\nraise Retry('later')"
    make(body).execute(SLOT)
    clock.advance(timedelta(hours=3))
    result = make(body).execute(SLOT)
    assert result.counts == {NOW.isoformat(): 2}


# --- cancelling


def test_a_cancelled_run_writes_nothing_once_the_cancellation_is_committed(
    make: MakeTask, db: Database, rows: Rows
) -> None:
    run_id, fence = open_attempt(db, "other")
    with db.transaction() as connection:
        connection.execute(text("create table witness (note text)"))
    ended: list[bool] = []

    def cancel() -> None:
        with db.transaction(lock_timeout_ms=10_000) as connection:
            ended.append(ledger.cancel(connection, run_id, by="ann", now=NOW))

    with at_work(db, fence) as working:
        thread = threading.Thread(target=cancel)
        thread.start()
        time.sleep(0.3)
        assert ended == []  # it waits for the transaction under way
        working.execute(text("insert into witness values ('committed before')"))
    thread.join()
    assert ended == [True]
    assert len(rows("select * from witness")) == 1
    with pytest.raises(LeaseLost), at_work(db, fence):
        pass
    assert make(COUNT_ONE).execute(SLOT).outcome is Outcome.OK


def test_a_cancellation_that_waits_too_long_says_so_and_changes_nothing(db: Database, rows: Rows) -> None:
    run_id, fence = open_attempt(db, "other")
    with (
        at_work(db, fence),
        pytest.raises(DBAPIError, match="lock timeout"),
        db.transaction(lock_timeout_ms=100) as connection,
    ):
        ledger.cancel(connection, run_id, by="ann", now=NOW)
    assert rows("select outcome from groundskeeper.task_run")[0].outcome is None


def test_a_cancelled_request_does_not_come_again(make: MakeTask, db: Database, rows: Rows) -> None:
    with db.transaction() as connection:
        request = plans.request_run(connection, task="sample_task", actor="ann", why="a test", now=NOW)
    run_id, _ = open_attempt(db, str(request), trigger="hand")
    with db.transaction() as connection:
        assert ledger.cancel(connection, run_id, by="ann", now=NOW)
        assert not ledger.cancel(connection, run_id, by="ann", now=NOW)
    result = make(COUNT_ONE).execute(by_hand(request))
    assert (result.outcome, "was cancelled" in (result.error or "")) == (Outcome.REFUSED, True)
    (entry,) = rows("select actor, action, subject from groundskeeper.operator_audit")
    assert tuple(entry) == ("ann", "cancel", str(run_id))
    assert "ann" not in rows("select error from groundskeeper.task_run")[0].error


# --- holds


def test_a_hold_waits_for_the_batch_under_way_and_the_next_one_sees_it(db: Database) -> None:
    placed, seen = [], []

    def place() -> None:
        with db.transaction(lock_timeout_ms=10_000) as connection:
            placed.append(holds.add(connection, reason="case 7", by="ann", now=NOW, table="endpoints"))

    with db.transaction() as connection:
        holds.keep_out(connection)
        seen.append(len(holds.in_force(connection, NOW)))
        thread = threading.Thread(target=place)
        thread.start()
        time.sleep(0.3)
        assert placed == []
        seen.append(len(holds.in_force(connection, NOW)))
    thread.join()
    with db.transaction() as connection:
        holds.keep_out(connection)
        seen.append(len(holds.in_force(connection, NOW)))
    assert seen == [0, 0, 1]


def test_a_destructive_runs_transactions_keep_holds_out(make: MakeTask, db: Database, rows: Rows) -> None:
    result = make(
        """
ctx.authorize(Plan((Item("x", 1),), predicates={}))
with ctx.begin() as connection:
    ctx.count("locks", connection.execute(text(
        "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and granted"
        " and pid = pg_backend_pid()")).scalar_one())
return ctx.counts
""",
        extra="destructive: true\ncaps: {rows: 5}",
    ).execute(SLOT)
    assert result.counts == {"locks": 1}, result.error


# --- minutes


TICKS = (
    'while ctx.tick():\n    with ctx.begin():\n        ctx.count(f"tick.{ctx.clock.now().second}")\nreturn ctx.counts'
)


def test_a_minute_waits_for_the_last_tick_of_the_minute_before(make: MakeTask, db: Database, rows: Rows) -> None:
    run_id, _ = open_attempt(db, "the minute before")

    class Clock(ManualClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.moment >= NOW + timedelta(seconds=20):  # the last tick before took until now
                with db.transaction() as connection:
                    connection.execute(
                        text("update groundskeeper.task_attempt set ended_at = clock_timestamp() where run_id = :id"),
                        {"id": run_id},
                    )

    clock = Clock(NOW + timedelta(seconds=1))
    result = make(TICKS, trigger="{every_s: 15}", at=clock).execute(of_slot(Every(15), NOW))
    assert result.counts == {"tick.20": 1, "tick.30": 1, "tick.45": 1}, result.error
    assert len(rows("select 1 from groundskeeper.task_run")) == 2


def test_a_minute_that_never_gets_its_turn_is_one_skipped_row(make: MakeTask, db: Database, rows: Rows) -> None:
    open_attempt(db, "the minute before")
    clock = ManualClock(NOW + timedelta(seconds=1))
    result = make(TICKS, trigger="{every_s: 15}", at=clock).execute(of_slot(Every(15), NOW))
    assert result.outcome is Outcome.SKIPPED
    assert NOW + timedelta(seconds=60) <= clock.moment < NOW + timedelta(seconds=62)
    assert len(rows("select 1 from groundskeeper.task_run where outcome = 'skipped'")) == 1


def test_a_minute_delivered_twice_does_not_wait_for_itself(make: MakeTask, db: Database) -> None:
    slot = of_slot(Every(15), NOW)
    open_attempt(db, slot.run_key, trigger="every")
    clock = ManualClock(NOW + timedelta(seconds=1))
    assert make(TICKS, trigger="{every_s: 15}", at=clock).execute(slot).outcome is Outcome.SKIPPED
    assert clock.moment == NOW + timedelta(seconds=1)


def test_a_start_a_moment_before_its_slot_ticks_at_the_slot(make: MakeTask) -> None:
    clock = ManualClock(NOW - timedelta(milliseconds=300))
    result = make(TICKS, trigger="{every_s: 30}", at=clock).execute(of_slot(Every(30), NOW))
    assert result.counts == {"tick.0": 1, "tick.30": 1}


# --- a job's index that is tried again


def test_a_retried_job_waits_until_its_dead_trys_lease_expires(
    make: MakeTask, settings: Settings, db: Database
) -> None:
    open_attempt(db, SLOT.run_key, age_s=59)  # killed, a second before its lease runs out
    again = make(COUNT_ONE, using=replace(settings, tried_before=True), at=SystemClock()).execute(SLOT)
    assert again.outcome is Outcome.OK, again.error


# --- requests


@pytest.mark.parametrize("why", ["", "  "])
def test_the_glass_is_not_broken_without_a_reason(db: Database, why: str) -> None:
    with pytest.raises(Refused, match="reason"), db.transaction() as connection:
        plans.request_run(connection, task="sample_task", actor="ann", why=why, now=NOW, break_glass=True)


def test_a_request_waits_for_each_index_of_a_job_until_that_index_has_run_it(db: Database) -> None:
    with db.transaction() as connection:
        request = plans.request_run(connection, task="sample_task", actor="ann", why="a test", now=NOW)
    run_id, _ = open_attempt(db, str(request), trigger="hand")

    def waiting(shard: int, later: timedelta = timedelta()) -> uuid.UUID | None:
        with db.transaction() as connection:
            return plans.waiting(connection, "sample_task", shard=shard, now=NOW + later)

    assert [waiting(0), waiting(1)] == [request, request]  # index 0 was killed on the way, or is at work
    with db.transaction() as connection:
        connection.execute(text("update groundskeeper.task_run set outcome = 'ok' where run_id = :id"), {"id": run_id})
    assert [waiting(0), waiting(1)] == [None, request]
    assert waiting(1, plans.REQUEST_LIFETIME) is None


@pytest.mark.parametrize(
    ("operators", "by", "words"),
    [(("ann", "bob"), "eve", "not on the list"), (("ann", "ann"), "ann", None), ((), "eve", None)],
)
def test_only_a_listed_operator_decides_where_there_is_a_list(
    db: Database, operators: tuple[str, ...], by: str, words: str | None
) -> None:
    with db.transaction() as connection:
        approval = plans.ask(connection, task="t", plan_hash="h", by="ann", reason="above", now=NOW)
        if words is not None:
            with pytest.raises(Refused, match=words):
                plans.decide(connection, approval, approve=True, by=by, why="seen", now=NOW, operators=operators)
            return
        decided = plans.decide(connection, approval, approve=True, by=by, why="seen", now=NOW, operators=operators)
        assert decided.decision == "approved"


def test_two_runs_of_one_approved_plan_spend_it_once(db: Database) -> None:
    with db.transaction() as connection:
        approval = plans.ask(connection, task="t", plan_hash="h", by="ann", reason="above", now=NOW)
        plans.decide(connection, approval, approve=True, by="bob", why="seen", now=NOW, operators=("ann", "bob"))
    spent: list[bool] = []

    def spend() -> None:
        with db.transaction(lock_timeout_ms=10_000) as connection:
            spent.append(plans.use(connection, plan_hash="h", run_id=uuid.uuid4(), now=NOW))
            time.sleep(0.2)

    threads = [threading.Thread(target=spend) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(spent) == [False, True]
