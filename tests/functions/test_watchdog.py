"""watchdog: says what is wrong once, says once that it is over, also of Cloud Scheduler and of a dead database."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud.scheduler_v1 import CloudSchedulerClient
from google.cloud.scheduler_v1.services.cloud_scheduler.transports import CloudSchedulerGrpcTransport
from google.cloud.scheduler_v1.types import Job
from google.rpc.status_pb2 import Status
from sqlalchemy import text

from shared import ledger, pauses
from shared.call import of_slot
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.ports import free_ports
from shared.laptop.scheduler import jobs_of
from shared.laptop.scheduler_api import SchedulerApi
from shared.manifest import FUNCTIONS, Cron, Every, load_all
from shared.schedule import task_last
from shared.settings import Settings
from shared.task import load
from shared.watch import runs
from shared.watch.schedules import declared
from tests.conftest import NOW, ManualClock, RunTask, as_role

Rows = Callable[..., list[Any]]
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


class Webhook:
    """What an alert's receiver got."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hook.status < 300:
                    hook.got.append(json.loads(body))
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", next(free_ports())), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def of(self, key: str) -> list[str]:
        """The states told of what is about `key`, in order."""
        return [one["state"] for one in self.got if key in one["summary"]]

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def webhook(tmp_path: Path) -> Iterator[Webhook]:
    hook = Webhook()
    secret = tmp_path / "secrets" / "alert-webhook-url"
    secret.mkdir(parents=True)
    (secret / "1").write_text(hook.url + "\n")
    yield hook
    hook.stop()


@pytest.fixture
def scheduler(clock: ManualClock) -> Iterator[SchedulerApi]:
    """Cloud Scheduler with every job as declared, each just called."""
    api = SchedulerApi(load_all(), clock)
    with api.changing() as jobs:
        for job in jobs.values():
            job.last_attempt_time = clock.now()
    yield api
    api.stop()


@pytest.fixture(autouse=True)
def _all_well(db: Database, clock: ManualClock) -> None:
    """Every scheduled task ended well at its last slot; a backup is verified and a key is young."""
    for task in load_all().values():
        if task.scheduled and task.name != "watchdog":
            put(db, task.name, task_last(task, NOW) or NOW)
    with db.transaction() as connection:
        connection.execute(
            text("insert into groundskeeper.verified_backup values ('m', :at, :at, 60)"), {"at": NOW - DAY / 2}
        )


_PUT = text("""
    insert into groundskeeper.task_run
           (run_id, task, run_key, trigger, outcome, counts, error, actor, code_version, started_at, finished_at)
    values (gen_random_uuid(), :task, cast(:at as text), 'cron', :outcome, '{}', :error, 'scheduler', 'v', :at,
            :finished)""")


def put(db: Database, task: str, at: Any, outcome: str = "ok", *, seconds: float = 1, error: str | None = None) -> None:
    """A run in the ledger."""
    finished = at + timedelta(seconds=seconds)
    with db.transaction() as connection:
        connection.execute(_PUT, {"task": task, "at": at, "outcome": outcome, "error": error, "finished": finished})


@pytest.fixture
def watch(run_task: RunTask, settings: Settings, clock: ManualClock) -> Callable[..., dict[str, int]]:
    """A run of the watchdog at its next slot; its counts."""

    def run(scheduler: SchedulerApi | None = None, **more: str) -> dict[str, int]:
        clock.advance(MINUTE)
        if scheduler is not None:
            more["CLOUD_SCHEDULER_EMULATOR_HOST"] = scheduler.host
        using = replace(settings, environ={**settings.environ, **more})
        result = run_task("watchdog", of_slot(Cron("*/5 * * * *"), clock.now()), using=using)
        assert result.outcome == Outcome.OK, result.error
        return dict(result.counts)

    return run


def open_keys(rows: Rows) -> set[str]:
    return {r.key for r in rows("select key from groundskeeper.watch_incident where closed_at is null")}


def test_where_all_is_well_nothing_is_said(
    watch: Callable[..., dict[str, int]], rows: Rows, webhook: Webhook, scheduler: SchedulerApi
) -> None:
    counts = watch(scheduler)
    assert open_keys(rows) == set()
    assert (counts["told"], counts["open"]) == (0, 0)
    assert counts["jobs"] == len(list(jobs_of(load_all())))
    assert webhook.got == []


def test_a_failing_task_is_told_once_and_once_when_it_is_over(
    watch: Callable[..., dict[str, int]], db: Database, webhook: Webhook, rows: Rows
) -> None:
    put(db, "db_cleanup", NOW - MINUTE, "failed", error="a defect in line 7")
    assert watch()["told"] == 1
    assert watch()["told"] == 0
    put(db, "db_cleanup", NOW + MINUTE, "ok")
    assert watch()["told"] == 1
    assert watch()["told"] == 0
    assert webhook.of("db_cleanup") == ["open", "over"]
    assert "a defect in line 7" in webhook.got[0]["summary"]
    assert webhook.got[0]["runbook"] == "docs/tasks/db_cleanup.md"
    assert open_keys(rows) == set()


