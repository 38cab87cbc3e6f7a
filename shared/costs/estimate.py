"""The bill of a set of tasks for a size of platform: per task and in all, each assumption in sight.

A call's seconds are what the ledger measured where `measured` is given, else the assumption of `Size`. Where calls
overlap in one instance (run.concurrency), its time is counted once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim

from shared.costs.prices import GIB, LIST, MONTH_S, Compute, Prices
from shared.manifest import Cron, Every, Task

# The month that schedules are counted in: 30 days, begun on a first.
_FROM = datetime(2026, 6, 1, tzinfo=UTC)
_UNTIL = _FROM + timedelta(days=30)

# A Pub/Sub message is billed as at least 1 kB, once when published and once when delivered.
_MESSAGE_BYTES = 2 * 1000

# Every key version that still decrypts is billed: four rotations a year are kept for a year.
_KEY_VERSIONS = 4


# What operators ask of the console and the approvals, however large the platform is.
_OPERATORS_A_DAY = 500


@dataclass(frozen=True)
class Size:
    """A size of platform, and what it is assumed to mean. `requests_per_day` reach each endpoint that is not for
    operators: three of every user and month."""

    name: str
    users: int
    events_per_day: int
    requests_per_day: int

    def seconds(self, task: Task, kind: str) -> float:
        """Assumed seconds of one call of `kind` (cron, every, topic, http)."""
        limit = task.run.timeout_s * 0.9
        if isinstance(every := task.trigger(kind), Every):
            # what ticks inside its minute waits there, and waiting is billed too; else it is one short pass
            return min(60.0 if every.seconds < 60 else 1.0, limit)
        if kind in ("topic", "http"):
            return min(0.1, limit)
        # one pass over a day's rows, at a slow database's quarter of a million a second; a job does ten times more
        work = self.events_per_day / 250_000
        return min(300 + work * 10 if task.run.kind == "job" else 5 + work, limit)


SIZES = (
    Size("small", 1_000, 50_000, 100),
    Size("medium", 20_000, 1_000_000, 2_000),
    Size("large", 200_000, 10_000_000, 20_000),
)


@dataclass(frozen=True)
class Line:
    """One task's month: calls, the seconds one takes, instance time in vCPU- and GiB-seconds, dollars."""

    task: str
    calls: int
    seconds: float
    measured: bool
    vcpu_s: float
    gib_s: float
    compute: float
    other: float

    @property
    def dollars(self) -> float:
        return self.compute + self.other


@dataclass(frozen=True)
class Bill:
    """The month of all tasks. `free` is what the free tiers take off; lines are before them."""

    size: Size
    lines: tuple[Line, ...]
    free: float

    @property
    def dollars(self) -> float:
        return max(0.0, sum(line.dollars for line in self.lines) - self.free)


def slots(task: Task) -> int:
    """How often Cloud Scheduler starts `task` in 30 days."""
    total = 0
    for trigger in task.triggers:
        if isinstance(trigger, Every):
            total += 30 * 1440
        elif isinstance(trigger, Cron):
            for moment in CronSim(trigger.expression, _FROM - timedelta(minutes=1)):
                if moment >= _UNTIL:
                    break
                total += 1
    return total


def busy(calls: float, seconds: float, concurrency: int, span: float = MONTH_S) -> float:
    """Instance-seconds that `calls` at random moments of `span` keep, sharing an instance up to `concurrency`."""
    load = calls * seconds / span
    if concurrency == 1:
        return load * span
    return max(1 - math.exp(-load), load / concurrency) * span


def estimate(
    tasks: Mapping[str, Task], size: Size, *, measured: Mapping[str, float] | None = None, prices: Prices = LIST
) -> Bill:
    """The month's bill of `tasks`. `measured` maps a task to the seconds its runs really take."""
    lines = [_line(task, size, (measured or {}).get(name), prices) for name, task in sorted(tasks.items())]
    return Bill(size, tuple(lines), _free(tasks, lines, size, prices))


def _calls(task: Task, size: Size) -> dict[str, int]:
    """Calls a month, by kind of trigger."""
    calls = {"every" if task.trigger("every") else "cron": slots(task)}
    if task.trigger("topic"):
        calls["topic"] = round(size.events_per_day * 30)
    if task.trigger("http"):
        calls["http"] = 30 * (_OPERATORS_A_DAY if task.for_operators else size.requests_per_day)
    return {kind: n for kind, n in calls.items() if n}


def _line(task: Task, size: Size, seconds: float | None, prices: Prices) -> Line:
    calls = _calls(task, size)
    run, shards = task.run, task.run.tasks
    each = {kind: seconds if seconds is not None else size.seconds(task, kind) for kind in calls}
    instance_s = shards * sum(busy(n, each[kind], run.concurrency) for kind, n in calls.items())
    total = sum(calls.values())
    vcpu_s, gib_s = instance_s * run.cpu, instance_s * run.memory_mb / 1024
    compute = _compute(prices.instances if run.kind == "job" else prices.functions, vcpu_s, gib_s, total)
    schedules = sum(isinstance(t, Cron | Every) for t in task.triggers)
    other = (
        schedules * prices.schedule
        + len(task.secrets) * prices.secret_version
        + len(task.kms) * _KEY_VERSIONS * prices.key_version
        + _published(task, size) / (1024 * GIB) * prices.pubsub_tib
        + _conditions(task) * prices.alert_condition
    )
    mean = sum(each[kind] * n for kind, n in calls.items()) / total if total else 0.0
    return Line(task.name, total, mean, seconds is not None, vcpu_s, gib_s, compute, other)


def _compute(rate: Compute, vcpu_s: float, gib_s: float, requests: float) -> float:
    return vcpu_s * rate.vcpu_s + gib_s * rate.gib_s + requests / 1e6 * rate.million_requests


def _published(task: Task, size: Size) -> float:
    """Bytes a month through Pub/Sub, counted where they are published; every event passes each publisher."""
    return size.events_per_day * 30 * _MESSAGE_BYTES if task.publishes else 0.0


def _conditions(task: Task) -> int:
    """Alert conditions: one on its logs, and one on its absence where Cloud Monitoring can look back far enough."""
    limit = task.must_succeed_within_s
    return 1 + (limit is not None and limit <= 84600)


def _free(tasks: Mapping[str, Task], lines: list[Line], size: Size, prices: Prices) -> float:
    total = 0.0
    for rate, kind in ((prices.functions, "function"), (prices.instances, "job")):
        mine = [line for line in lines if tasks[line.task].run.kind == kind]
        total += min(sum(x.vcpu_s for x in mine), rate.free_vcpu_s) * rate.vcpu_s
        total += min(sum(x.gib_s for x in mine), rate.free_gib_s) * rate.gib_s
        total += min(sum(x.calls for x in mine), rate.free_requests) / 1e6 * rate.million_requests
    schedules = sum(isinstance(t, Cron | Every) for task in tasks.values() for t in task.triggers)
    total += min(schedules, prices.free_schedules) * prices.schedule
    named = sum(len(task.secrets) for task in tasks.values())
    total += min(named, prices.free_secret_versions) * prices.secret_version
    published = sum(_published(task, size) for task in tasks.values())
    total += min(published / GIB, prices.free_pubsub_gib) / 1024 * prices.pubsub_tib
    return total
