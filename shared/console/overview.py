"""The first page: everything at a glance, worst first."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup
from sqlalchemy import Connection, func, select

from shared import holds, lateness, pauses, plans
from shared.console import charts, ledger
from shared.console.ledger import Run
from shared.manifest import Task
from shared.schedule import task_next
from shared.schema_rooms import watch_incident


@dataclass(frozen=True)
class Line:
    """A task as the overview shows it. `state` is what its badge says."""

    task: Task
    started_by: str
    next: datetime | None
    last: Run | None
    good: datetime | None
    limit: timedelta | None
    state: str
    counts: str
    spark: Markup
    paused: str | None
    error: str | None
    """What the run said that tells the state."""

    @property
    def wrong(self) -> bool:
        return self.state in ("failed", "partial", "refused", "unavailable", "late")


@dataclass(frozen=True)
class Overview:
    """All of it."""

    lines: tuple[Line, ...]
    timeline: Markup
    incidents: int
    approvals: int
    holds: int
    paused_all: str | None

    @property
    def wrong(self) -> int:
        return sum(line.wrong for line in self.lines)


def overview(connection: Connection, tasks: Mapping[str, Task], *, now: datetime, me: str) -> Overview:
    """What the first page shows at `now`; `me` is the console's own task, whose visits are no news."""
    runs, trends = ledger.newest(connection, tasks), ledger.trends(connection, tasks, now)
    limits = {n: timedelta(seconds=t.must_succeed_within_s) for n, t in tasks.items() if t.must_succeed_within_s}
    good = ledger.last_good(connection, limits, now)
    stops = {p.task: p.reason for p in pauses.in_force(connection, now)}
    counted_from = lateness.counted_from(connection, tasks, now)
    lines = [
        _line(
            task,
            runs.get(name, []),
            trends.get(name, []),
            good.get(name),
            limits.get(name),
            stops.get(name),
            now,
            counted_from[name],
        )
        for name, task in tasks.items()
        if name != me
    ]
    lines.sort(key=lambda x: (not x.wrong, x.next is None, x.next or now, x.task.name))
    day = ledger.day(connection, until=now, but=me)
    incidents = connection.execute(
        select(func.count()).select_from(watch_incident).where(watch_incident.c.closed_at.is_(None))
    ).scalar_one()
    return Overview(
        tuple(lines),
        charts.timeline([line.task.name for line in lines], day),
        incidents,
        len(plans.pending(connection, now)),
        len(holds.in_force(connection, now)),
        stops.get(pauses.ALL),
    )


def _line(
    task: Task,
    runs: list[Run],
    seconds: list[float],
    good: datetime | None,
    limit: timedelta | None,
    paused: str | None,
    now: datetime,
    counted_from: datetime,
) -> Line:
    last = runs[0] if runs else None
    telling = next((r for r in runs if r.outcome not in (None, "skipped", "busy", "stopped")), None)
    state = "never" if last is None else "running" if last.outcome is None else last.outcome
    if telling is not None and telling.bad:
        state = telling.outcome or state
    elif limit is not None and runs and now - max(good or counted_from, counted_from) > limit:
        state = "late"
    if paused is not None:
        state = "paused"
    return Line(
        task,
        ", ".join(map(str, task.triggers)) or "by hand",
        task_next(task, now),
        last,
        good,
        limit,
        state,
        counts(last.counts) if last else "",
        charts.sparkline(seconds, f"durations of the last {len(seconds)} runs of {task.name}"),
        paused,
        telling.error if telling else None,
    )


def counts(values: Mapping[str, int], most: int = 4) -> str:
    """What was done, in a few words: the counts that are not zero."""
    said = [f"{name.replace('_', ' ')} {value:,}" for name, value in sorted(values.items()) if value]
    return ", ".join(said[:most]) + (" …" if len(said) > most else "") if said else "nothing to do" if values else ""