def test_the_same_trouble_again_is_a_new_incident(
    watch: Callable[..., dict[str, int]], db: Database, webhook: Webhook
) -> None:
    for minute, outcome in enumerate(("failed", "ok", "partial", "ok")):
        put(db, "db_cleanup", NOW + minute * MINUTE, outcome)
        watch()
    assert webhook.of("db_cleanup") == ["open", "over", "open", "over"]


@pytest.mark.parametrize("outcome", ["failed", "partial", "refused", "unavailable"])
def test_every_bad_ending_is_told(watch: Callable[..., dict[str, int]], db: Database, rows: Rows, outcome: str) -> None:
    put(db, "db_cleanup", NOW - MINUTE, outcome)
    watch()
    assert open_keys(rows) == {"failing/db_cleanup"}


@pytest.mark.parametrize("outcome", ["skipped", "stopped", "busy", "waiting"])
def test_what_is_no_ending_neither_opens_nor_closes(
    watch: Callable[..., dict[str, int]], db: Database, rows: Rows, outcome: str
) -> None:
    put(db, "db_cleanup", NOW - MINUTE, outcome)
    watch()
    assert open_keys(rows) == set()
    put(db, "db_cleanup", NOW + MINUTE, "failed")
    watch()
    put(db, "db_cleanup", NOW + 2 * MINUTE, outcome)
    watch()
    assert open_keys(rows) == {"failing/db_cleanup"}


def test_a_task_is_late_only_after_its_limit(
    watch: Callable[..., dict[str, int]], db: Database, rows: Rows, clock: ManualClock
) -> None:
    limit = timedelta(seconds=load_all()["outbox_relay"].must_succeed_within_s or 0)
    with db.transaction() as connection:
        connection.execute(text("update groundskeeper.environment set stamped_at = :at"), {"at": NOW - 9 * DAY})
    clock.moment = NOW + limit - 2 * MINUTE
    watch()
    assert "late/outbox_relay" not in open_keys(rows)
    clock.moment = NOW + limit
    watch()
    assert "late/outbox_relay" in open_keys(rows)


def test_a_paused_task_is_not_late(
    watch: Callable[..., dict[str, int]], db: Database, rows: Rows, clock: ManualClock
) -> None:
    with db.transaction() as connection:
        connection.execute(text("update groundskeeper.environment set stamped_at = :at"), {"at": NOW - 9 * DAY})
        pauses.pause(connection, "outbox_relay", reason="x", by="tester", now=NOW, until=None)
    clock.advance(timedelta(hours=1))
    watch()
    assert "late/outbox_relay" not in open_keys(rows)


@pytest.mark.parametrize("whose", ["outbox_relay", pauses.ALL])
@pytest.mark.parametrize("by_hand", [True, False], ids=["resumed", "until"])
def test_after_a_pause_the_limit_counts_from_its_end(db: Database, whose: str, by_hand: bool) -> None:
    tasks, over = load_all(), NOW + timedelta(hours=3)
    late_at = over + timedelta(seconds=tasks["outbox_relay"].must_succeed_within_s or 0)
    with db.transaction() as connection:
        connection.execute(text("update groundskeeper.environment set stamped_at = :at"), {"at": NOW - 9 * DAY})
        pauses.pause(connection, whose, reason="x", by="tester", now=NOW, until=None if by_hand else over)
        if by_hand:
            assert pauses.resume(connection, whose, by="tester", why=None, now=over)
            assert not pauses.resume(connection, whose, by="tester", why=None, now=over), "it is over already"
        for now, late in ((late_at, False), (late_at + timedelta(microseconds=1), True)):
            found = {one.key for one in runs.findings(connection, tasks, paused=(), now=now)}
            assert ("late/outbox_relay" in found) is late


def test_a_task_of_each_minute_that_never_ran_is_late(db: Database) -> None:
    with db.transaction() as connection:
        connection.execute(text("update groundskeeper.environment set stamped_at = :at"), {"at": NOW - 9 * DAY})
        connection.execute(text("delete from groundskeeper.task_run where task = 'outbox_relay'"))
        found = {one.key: one.summary for one in runs.findings(connection, load_all(), paused=(), now=NOW)}
    assert "outbox_relay has never run" in found["late/outbox_relay"]


