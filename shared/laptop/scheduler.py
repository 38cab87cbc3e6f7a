"""A Cloud Scheduler for the laptop: fires every cron slot and every minute of an `every` trigger, as the cloud does.

Names, headers, body, deadline and retries are those of terraform/schedules.tf. Time comes from a clock, so that a
simulation can replace it: then everything happens on the caller's thread, in order, at the clock's moments.
"""

import heapq
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import requests

from shared.clock import Clock, rfc3339
from shared.laptop.jobs import Jobs
from shared.manifest import Cron, Every, Task
from shared.schedule import last_slot, next_slot

# As terraform/schedules.tf has them; tests/laptop holds the two equal.
RETRIES, MIN_BACKOFF_S, MAX_BACKOFF_S, MAX_DOUBLINGS = 3, 60, 600, 2
LEAST_DEADLINE_S = 15

# The longest the loop sleeps before it looks whether to stop.
_LOOK_S = 0.25


@dataclass(frozen=True)
class Job:
    """One Cloud Scheduler job: its name in the cloud, the task it starts, and when."""

    name: str
    task: Task
    trigger: Cron | Every


@dataclass(frozen=True)
class Attempt:
    """One firing. `status` is the HTTP answer's, None where there was none; `document` the run's JSON, if it was."""

    job: Job
    slot: datetime
    number: int
    status: int | None
    document: Mapping[str, Any]
    error: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the cloud would count it as success."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def outcome(self) -> str:
        """The run's outcome, or `failed` where no run answered."""
        return str(self.document.get("outcome") or "failed")


def jobs_of(tasks: Mapping[str, Task]) -> Iterator[Job]:
    """The scheduler jobs of `tasks`: one a timed trigger, crons first, numbered from the second on."""
    for task in tasks.values():
        timed = [t for t in task.triggers if isinstance(t, Cron)] + [t for t in task.triggers if isinstance(t, Every)]
        for number, trigger in enumerate(timed, start=1):
            yield Job(task.slug if number == 1 else f"{task.slug}-{number}", task, trigger)


class Target(Protocol):
    """What a job's firing reaches."""

    def fire(self, job: Job, slot: datetime, number: int) -> Attempt: ...


class Http:
    """Posts to a function as Cloud Scheduler does."""

    def __init__(self, url_of: Callable[[Task], str]) -> None:
        self._url_of = url_of

    def fire(self, job: Job, slot: datetime, number: int) -> Attempt:
        """Post the slot to the job's function and wait for its answer, at most the attempt deadline."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Google-Cloud-Scheduler",
            "X-CloudScheduler": "true",
            "X-CloudScheduler-JobName": job.name,
            "X-CloudScheduler-ScheduleTime": rfc3339(slot),
        }
        deadline = max(LEAST_DEADLINE_S, job.task.run.timeout_s)
        try:
            with requests.Session() as web:
                web.trust_env = False  # a proxy of the machine has no business between us and 127.0.0.1
                answer = web.post(
                    self._url_of(job.task), data=b"{}", headers=headers, timeout=deadline, allow_redirects=False
                )
        except requests.Timeout:
            return Attempt(job, slot, number, None, {}, f"no answer within {deadline} s")
        except requests.ConnectionError:
            return Attempt(job, slot, number, None, {}, "the function does not answer")
        return Attempt(job, slot, number, answer.status_code, _json(answer))


class Here:
    """Starts a Cloud Run job as child processes and, unlike `:run`, waits for them, so that their end can be told."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def fire(self, job: Job, slot: datetime, number: int) -> Attempt:
        """Run the job's execution. As in the cloud its start counts as success, whatever comes of it."""
        ended = self._jobs.execute(job.task)
        worst = max(ended, key=lambda one: one.exit)
        counts: Counter[str] = Counter()
        for one in ended:
            counts.update(one.said.get("counts", {}))  # each index did its part
        return Attempt(job, slot, number, 200, {**worst.said, "counts": dict(counts), "outcome": worst.outcome})


class Scheduler:
    """Fires jobs at their slots until told to stop."""

    def __init__(
        self,
        tasks: Mapping[str, Task],
        targets: Mapping[str, Target],
        clock: Clock,
        *,
        parallel: bool = False,
        fires: Callable[[Job], bool] = lambda _: True,
        tell: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        """`targets` are by kind of run, `function` and `job`; `fires` is asked before each first attempt, `tell` hears
        of each attempt's end.

        In `parallel` each firing has a thread, which ends with the process; else they happen one by one.
        """
        self._targets = targets
        self._clock = clock
        self._parallel = parallel
        self._fires, self._tell = fires, tell
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._due: list[tuple[datetime, int, Job, datetime, int]] = []
        self._stopping = threading.Event()
        for job in jobs_of(tasks):
            self._plan(job, clock.now())

    def stop(self) -> None:
        """End `run` within a moment; firings under way go on."""
        self._stopping.set()

    def run(self, until: datetime | None = None) -> None:
        """Fire what is due, when it is due, until `stop`, or until the clock reaches `until`."""
        while not self._stopping.is_set():
            now = self._clock.now()
            if until is not None and now >= until:
                return
            with self._lock:
                due = heapq.heappop(self._due) if self._due and self._due[0][0] <= now else None
                ahead = self._due[0][0] if self._due else None
            if due is not None:
                self._start(due, now)
                continue
            moments = [moment for moment in (ahead, until) if moment is not None]
            wait = (min(moments) - now).total_seconds() if moments else _LOOK_S
            self._clock.sleep(min(wait, _LOOK_S) if self._parallel else wait)

    def _plan(self, job: Job, after: datetime) -> None:
        slot = next_slot(job.trigger, after)
        if slot is not None:
            self._push(slot, job, slot, 1)

    def _push(self, moment: datetime, job: Job, slot: datetime, number: int) -> None:
        with self._lock:
            heapq.heappush(self._due, (moment, next(self._order), job, slot, number))

    def _start(self, due: tuple[datetime, int, Job, datetime, int], now: datetime) -> None:
        _, _, job, slot, number = due
        if number == 1:
            # after a sleep of the machine only the newest of the slots it missed is fired
            slot = max(slot, last_slot(job.trigger, now) or slot)
            self._plan(job, max(slot, now))
            if not self._fires(job):
                return
        if self._parallel:
            threading.Thread(target=self._fire, args=(job, slot, number), name=job.name, daemon=True).start()
        else:
            self._fire(job, slot, number)

    def _fire(self, job: Job, slot: datetime, number: int) -> None:
        attempt = self._targets[job.task.run.kind].fire(job, slot, number)
        self._tell(attempt)
        again = self._clock.now() + timedelta(seconds=backoff_s(number))
        following = next_slot(job.trigger, slot)
        # retries end with the next slot, which has its own
        if not attempt.accepted and number <= retries(job) and (following is None or again < following):
            self._push(again, job, slot, number + 1)


def retries(job: Job) -> int:
    """How often a firing is repeated: a slot that comes each minute is not."""
    every_minute = isinstance(job.trigger, Every) or job.trigger.expression == "* * * * *"
    return 0 if every_minute else RETRIES


def backoff_s(number: int) -> float:
    """Seconds to wait after the failed attempt `number`: doubling MAX_DOUBLINGS times, then growing by that much."""
    doubled = MIN_BACKOFF_S * 2 ** min(number - 1, MAX_DOUBLINGS)
    further = max(0, number - 1 - MAX_DOUBLINGS) * MIN_BACKOFF_S * 2**MAX_DOUBLINGS
    return float(min(MAX_BACKOFF_S, doubled + further))


def _json(answer: requests.Response) -> Mapping[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
