"""The slots of a task's schedule: the one place that turns cron expressions into moments. All UTC."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from cronsim import CronSim

from shared.manifest import Cron, Every, Task, Trigger

MINUTE = timedelta(minutes=1)


def minute_of(moment: datetime) -> datetime:
    """`moment` cut to its minute, UTC."""
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


def next_slot(trigger: Trigger, after: datetime) -> datetime | None:
    """The first start strictly after `after`; None for triggers without a schedule."""
    match trigger:
        case Cron(expression):
            return next(CronSim(expression, after.astimezone(UTC)))
        case Every():
            return minute_of(after) + MINUTE
    return None


def last_slot(trigger: Trigger, at: datetime) -> datetime | None:
    """The newest start at or before `at`; None for triggers without a schedule."""
    match trigger:
        case Cron(expression):
            # strictly before in reverse, so step just past `at` to include it
            return next(CronSim(expression, minute_of(at) + MINUTE, reverse=True))
        case Every():
            return minute_of(at)
    return None


def slots(trigger: Trigger, start: datetime, end: datetime) -> Iterator[datetime]:
    """Every start in start <= slot < end, ascending."""
    match trigger:
        case Cron(expression):
            yield from takewhile(
                lambda slot: slot < end,
                CronSim(expression, start.astimezone(UTC) - timedelta(microseconds=1)),
            )
        case Every():
            slot = minute_of(start - timedelta(microseconds=1)) + MINUTE
            while slot < end:
                yield slot
                slot += MINUTE


def task_next(task: Task, after: datetime) -> datetime | None:
    """The task's next scheduled start, or None when nothing schedules it."""
    return min((s for t in task.triggers if (s := next_slot(t, after))), default=None)


def task_last(task: Task, at: datetime) -> datetime | None:
    """The task's newest scheduled start at or before `at`, or None when nothing schedules it."""
    return max((s for t in task.triggers if (s := last_slot(t, at))), default=None)