def test_a_run_that_takes_far_longer_than_usual_is_slow(
    watch: Callable[..., dict[str, int]], db: Database, rows: Rows
) -> None:
    for day in range(12, 1, -1):
        put(db, "db_cleanup", NOW - day * DAY, seconds=60)
    put(db, "db_cleanup", NOW - MINUTE, seconds=150)
    watch()
    assert open_keys(rows) == set()
    put(db, "db_cleanup", NOW + MINUTE, seconds=200)
    watch()
    assert open_keys(rows) == {"slow/db_cleanup"}


def test_a_run_beyond_its_timeout_is_stuck(watch: Callable[..., dict[str, int]], db: Database, rows: Rows) -> None:
    key = ledger.Key("db_cleanup", "k", 0, "cron", NOW, "scheduler", None, "db_cleanup", "v")
    with db.transaction() as connection:
        ledger.open_run(connection, key, now=NOW - timedelta(minutes=36))
    watch()
    assert "stuck/db_cleanup" in open_keys(rows)


def test_a_feed_that_fails_is_told_when_its_last_good_copy_is_too_old(
    watch: Callable[..., dict[str, int]], db: Database, rows: Rows
) -> None:
    feeds = [("kev", 3 * DAY, 0), ("otx", 3 * DAY, 4), ("threatfox", timedelta(hours=47), 4)]
    with db.transaction() as connection:
        connection.execute(
            text("insert into groundskeeper.feed_state (feed, good_at, failures) values (:feed, :at, :failures)"),
            [{"feed": feed, "at": NOW - age, "failures": failures} for feed, age, failures in feeds],
        )
    watch()
    told = rows("select key, summary from groundskeeper.watch_incident")
    assert [tuple(t) for t in told] == [
        ("age/feeds", "the last good copy of a threat feed that fails: 3 days old, the limit is 2 days")
    ]


def test_a_backlog_and_an_old_row_are_told_unless_a_hold_keeps_them(
    watch: Callable[..., dict[str, int]], db: Database, rows: Rows
) -> None:
    with db.transaction() as connection:
        connection.execute(
            text(
                "insert into outbox_event (id, topic, payload, created_at) values (gen_random_uuid(), 't', '{}', :at)"
            ),
            {"at": NOW - timedelta(minutes=16)},
        )
        connection.execute(
            text(
                "insert into cookie_consent (visitor_id, choices, policy_version, created_at)"
                " values ('v', '{}', '1', :at)"
            ),
            {"at": NOW - 33 * DAY},
        )
    watch()
    assert open_keys(rows) == {"age/outbox_event", "age/cookie_consent"}
    with db.transaction() as connection:
        connection.execute(
            text("""
            insert into groundskeeper.legal_hold (hold_id, table_name, reason, placed_by, placed_at)
            values (gen_random_uuid(), 'cookie_consent', 'case 1', 'tester', :at)"""),
            {"at": NOW},
        )
    watch()
    assert open_keys(rows) == {"age/outbox_event"}


def _paused(jobs: dict[str, Job]) -> None:
    jobs["db-cleanup"].state = Job.State.PAUSED


def _deleted(jobs: dict[str, Job]) -> None:
    del jobs["db-cleanup"]


def _drifted(jobs: dict[str, Job]) -> None:
    jobs["db-cleanup"].schedule = "0 3 * * *"


def _other_zone(jobs: dict[str, Job]) -> None:
    jobs["db-cleanup"].time_zone = "Europe/Vienna"


def _not_fired(jobs: dict[str, Job]) -> None:
    jobs["db-cleanup"].last_attempt_time = NOW - 2 * DAY
    jobs["db-cleanup"].user_update_time = NOW - 9 * DAY


def _failing(jobs: dict[str, Job]) -> None:
    jobs["db-cleanup"].status = Status(code=13)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (_paused, "schedule/db-cleanup"),
        (_deleted, "schedule/db-cleanup"),
        (_drifted, "schedule/db-cleanup"),
        (_other_zone, "schedule/db-cleanup"),
        (_not_fired, "fired/db-cleanup"),
        (_failing, "call/db-cleanup"),
    ],
)
def test_what_is_wrong_with_a_job_in_cloud_scheduler_is_told(
    watch: Callable[..., dict[str, int]],
    scheduler: SchedulerApi,
    rows: Rows,
    change: Callable[[dict[str, Job]], None],
    key: str,
) -> None:
    with scheduler.changing() as jobs:
        change(jobs)
    watch(scheduler)
    assert open_keys(rows) == {key}


