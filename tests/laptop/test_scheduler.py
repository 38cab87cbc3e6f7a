"""The local Cloud Scheduler: fires what the cloud would fire, when, how, and how often."""

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shared.clock import SystemClock
from shared.laptop import bus, jobs, scheduler
from shared.laptop.scheduler import Attempt, Http, Job, Scheduler, backoff_s, jobs_of
from shared.manifest import ROOT, Cron, Every, Run, Task, Trigger

START = datetime(2026, 6, 14, 23, 59, 30, tzinfo=UTC)


class Simulated:
    """A clock that moves when it is slept on."""

    def __init__(self, moment: datetime = START) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return (self.moment - START).total_seconds()

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=max(seconds, 0.001))


class Recording:
    """A target that remembers what reached it and answers with the statuses given, then 200."""

    def __init__(self, clock: Simulated, *statuses: int | None, takes_s: float = 0) -> None:
        self.clock = clock
        self.statuses = iter(statuses)
        self.takes_s = takes_s
        self.fired: list[tuple[datetime, str, datetime, int]] = []

    def fire(self, job: Job, slot: datetime, number: int) -> Attempt:
        self.fired.append((self.clock.now(), job.name, slot, number))
        if self.takes_s:
            self.clock.sleep(self.takes_s)
        return Attempt(job, slot, number, next(self.statuses, 200), {})


def a_task(name: str, *triggers: Trigger, kind: str = "function") -> Task:
    return Task(
        name=name, folder=Path(), summary="", owner="", triggers=triggers, run=Run(kind, 256, 1, 60), uses=(),
        requires=(), must_succeed_within_s=3600, tables={}, params={},
    )  # fmt: skip


def simulate(until: datetime, *tasks: Task, statuses: tuple[int | None, ...] = (), takes_s: float = 0) -> Recording:
    clock = Simulated()
    target = Recording(clock, *statuses, takes_s=takes_s)
    Scheduler({t.name: t for t in tasks}, {"function": target, "job": target}, clock).run(until)
    return target


def test_a_day_fires_each_cron_slot_once_at_its_moment() -> None:
    seen = simulate(
        START + timedelta(days=1),
        a_task("backup", Cron("0 0 * * *")),
        a_task("cleanup", Cron("0 2 * * *")),
        a_task("hourly", Cron("15 */6 * * *")),
    )
    slots = [(name, slot.strftime("%H:%M")) for _, name, slot, _ in seen.fired]
    assert slots == [
        ("backup", "00:00"), ("hourly", "00:15"), ("cleanup", "02:00"), ("hourly", "06:15"), ("hourly", "12:15"),
        ("hourly", "18:15"),
    ]  # fmt: skip
    assert all(at == slot for at, _, slot, _ in seen.fired)


def test_an_every_trigger_is_fired_each_minute() -> None:
    seen = simulate(START + timedelta(minutes=3), a_task("relay", Every(5)))
    assert [slot.strftime("%H:%M:%S") for _, _, slot, _ in seen.fired] == ["00:00:00", "00:01:00", "00:02:00"]


def test_a_second_schedule_has_a_number_in_its_name_as_in_the_cloud() -> None:
    task = a_task("sync_things", Every(30), Cron("0 4 * * *"), Cron("0 16 * * *"))
    assert [(j.name, j.trigger.kind) for j in jobs_of({"sync_things": task})] == [
        ("sync-things", "cron"), ("sync-things-2", "cron"), ("sync-things-3", "every"),
    ]  # fmt: skip


def test_a_failed_slot_is_fired_again_three_times_with_growing_waits() -> None:
    seen = simulate(START + timedelta(hours=2), a_task("backup", Cron("0 0 * * *")), statuses=(500, 503, None, 500))
    first = seen.fired[0][0]
    assert [((at - first).total_seconds(), number) for at, _, _, number in seen.fired] == [
        (0, 1), (60, 2), (180, 3), (420, 4),
    ]  # fmt: skip
    assert len({slot for _, _, slot, _ in seen.fired}) == 1


def test_a_failed_slot_is_not_fired_into_the_next_one() -> None:
    seen = simulate(START + timedelta(minutes=3), a_task("often", Cron("*/2 * * * *")), statuses=(500, 500, 500, 500))
    assert [(slot.minute, number) for _, _, slot, number in seen.fired] == [(0, 1), (0, 2), (2, 1)]


def test_a_failed_minute_is_not_repeated() -> None:
    seen = simulate(START + timedelta(minutes=2), a_task("relay", Every(5)), statuses=(500, 500))
    assert [number for *_, number in seen.fired] == [1, 1]


