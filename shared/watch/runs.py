"""Findings from the ledger: late, failing, stuck and slow tasks."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from shared import lateness
from shared.errors import OUTCOMES, Outcome
from shared.manifest import Task
from shared.schedule import task_last
from shared.watch.finding import Finding
from shared.wording import counted

# A run is over when its timeout is; what still reports itself after this much more is no run but a hung process.
_GRACE = timedelta(minutes=5)

# A run is slow when it takes so many times the median of those before it, and this much longer.
_SLOW_TIMES, _SLOW_S, _SLOW_RUNS = 3.0, 60.0, 10

_BAD = sorted(o.value for o, meaning in OUTCOMES.items() if meaning.alert)
_TELLING = sorted({*_BAD, "ok", "planned", "retry"})

# The index on (task, started_at desc) answers each of these by its first rows. `between` keeps the planner there: with
# an equality it takes the index on started_at alone, and reads every task's runs to find one that is rare.
_NEWEST = text("""
    select t.task, r.outcome, r.error, r.finished_at
      from unnest(cast(:tasks as text[])) as t(task)
      join lateral (
           select outcome, error, finished_at
             from groundskeeper.task_run
            where task between t.task and t.task and trigger in ('cron', 'every')
              and outcome = any(cast(:telling as text[])) and started_at > cast(:since as timestamptz)
            order by task, started_at desc
            limit 1) r on true""")

_GOOD = text("""
    select t.task,
           (select max(r.finished_at) from (
               select finished_at from groundskeeper.task_run
                where task between t.task and t.task and outcome in ('ok', 'planned') and started_at > t.since
                order by task, started_at desc limit 1) r) as good,
           exists (select 1 from groundskeeper.task_run where task = t.task) as known
      from unnest(cast(:tasks as text[]), cast(:since as timestamptz[])) as t(task, since)""")

_RUNNING = text("""
    select r.task, min(r.started_at) as since
      from groundskeeper.task_attempt a
      join groundskeeper.task_run r on r.run_id = a.run_id
     where a.ended_at is null and r.outcome is null
     group by r.task""")

_SECONDS = text("""
    select t.task, r.seconds
      from unnest(cast(:tasks as text[])) as t(task)
      join lateral (
           select array_agg(s.seconds order by s.started_at desc) as seconds from (
               select started_at, cast(extract(epoch from finished_at - started_at) as double precision) as seconds
                 from groundskeeper.task_run
                where task between t.task and t.task and trigger = 'cron' and outcome = 'ok'
                order by task, started_at desc
                limit 30) s) r on r.seconds is not null""")


def findings(
    connection: Connection, tasks: Mapping[str, Task], *, paused: Iterable[str], now: datetime
) -> Iterator[Finding]:
    """What the ledger says is wrong with the scheduled tasks that are not `paused`."""
    watched = {n: t for n, t in tasks.items() if t.scheduled and n not in set(paused)}
    late = {f.key.partition("/")[2]: f for f in _late(connection, watched, now)}
    yield from late.values()
    yield from _failing(connection, watched, now)
    yield from _stuck(connection, tasks, now)
    yield from _slow(connection, watched)


def _late(connection: Connection, tasks: Mapping[str, Task], now: datetime) -> Iterator[Finding]:
    limits = {n: timedelta(seconds=t.must_succeed_within_s) for n, t in tasks.items() if t.must_succeed_within_s}
    counted_from = lateness.counted_from(connection, limits, now)
    rows = connection.execute(_GOOD, {"tasks": list(limits), "since": [now - span for span in limits.values()]})
    for row in rows:
        since = counted_from[row.task]
        if row.good is not None or now - since <= limits[row.task]:
            continue
        if row.known:
            yield Finding(
                f"late/{row.task}",
                "error",
                f"{row.task} has not ended well for {words(limits[row.task])}",
                row.task,
            )
        elif (slot := task_last(tasks[row.task], now - _GRACE)) is not None and slot >= since:
            yield Finding(
                f"late/{row.task}",
                "warning",
                f"{row.task} has never run, though a slot of its schedule was at {slot:%Y-%m-%d %H:%M} UTC",
                row.task,
            )


def _failing(connection: Connection, tasks: Mapping[str, Task], now: datetime) -> Iterator[Finding]:
    since = now - timedelta(days=35)
    rows = connection.execute(_NEWEST, {"tasks": list(tasks), "telling": _TELLING, "since": since})
    for row in rows:
        if row.outcome in _BAD:
            severity = "warning" if row.outcome == Outcome.UNAVAILABLE else "error"
            reason = f": {row.error}" if row.error else ""
            yield Finding(f"failing/{row.task}", severity, f"{row.task} ended {row.outcome}{reason}", row.task)


def _stuck(connection: Connection, tasks: Mapping[str, Task], now: datetime) -> Iterator[Finding]:
    for row in connection.execute(_RUNNING):
        task = tasks.get(row.task)
        if task is not None and now - row.since > timedelta(seconds=task.run.timeout_s) + _GRACE:
            yield Finding(
                f"stuck/{row.task}",
                "error",
                f"{row.task} has been running for {words(now - row.since)}, its timeout is "
                f"{words(timedelta(seconds=task.run.timeout_s))}",
                row.task,
            )


def _slow(connection: Connection, tasks: Mapping[str, Task]) -> Iterator[Finding]:
    names = [n for n, t in tasks.items() if t.trigger("cron")]
    for row in connection.execute(_SECONDS, {"tasks": names}):
        newest, before = row.seconds[0], sorted(row.seconds[1:])
        if len(before) < _SLOW_RUNS:
            continue
        usual = before[len(before) // 2]
        if newest > usual * _SLOW_TIMES and newest - usual > _SLOW_S:
            yield Finding(
                f"slow/{row.task}",
                "warning",
                f"{row.task} took {words(timedelta(seconds=newest))}, usually {words(timedelta(seconds=usual))}",
                row.task,
            )


def words(span: timedelta) -> str:
    """A span as people say it."""
    seconds = span.total_seconds()
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return counted(round(seconds), "second")
