"""The wrapper's promises: one run a key, a clear outcome for whatever happens, and nothing written by a zombie."""

import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared import context, pauses, plans
from shared.call import Call, Message, by_hand, of_slot
from shared.clock import SystemClock
from shared.database import Database
from shared.errors import OUTCOMES, Outcome
from shared.manifest import Cron, Every
from tests.conftest import NOW, ManualClock, settings_for
from tests.shared.conftest import MakeTask

Rows = Callable[..., list[Any]]

SLOT = of_slot(Cron("0 6 * * *"), datetime(2026, 6, 15, 6, tzinfo=UTC))
COUNT_ONE = """
with ctx.begin() as connection:
    ctx.count("done")
return ctx.counts
"""


def message(identity: str) -> Call:
    return Call(trigger="topic", run_key=identity, actor="pubsub", message=Message(identity, b"{}", {}, "", NOW, None))


def asked(db: Database, clock: ManualClock, **asking: Any) -> Call:
    with db.transaction() as connection:
        return by_hand(
            plans.request_run(connection, task="sample_task", actor="tester", why="a test", now=clock.now(), **asking)
        )


# --- run keys


def test_a_run_leaves_one_row_with_its_outcome_counts_and_times(make: MakeTask, rows: Rows) -> None:
    result = make(COUNT_ONE).execute(SLOT)
    assert (result.outcome, result.counts) == (Outcome.OK, {"done": 1})
    (run,) = rows("select * from groundskeeper.task_run")
    assert (run.task, run.run_key, run.trigger, run.outcome) == ("sample_task", "2026-06-15T06:00:00Z", "cron", "ok")
    assert run.counts == {"done": 1}
    assert run.scheduled_for == datetime(2026, 6, 15, 6, tzinfo=UTC)
    assert run.started_at == run.finished_at == NOW
    (attempt,) = rows("select * from groundskeeper.task_attempt")
    assert attempt.attempt == 1
    assert attempt.ended_at is not None


def test_the_same_slot_delivered_twice_is_done_once(make: MakeTask, rows: Rows) -> None:
    runner = make(COUNT_ONE)
    first, second = runner.execute(SLOT), runner.execute(SLOT)
    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.SKIPPED)
    assert second.run_id == first.run_id
    assert len(rows("select 1 from groundskeeper.task_attempt")) == 1


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ('raise Retry("the world was not ready")', Outcome.RETRY),
        ('raise Partial(["b"], {"done": 1})', Outcome.PARTIAL),
        ('raise Unavailable("no scanner is installed")', Outcome.UNAVAILABLE),
        ("raise KeyError('secret')", Outcome.FAILED),
    ],
)
def test_a_key_that_did_not_end_well_is_tried_again(make: MakeTask, rows: Rows, body: str, outcome: Outcome) -> None:
    assert make(body).execute(SLOT).outcome is outcome
    assert make(COUNT_ONE).execute(SLOT).outcome is Outcome.OK
    assert [r.attempt for r in rows("select attempt from groundskeeper.task_attempt order by 1")] == [1, 2]
    assert [r.outcome for r in rows("select outcome from groundskeeper.task_run")] == ["ok"]


def test_a_refused_key_is_not_tried_again(make: MakeTask) -> None:
    assert make('raise Refused("above the cap")').execute(SLOT).outcome is Outcome.REFUSED
    assert make(COUNT_ONE).execute(SLOT).outcome is Outcome.SKIPPED


def test_partial_keeps_what_was_achieved_and_names_what_failed(make: MakeTask, rows: Rows) -> None:
    make('raise Partial(["b", "c"], {"done": 7})').execute(SLOT)
    (run,) = rows("select outcome, counts, error from groundskeeper.task_run")
    assert (run.outcome, run.counts, run.error) == ("partial", {"done": 7}, "2 failed: b; c")


# --- defects


def test_without_googles_credentials_a_run_is_unavailable_and_no_defect(make: MakeTask) -> None:
    body = "from google.auth.exceptions import DefaultCredentialsError\nraise DefaultCredentialsError('nobody')"
    result = make(body).execute(SLOT)
    assert result.outcome is Outcome.UNAVAILABLE
    assert "gcloud auth application-default login" in (result.error or "")


def test_a_defects_message_reaches_no_ledger_row_and_no_answer(make: MakeTask, rows: Rows) -> None:
    result = make("raise ValueError('jo@example.com')").execute(SLOT)
    (run,) = rows("select error, error_class from groundskeeper.task_run")
    assert run.error_class == "ValueError"
    for said in (run.error, result.error, str(result.document())):
        assert "example" not in said
        assert "main.py" in run.error


