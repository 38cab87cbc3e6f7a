"""A simulated month: the real tasks, on a real PostgreSQL, under a clock that runs as fast as they do.

Every cron slot of an hour or longer is run; what ticks within the minute at full cadence on the first day and one tick
an hour on the others; what else comes more often than hourly once an hour (`density` says so). What they start runs
too. The demo's traffic goes on meanwhile, customers come and go at Stripe, keys come of age. With a seed, triggers come
twice, late or never, runs are killed between two statements, and the database is away for a while: then the
invariants are worth most.
"""

import logging
import random
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import event, text

from shared import logs
from shared import settings as settings_module
from shared.call import by_hand, of_slot
from shared.clock import SystemClock
from shared.database import Database
from shared.errors import OUTCOMES, Outcome
from shared.laptop import bus, home
from shared.laptop import simulated_traffic as traffic
from shared.laptop.bus_postgres import PostgresBus
from shared.laptop.ports import free_ports
from shared.laptop.postgres import Postgres
from shared.laptop.scheduler import Attempt, Job, Scheduler, jobs_of
from shared.laptop.simulated import Invariant, Tally, VirtualClock
from shared.laptop.simulated_world import World
from shared.manifest import Every, Task
from shared.run import Runner
from shared.schedule import slots
from shared.settings import Settings
from shared.task import load

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

# What has nobody to talk to here: its part of the demo's traffic is written instead.
OUTSIDE = {
    "lighthouse_scan": "opens pages in a browser",
    "ping_services": "probes addresses on the internet; what it would find is in the traffic",
    "train_all_models": "takes minutes of real time a run",
}

# Chances of a trigger that comes twice, late, never, and of a run that is killed; outages a day.
DOUBLED, LATE, LOST, KILLED, OUTAGES = 0.03, 0.03, 0.02, 0.03, 0.5


class Killed(BaseException):
    """What a killed process's run ends with: nothing catches it, and nothing is written after it."""


@dataclass(frozen=True)
class Simulated:
    """The month: by task, the promises, what was left out and why, and the machine's seconds it took."""

    tallies: Mapping[str, Tally]
    invariants: tuple[Invariant, ...]
    left_out: Mapping[str, str]
    seconds: float


def simulate(
    tasks: Mapping[str, Task],
    *,
    start: datetime,
    days: int,
    seed: int | None,
    folder: Path,
    full: timedelta = DAY,
) -> Simulated:
    """Run `days` from `start`, which is a midnight; `folder` holds objects and secrets meanwhile.

    What ticks within the minute has each of its slots for `full`, then one tick an hour; what else has more than a slot
    an hour has one an hour.
    """
    real = SystemClock()
    began = real.monotonic()
    with Postgres.temporary() as server, ExitStack() as stack:
        stack.enter_context(_quiet())
        broker = PostgresBus(server.create_database("bus"))
        stack.callback(broker.stop)
        environ = {
            **home.defaults(folder),
            **home.DEMO,
            "DATABASE_URL": server.create_database("simulation"),
            "PUBSUB_EMULATOR_HOST": f"127.0.0.1:{broker.port}",
        }
        settings, clock = settings_module.read(environ), VirtualClock(start)
        bus.declare_topics(broker.port, settings.project, tasks)
        database = Database(settings, "simulation")
        stack.callback(database.close)
        traffic.prepare(database, settings, start, folder / "objects")
        world = World(settings, database, clock, folder)
        stack.callback(world.stop)
        settings = settings_module.read({**environ, **world.environment})
        plane = _Plane(tasks, settings, database, clock, seed, start + full, stack)
        end = start + timedelta(days=days)
        before = traffic.totals(database)
        scheduler = Scheduler(plane.simulated, {"function": plane, "job": plane}, clock)
        for hour in range(days * 24):
            if hour % 24 == 0:
                world.day(plane.random)
            traffic.hour(database, start + hour * HOUR, plane.random)
            scheduler.run(start + (hour + 1) * HOUR)
        plane.settle(end)
        invariants = [
            *traffic.invariants(database, before, tasks, settings.environ, hours=days * 24, now=end),
            *world.invariants(plane.tallies),
        ]
        held = plane.twice == 0
        invariants.append(Invariant("a trigger that comes twice runs once", held, f"{plane.twice} ran twice"))
        left_out = {n: _left_out(t) for n, t in tasks.items() if n not in plane.tallies}
        return Simulated(plane.tallies, tuple(invariants), left_out, real.monotonic() - began)