def test_a_job_that_was_paused_or_deleted_is_told_once_and_so_is_its_end(
    watch: Callable[..., dict[str, int]], scheduler: SchedulerApi, rows: Rows, webhook: Webhook
) -> None:
    job = next(job for job in jobs_of(load_all()) if job.name == "db-cleanup")
    name = "projects/p/locations/r/jobs/db-cleanup"
    with grpc.insecure_channel(scheduler.host) as channel:
        client = CloudSchedulerClient(transport=CloudSchedulerGrpcTransport(channel=channel))
        client.pause_job(name=name)
        assert not scheduler.fires(job)
        watch(scheduler)
        watch(scheduler)
        client.resume_job(name=name)
        assert scheduler.fires(job)
        watch(scheduler)
        client.delete_job(name=name)
        assert not scheduler.fires(job)
        watch(scheduler)
    assert open_keys(rows) == {"schedule/db-cleanup"}
    assert webhook.of("db-cleanup") == ["open", "over", "open"]


def test_where_cloud_scheduler_does_not_answer_its_incidents_stay_as_they_were(
    watch: Callable[..., dict[str, int]], scheduler: SchedulerApi, rows: Rows
) -> None:
    with scheduler.changing() as jobs:
        _paused(jobs)
    watch(scheduler)
    watch()
    assert open_keys(rows) == {"schedule/db-cleanup"}
    watch(CLOUD_SCHEDULER_EMULATOR_HOST=f"127.0.0.1:{next(free_ports())}")
    assert open_keys(rows) == {"schedule/db-cleanup", "scheduler/unseen"}
    with scheduler.changing() as jobs:
        jobs["db-cleanup"].state = Job.State.ENABLED
    watch(scheduler)
    assert open_keys(rows) == set()


def test_an_alert_nobody_took_comes_again(watch: Callable[..., dict[str, int]], db: Database, webhook: Webhook) -> None:
    put(db, "db_cleanup", NOW - MINUTE, "failed")
    webhook.status = 500
    assert watch()["told"] == 0
    webhook.status = 200
    assert watch()["told"] == 1
    assert webhook.of("db_cleanup") == ["open"]


def test_a_dead_database_is_told_once_and_once_when_it_is_back(
    watch: Callable[..., dict[str, int]], settings: Settings, clock: ManualClock, webhook: Webhook
) -> None:
    dead = replace(settings, database_url=f"postgresql://u:p@127.0.0.1:{next(free_ports())}/x")
    runner = load(FUNCTIONS / "watchdog").runner(dead, clock)
    for _ in range(3):
        result = runner.execute(of_slot(Cron("*/5 * * * *"), clock.now()))
        assert result.outcome == Outcome.RETRY
        clock.advance(5 * MINUTE)
    runner.close()
    assert webhook.of("ledger") == ["open"]
    watch()
    watch()
    assert webhook.of("ledger") == ["open", "over"]


def test_calls_that_failed_while_the_ledger_was_away_are_not_told_besides(
    watch: Callable[..., dict[str, int]], settings: Settings, clock: ManualClock, scheduler: SchedulerApi, rows: Rows
) -> None:
    dead = replace(settings, database_url=f"postgresql://u:p@127.0.0.1:{next(free_ports())}/x")
    runner = load(FUNCTIONS / "watchdog").runner(dead, clock)
    assert runner.execute(of_slot(Cron("*/5 * * * *"), clock.now())).outcome == Outcome.RETRY
    runner.close()
    with scheduler.changing() as jobs:
        jobs["db-cleanup"].status = jobs["watchdog"].status = Status(code=13)
    watch(scheduler)
    assert open_keys(rows) == set()
    watch(scheduler)  # one that goes on failing is told
    assert open_keys(rows) == {"call/db-cleanup"}


def test_without_any_channel_the_log_line_is_the_alert(
    watch: Callable[..., dict[str, int]], db: Database, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    put(db, "db_cleanup", NOW - MINUTE, "failed")
    assert watch()["told"] == 1
    assert watch()["told"] == 0


def test_a_plan_writes_nothing(db: Database, run_task: RunTask, rows: Rows) -> None:
    put(db, "db_cleanup", NOW - MINUTE, "failed")
    assert run_task("watchdog", planning=True).outcome == Outcome.PLANNED
    assert open_keys(rows) == set()


def test_the_jobs_it_wants_are_those_the_plane_has() -> None:
    tasks = load_all()
    wanted = {(j.name, j.task, j.cron) for j in declared(tasks)}
    crons = {
        (j.name, j.task.name, "* * * * *" if isinstance(j.trigger, Every) else j.trigger.expression)
        for j in jobs_of(tasks)
    }
    assert wanted == crons


def test_it_runs_as_its_own_role_with_nothing_but_its_tables(settings: Settings) -> None:
    database = Database(as_role(settings, "watchdog"), "test")
    with database.transaction(read_only=True) as connection:
        allowed = connection.execute(
            text("select has_table_privilege('user_profile', 'select'), has_table_privilege('outbox_event', 'delete')")
        ).one()
    database.close()
    assert tuple(allowed) == (False, False)