def test_a_database_errors_row_values_reach_no_ledger_row(make: MakeTask, rows: Rows) -> None:
    make("""
with ctx.begin() as connection:
    connection.execute(text("select cast('jo@example.com' as integer)"))
""").execute(SLOT)
    (run,) = rows("select outcome, error from groundskeeper.task_run")
    assert run.outcome == "failed"
    assert "22P02" in run.error
    assert "example" not in run.error


# --- counts stand or fall with the work


def test_counts_of_a_transaction_that_was_rolled_back_are_not_kept(make: MakeTask, rows: Rows) -> None:
    make("""
with ctx.begin() as connection:
    ctx.count("done")
with ctx.begin() as connection:
    ctx.count("done")
    connection.execute(text("select 1/0"))
""").execute(SLOT)
    assert rows("select counts from groundskeeper.task_run")[0].counts == {"done": 1}


def test_the_next_attempt_of_a_run_goes_on_counting(make: MakeTask, rows: Rows) -> None:
    make('with ctx.begin():\n    ctx.count("done")\nraise Retry("later")').execute(SLOT)
    assert make(COUNT_ONE).execute(SLOT).counts == {"done": 2}


# --- leases


def test_two_at_once_one_works_the_other_is_skipped(make: MakeTask, rows: Rows) -> None:
    runner = make(
        """
with ctx.begin() as connection:
    connection.execute(text("select pg_sleep(0.5)"))
    ctx.count("done")
return ctx.counts
""",
        at=SystemClock(),
    )
    results: list[Outcome] = []
    other = of_slot(Cron("0 6 * * *"), datetime(2026, 6, 16, 6, tzinfo=UTC))
    threads = [threading.Thread(target=lambda c=c: results.append(runner.execute(c).outcome)) for c in (SLOT, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [Outcome.OK, Outcome.SKIPPED]
    skipped = rows("select error from groundskeeper.task_run where outcome = 'skipped'")
    assert len(skipped) == 1
    assert "was still at work" in skipped[0].error


def _hold_lease(db: Database, scope: str, *, stale: bool = False) -> uuid.UUID:
    """Another process's live (or silent) attempt on `scope`."""
    run_id = uuid.uuid4()
    with db.transaction() as connection:
        connection.execute(
            text("""
            insert into groundskeeper.task_run (run_id, task, run_key, trigger, actor, code_version, started_at)
            values (:id, 'sample_task', :key, 'cron', 'scheduler', 'x', :now)"""),
            {"id": run_id, "key": f"other-{run_id}", "now": NOW},
        )
        connection.execute(
            text("""
            insert into groundskeeper.task_attempt (run_id, attempt, scope, lease_s, started_at, heartbeat_at)
            values (:id, 1, :scope, 60, clock_timestamp(), clock_timestamp() - make_interval(secs => :age))"""),
            {"id": run_id, "scope": scope, "age": 61 if stale else 0},
        )
    return run_id


def test_a_silent_runs_lease_is_taken_over_and_its_run_is_failed(make: MakeTask, db: Database, rows: Rows) -> None:
    lost = _hold_lease(db, "sample_task", stale=True)
    result = make(COUNT_ONE).execute(SLOT)
    assert result.outcome is Outcome.OK
    run = rows("select outcome, error from groundskeeper.task_run where run_id = :id", id=lost)[0]
    assert run.outcome == "failed"
    assert str(result.run_id) in run.error
    fences = rows("select run_id, fence from groundskeeper.task_attempt order by fence")
    assert [f.run_id for f in fences] == [lost, result.run_id]


def test_a_live_lease_is_not_taken_over(make: MakeTask, db: Database) -> None:
    _hold_lease(db, "sample_task")
    assert make(COUNT_ONE).execute(SLOT).outcome is Outcome.SKIPPED


def test_a_zombie_waking_after_its_lease_was_taken_writes_nothing(make: MakeTask, db: Database, rows: Rows) -> None:
    db_url = db.url.render_as_string(hide_password=False)
    with db.transaction() as connection:
        connection.execute(text("create table witness (note text)"))
    runner = make(f"""
from sqlalchemy import create_engine
other = create_engine({db_url!r})
with other.begin() as connection:  # someone takes the lease over while this run is frozen
    connection.execute(text("update groundskeeper.task_attempt set ended_at = clock_timestamp()"))
other.dispose()
with ctx.begin() as connection:
    connection.execute(text("insert into witness values ('zombie')"))
""")
    result = runner.execute(SLOT)
    assert result.outcome is Outcome.STOPPED
    assert "taken over" in (result.error or "")
    assert rows("select * from witness") == []


def test_a_take_over_waits_for_a_transaction_under_way(make: MakeTask, db: Database, rows: Rows) -> None:
    _hold_lease(db, "sample_task", stale=True)
    with db.engine.connect() as working, working.begin():
        fence = working.execute(text("select fence from groundskeeper.task_attempt for key share")).scalar_one()
        blocked = make(COUNT_ONE).execute(SLOT)
        assert blocked.outcome is Outcome.RETRY
        beat = rows(
            "update groundskeeper.task_attempt set heartbeat_at = heartbeat_at where fence = :f returning 1", f=fence
        )
        assert len(beat) == 1  # a heartbeat does not wait for its own run's transaction
    assert make(COUNT_ONE).execute(SLOT).outcome is Outcome.OK


# --- messages and requests


def test_messages_are_handled_side_by_side_but_each_once(make: MakeTask, db: Database, rows: Rows) -> None:
    runner = make(COUNT_ONE, trigger="{topic: app-events}")
    _hold_lease(db, "sample_task/m1")
    assert runner.execute(message("m1")).outcome is Outcome.BUSY
    assert runner.execute(message("m2")).outcome is Outcome.OK
    assert runner.execute(message("m2")).outcome is Outcome.SKIPPED
    assert rows("select 1 from groundskeeper.task_run where run_key = 'm1'") == []


def test_a_declared_lock_makes_messages_wait_for_each_other(make: MakeTask, db: Database) -> None:
    runner = make(COUNT_ONE, trigger="{topic: app-events}", extra="lock: events")
    _hold_lease(db, "lock:events")
    result = runner.execute(message("m2"))
    assert (result.outcome, OUTCOMES[result.outcome].http) == (Outcome.BUSY, 503)


# --- requests by hand


def test_a_request_brings_who_why_and_parameters(make: MakeTask, db: Database, clock: ManualClock, rows: Rows) -> None:
    runner = make('with ctx.begin():\n    ctx.count("limit", params.limit)\nreturn ctx.counts')
    result = runner.execute(asked(db, clock, params={"limit": 3}))
    assert result.counts == {"limit": 3}
    (run,) = rows("select actor, why, trigger from groundskeeper.task_run")
    assert tuple(run) == ("tester", "a test", "hand")


@pytest.mark.parametrize(("params", "words"), [({"limit": "3"}, "expected int"), ({"speed": 3}, "no parameter speed")])
def test_a_request_with_wrong_parameters_is_refused(
    make: MakeTask, db: Database, clock: ManualClock, params: dict[str, Any], words: str
) -> None:
    result = make(COUNT_ONE).execute(asked(db, clock, params=params))
    assert result.outcome is Outcome.REFUSED
    assert words in (result.error or "")


def test_a_request_nobody_made_is_refused(make: MakeTask, rows: Rows) -> None:
    assert make(COUNT_ONE).execute(by_hand(uuid.uuid4())).outcome is Outcome.REFUSED
    assert rows("select 1 from groundskeeper.task_run") == []


# --- stopping


def test_a_pause_stops_running_work_at_its_next_transaction(make: MakeTask, db: Database, rows: Rows) -> None:
    runner = make("""
from datetime import timedelta
from shared import pauses
with ctx.begin() as connection:
    ctx.count("done")
    pauses.pause(connection, "sample_task", reason="incident 7", by="ann", now=ctx.now, until=None)
with ctx.begin():
    ctx.count("done")
""")
    result = runner.execute(SLOT)
    assert (result.outcome, result.counts) == (Outcome.STOPPED, {"done": 1})
    assert "incident 7" in (result.error or "")
    again = runner.execute(of_slot(Cron("0 6 * * *"), datetime(2026, 6, 16, 6, tzinfo=UTC)))
    assert again.outcome is Outcome.STOPPED
    assert runner.execute(message("m1")).outcome is Outcome.BUSY  # a message must come again, not be lost


def test_a_pause_ends_by_itself_at_its_moment(make: MakeTask, db: Database, clock: ManualClock) -> None:
    with db.transaction() as connection:
        pauses.pause(
            connection, pauses.ALL, reason="deploy", by="ann", now=clock.now(), until=clock.now() + timedelta(hours=1)
        )
    runner = make(COUNT_ONE)
    assert runner.execute(SLOT).outcome is Outcome.STOPPED
    clock.advance(timedelta(hours=1))
    assert runner.execute(SLOT).outcome is Outcome.OK


def test_the_environments_pause_works_with_the_database_down(make: MakeTask) -> None:
    down = settings_for("postgresql://nobody@127.0.0.1:1/none", KEEPER_PAUSED="the database is on fire")
    result = make(COUNT_ONE, using=down).execute(SLOT)
    assert (result.outcome, result.error) == (Outcome.STOPPED, "paused: the database is on fire")


def test_the_deadline_stops_a_run_and_the_next_goes_on(make: MakeTask, rows: Rows) -> None:
    runner = make(
        """
while True:
    with ctx.begin():
        ctx.count("done")
    ctx.clock.sleep(10)
""",
        timeout_s=100,
    )
    assert runner.execute(SLOT).outcome is Outcome.STOPPED
    assert rows("select counts from groundskeeper.task_run")[0].counts == {"done": 9}  # 90 s of 100, a tenth kept


def test_sigterm_stops_a_run_at_its_next_transaction(make: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = threading.Event()
    stopping.set()
    monkeypatch.setattr(context, "process_stopping", stopping)
    result = make(COUNT_ONE).execute(SLOT)
    assert (result.outcome, result.error) == (Outcome.STOPPED, "the process was asked to stop")


# --- ticks


def test_an_every_run_ticks_through_its_minute_and_no_further(make: MakeTask) -> None:
    clock = ManualClock(NOW + timedelta(seconds=2))  # Scheduler is never quite on time
    runner = make(
        """
while ctx.tick():
    with ctx.begin():
        ctx.count(f"second.{ctx.clock.now().second}")
return ctx.counts
""",
        trigger="{every_s: 15}",
        at=clock,
    )
    result = runner.execute(of_slot(Every(15), NOW))
    assert result.counts == {"second.2": 1, "second.15": 1, "second.30": 1, "second.45": 1}


def test_a_minute_long_past_and_a_hand_tick_once(make: MakeTask, db: Database, clock: ManualClock) -> None:
    runner = make(
        'while ctx.tick():\n    with ctx.begin():\n        ctx.count("ticks")\nreturn ctx.counts',
        trigger="{every_s: 15}",
    )
    assert runner.execute(of_slot(Every(15), NOW - timedelta(minutes=3))).counts == {"ticks": 1}
    assert runner.execute(asked(db, clock)).counts == {"ticks": 1}


# --- databases that cannot be used


def test_an_unreachable_database_means_try_again(make: MakeTask) -> None:
    result = make(COUNT_ONE, using=settings_for("postgresql://nobody@127.0.0.1:1/none")).execute(SLOT)
    assert result.outcome is Outcome.RETRY
    assert "does not answer" in (result.error or "")
    assert result.run_id is None


def test_a_wrong_password_is_refused_and_not_shown(make: MakeTask, settings: Any, db: Database) -> None:
    wrong = db.url.set(password="hunter2hunter2").render_as_string(hide_password=False)
    result = make(COUNT_ONE, using=replace(settings, database_url=wrong)).execute(SLOT)
    assert result.outcome is Outcome.REFUSED
    assert "password" in (result.error or "")
    assert "hunter2" not in str(result)


def test_a_read_only_database_means_try_again(make: MakeTask, db: Database) -> None:
    with db.autocommit() as connection:
        connection.execute(text(f'alter database "{db.url.database}" set default_transaction_read_only = on'))
    result = make(COUNT_ONE).execute(SLOT)
    assert result.outcome is Outcome.RETRY
    assert "read-only" in (result.error or "")


def test_a_database_of_another_schema_version_is_refused(make: MakeTask, rows: Rows) -> None:
    rows("update groundskeeper.schema_version set version_num = '9999' returning 1")
    result = make(COUNT_ONE).execute(SLOT)
    assert result.outcome is Outcome.REFUSED
    assert "keeper migrate" in (result.error or "")


def test_a_database_without_our_schema_is_refused(make: MakeTask, server: Any) -> None:
    url = server.create_database(f"bare_{uuid.uuid4().hex[:8]}")
    result = make(COUNT_ONE, using=settings_for(url)).execute(SLOT)
    assert result.outcome is Outcome.REFUSED
    assert "keeper migrate" in (result.error or "")


@pytest.mark.parametrize("change", ["project = 'other-project'", "livemode = true"])
def test_another_environments_database_is_refused(make: MakeTask, rows: Rows, change: str) -> None:
    rows(f"update groundskeeper.environment set {change} returning 1")
    result = make(COUNT_ONE).execute(SLOT)
    assert result.outcome is Outcome.REFUSED
    assert "stamped" in (result.error or "")
    assert rows("select 1 from groundskeeper.task_run") == []


def test_a_connection_lost_in_the_middle_means_try_again(make: MakeTask, rows: Rows) -> None:
    result = make("""
with ctx.begin() as connection:
    connection.execute(text("select pg_terminate_backend(pg_backend_pid())"))
""").execute(SLOT)
    assert result.outcome is Outcome.RETRY
    assert rows("select outcome from groundskeeper.task_run")[0].outcome == "retry"