def _left_out(task: Task) -> str:
    return OUTSIDE.get(task.name) or "started by a message, a request or by hand only"


@contextmanager
def _quiet() -> Iterator[None]:
    """Thousands of runs say nothing but in the ledger."""
    if not logs.configured():  # else the first task that is loaded does, and is heard
        logs.configure("stderr")
    loggers = [logging.getLogger(name) for name in ("groundskeeper", "google", "sqlalchemy")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class _Plane:
    """Fires the scheduler's jobs in this process, each on a clock of its own, with mishaps where there is a seed."""

    def __init__(
        self,
        tasks: Mapping[str, Task],
        settings: Settings,
        database: Database,
        clock: VirtualClock,
        seed: int | None,
        full_until: datetime,
        stack: ExitStack,
    ) -> None:
        self.clock, self.random = clock, random.Random(seed or 0)  # noqa: S311 - mishaps, not secrets
        self.simulated = {n: t for n, t in tasks.items() if t.scheduled and n not in OUTSIDE}
        started = {n for task in self.simulated.values() for n in task.starts if n in tasks} - set(OUTSIDE)
        self.tallies = {n: Tally() for n in tasks if n in {*self.simulated, *started}}
        self.twice = 0
        self._chaos, self._full_until, self._database = seed is not None, full_until, database
        self._fuse: int | None = None
        self._elsewhere = 0.0  # real seconds that the run at work spent in what it started
        dead = replace(settings, database_url=f"postgresql://nobody@127.0.0.1:{next(free_ports())}/away")
        self._runners: dict[str, Runner] = {}
        self._away: dict[str, Runner] = {}
        for name, tally in self.tallies.items():
            entry = load(tasks[name].folder)
            self._runners[name] = entry.runner(settings, own := VirtualClock(clock.now()), partial(self._start, own))
            self._away[name] = entry.runner(dead, VirtualClock(clock.now()))
            stack.callback(self._runners[name].close)
            stack.callback(self._away[name].close)
            event.listen(self._runners[name].database().engine, "before_cursor_execute", self._burn)
            if name not in self.simulated:
                tally.density = "when started"
        self._outages = list(self._planned_outages(clock.now()))
        self._frequent = {job.name for job in jobs_of(self.simulated) if _often(job)}
        for job in jobs_of(self.simulated):
            if job.name in self._frequent:
                self.tallies[job.task.name].density = (
                    f"every slot for {full_until - clock.now()}, then one tick an hour"
                    if _ticks(job)
                    else "one an hour"
                )

    def _planned_outages(self, start: datetime) -> Iterator[tuple[datetime, datetime]]:
        for day in range(366 if self._chaos else 0):
            if self.random.random() < OUTAGES:
                at = start + day * DAY + timedelta(minutes=self.random.randrange(1380))
                yield at, at + timedelta(minutes=self.random.randrange(5, 40))

    # --- a target of the scheduler

    def fire(self, job: Job, slot: datetime, number: int) -> Attempt:
        """Run the slot here, with whatever mishap the seed has for it."""
        tally = self.tallies[job.task.name]
        if number == 1:
            tally.slots += 1
        if slot.minute and job.name in self._frequent and (slot >= self._full_until or not _ticks(job)):
            return Attempt(job, slot, number, 200, {"outcome": "not simulated"})
        mishap = self._mishap() if number == 1 else None
        if mishap:
            tally.chaos[mishap] += 1
        if mishap == "lost":
            return Attempt(job, slot, number, 200, {"outcome": "lost"})
        at = max(slot, self.clock.now()) + (
            timedelta(minutes=self.random.randrange(1, 30)) if mishap == "late" else _NOW
        )
        if isinstance(job.trigger, Every) and slot >= self._full_until:
            at = max(at, slot + timedelta(seconds=60 - job.trigger.seconds))  # so late that one tick is left
        if any(start <= at < end for start, end in self._outages):
            tally.chaos["away"] += 1
            return self._execute(self._away, job, slot, number, at)
        if mishap == "killed":
            self._fuse = self.random.randrange(1, 60)
        attempt = self._execute(self._runners, job, slot, number, at)
        if mishap == "doubled":
            again = self._execute(self._runners, job, slot, number, at + timedelta(seconds=30))
            self.twice += attempt.outcome == "ok" and again.outcome != "skipped"
        return attempt

    def _mishap(self) -> str | None:
        if not self._chaos:
            return None
        chance = self.random.random()
        for name, part in (("doubled", DOUBLED), ("late", LATE), ("lost", LOST), ("killed", KILLED)):
            if chance < part:
                return name
            chance -= part
        return None

    def _execute(self, among: Mapping[str, Runner], job: Job, slot: datetime, number: int, at: datetime) -> Attempt:
        runner, tally, real = among[job.task.name], self.tallies[job.task.name], SystemClock()
        clock = runner.clock
        assert isinstance(clock, VirtualClock)
        began = real.monotonic()
        worst: Outcome | None = None
        for shard in range(job.task.run.tasks):
            clock.move(at)
            try:
                result = runner.execute(of_slot(job.trigger, slot, shard=shard))
            except Killed:
                self._fuse = None
                self._let_leases_run_out()
                tally.outcomes["killed"] += 1
                return Attempt(job, slot, number, None, {"outcome": "killed"}, "killed")
            finally:
                tally.seconds += real.monotonic() - began - self._elsewhere
                self._elsewhere, began = 0.0, real.monotonic()
            tally.add(result)
            if worst is None or OUTCOMES[result.outcome].http >= OUTCOMES[worst].http:
                worst = result.outcome
        self._fuse = None
        assert worst is not None
        return Attempt(job, slot, number, OUTCOMES[worst].http, {"outcome": worst.value})

    def _start(self, clock: VirtualClock, name: str, request: uuid.UUID) -> None:
        """What a run starts, at its moment and within it, as on a laptop."""
        runner = self._runners[name]
        assert isinstance(runner.clock, VirtualClock)
        runner.clock.move(clock.now())
        began = SystemClock().monotonic()
        self.tallies[name].add(runner.execute(by_hand(request)))
        took = SystemClock().monotonic() - began
        self.tallies[name].seconds += took
        self._elsewhere += took

    def _burn(self, *_: Any) -> None:
        """Before each statement of a run that is to be killed."""
        if self._fuse is not None:
            self._fuse -= 1
            if self._fuse <= 0:
                raise Killed

    def _let_leases_run_out(self) -> None:
        """A lease is on the database's clock, which does not know of ours: the minute after a kill is over at once."""
        with self._database.transaction() as connection:
            connection.execute(
                text("""
                update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '10 minutes'
                 where ended_at is null""")
            )

    def settle(self, end: datetime) -> None:
        """After the last day, a last run of everything without mishaps, as the next day would bring it."""
        self._chaos, self._outages = False, []
        for job in sorted(jobs_of(self.simulated), key=lambda job: job.name):
            last = max(slots(job.trigger, end - 32 * DAY, end), default=None)
            if last is not None:
                self._execute(self._runners, job, last + timedelta(minutes=1), 1, end)


def _ticks(job: Job) -> bool:
    """Whether the job's runs tick within their minute."""
    return isinstance(job.trigger, Every) and job.trigger.seconds < 60


def _often(job: Job) -> bool:
    """Whether the job has more slots than hours."""
    return isinstance(job.trigger, Every) or len(list(slots(job.trigger, _ANY_DAY, _ANY_DAY + DAY))) > 24


_NOW = timedelta()
_ANY_DAY = datetime.fromisoformat("2026-06-01T00:00:00+00:00")


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for a simulation's objects and secrets, gone afterwards."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="groundskeeper-simulation-") as name:
        yield Path(name)