def test_backoff_doubles_twice_and_then_grows_evenly() -> None:
    assert [backoff_s(number) for number in (1, 2, 3, 4, 5)] == [60, 120, 240, 480, 600]


def test_after_the_machine_slept_only_the_newest_missed_slot_is_fired() -> None:
    seen = simulate(START + timedelta(hours=3), a_task("relay", Every(5)), takes_s=5000)
    assert [slot.strftime("%H:%M") for _, _, slot, _ in seen.fired] == ["00:00", "01:23", "02:46"]


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    got: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            answer = b'{"outcome": "ok", "counts": {"rows": 3}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_function_is_called_as_cloud_scheduler_calls_it(
    endpoint: tuple[str, list[tuple[str, dict[str, str], bytes]]],
) -> None:
    url, got = endpoint
    job = Job("db-cleanup", a_task("db_cleanup", Cron("0 2 * * *")), Cron("0 2 * * *"))
    attempt = Http(lambda task: f"{url}/{task.slug}").fire(job, datetime(2026, 6, 15, 2, tzinfo=UTC), 1)
    path, headers, body = got[0]
    assert (path, body) == ("/db-cleanup", b"{}")
    assert {name: headers[name] for name in headers if name.startswith("x-cloudscheduler")} == {
        "x-cloudscheduler": "true",
        "x-cloudscheduler-jobname": "db-cleanup",
        "x-cloudscheduler-scheduletime": "2026-06-15T02:00:00Z",
    }
    assert headers["user-agent"] == "Google-Cloud-Scheduler"
    assert headers["content-type"] == "application/json"
    assert (attempt.accepted, attempt.outcome, attempt.document["counts"]) == (True, "ok", {"rows": 3})


def test_a_function_that_does_not_answer_is_a_failed_attempt() -> None:
    job = Job("db-cleanup", a_task("db_cleanup", Cron("0 2 * * *")), Cron("0 2 * * *"))
    attempt = Http(lambda _: "http://127.0.0.1:1/").fire(job, START, 1)
    assert (attempt.accepted, attempt.outcome, attempt.error) == (False, "failed", "the function does not answer")


def test_a_slow_task_does_not_delay_the_others_and_stop_ends_the_loop() -> None:
    clock, told, release = SystemClock(), threading.Event(), threading.Event()

    class Slow:
        def fire(self, job: Job, slot: datetime, number: int) -> Attempt:
            assert job.name == "other" or release.wait(20)
            return Attempt(job, slot, number, 200, {})

    slow, other = (a_task(name, Cron("* * * * *")) for name in ("slow", "other"))

    class Soon(Simulated):
        """Half a second before the next minute, then real time."""

        def __init__(self) -> None:
            super().__init__(START)
            self.began = clock.monotonic()

        def now(self) -> datetime:
            return START + timedelta(seconds=29.5 + clock.monotonic() - self.began)

        def sleep(self, seconds: float) -> None:
            clock.sleep(seconds)

    running = Scheduler(
        {"slow": slow, "other": other}, {"function": Slow()}, Soon(), parallel=True,
        tell=lambda attempt: told.set() if attempt.job.name == "other" else None,
    )  # fmt: skip
    loop = threading.Thread(target=running.run)
    loop.start()
    assert told.wait(20)
    running.stop()
    loop.join(2)
    assert not loop.is_alive()
    release.set()


def test_the_laptop_retries_as_terraform_declares() -> None:
    """One number each, for the laptop and the cloud."""

    def declared(file: str, key: str) -> set[str]:
        return set(re.findall(rf'{key}\s*=\s*"?([^"\n]+?)s?"?\s*\n', (ROOT / "terraform" / file).read_text()))

    assert declared("schedules.tf", "min_backoff_duration") == {str(scheduler.MIN_BACKOFF_S)}
    assert declared("schedules.tf", "max_backoff_duration") == {str(scheduler.MAX_BACKOFF_S)}
    assert declared("schedules.tf", "max_doublings") == {str(scheduler.MAX_DOUBLINGS)}
    assert f'"* * * * *" ? 0 : {scheduler.RETRIES}\n' in (ROOT / "terraform/schedules.tf").read_text()
    assert f"max({scheduler.LEAST_DEADLINE_S}, " in (ROOT / "terraform/schedules.tf").read_text()
    assert declared("jobs.tf", "max_retries") == {str(jobs.MAX_RETRIES)}
    assert declared("topics.tf", "minimum_backoff") == {str(bus.MIN_BACKOFF_S)}
    assert declared("topics.tf", "maximum_backoff") == {str(bus.MAX_BACKOFF_S)}
    assert declared("topics.tf", "max_delivery_attempts") == {str(bus.MAX_ATTEMPTS)}
