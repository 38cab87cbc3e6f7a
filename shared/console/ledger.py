"""What the console reads of the ledger. Every question is answered by an index, also over millions of runs."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.errors import OUTCOMES, Outcome

# Runs whose durations make a task's trend, and those that tell its state.
TREND, STATE = 30, 3

# The day's timeline is cut into this many equal parts.
PARTS = 144

# The worst of a part's outcomes is the one shown.
_WORST = (
    "failed", "partial", "refused", "unavailable", "running", "retry", "waiting", "stopped", "busy", "skipped",
    "planned", "ok",
)  # fmt: skip

# In what follows `between` the same and the same: with an equality the planner drops the task from the order, takes the
# index on started_at alone, and reads every task's runs to find the few of one that is rare.


@dataclass(frozen=True)
class Run:
    """A run as the console shows it."""

    run_id: uuid.UUID
    task: str
    trigger: str
    outcome: str | None
    counts: Mapping[str, int]
    error: str | None
    actor: str
    why: str | None
    plan_hash: str | None
    started_at: datetime
    finished_at: datetime | None

    @property
    def seconds(self) -> float | None:
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None

    @property
    def bad(self) -> bool:
        return self.outcome is not None and OUTCOMES[Outcome(self.outcome)].alert


_NEWEST = text("""
    select r.*
      from unnest(cast(:tasks as text[])) as t(name)
      join lateral (
           select run_id, task, trigger, outcome, counts, error, actor, why, plan_hash, started_at, finished_at
             from groundskeeper.task_run
            where task between t.name and t.name
            order by task, started_at desc
            limit :limit) r on true
     order by r.task, r.started_at desc""")

_TREND = text("""
    select t.name, r.seconds
      from unnest(cast(:tasks as text[])) as t(name)
      join lateral (
           select array_agg(cast(extract(epoch from s.finished_at - s.started_at) as real) order by s.started_at)
                  as seconds
             from (
                  select started_at, finished_at
                    from groundskeeper.task_run
                   where task between t.name and t.name and outcome in ('ok', 'planned') and started_at > :since
                   order by task, started_at desc
                   limit :limit) s) r on r.seconds is not null""")

_OF_TASK = text("""
    select run_id, task, trigger, outcome, counts, error, actor, why, plan_hash, started_at, finished_at
      from groundskeeper.task_run
     where task = :task and started_at < :before
     order by started_at desc
     limit :limit""")

_ONE = text("""
    select run_id, task, trigger, outcome, counts, error, actor, why, plan_hash, started_at, finished_at
      from groundskeeper.task_run
     where run_id = :run_id""")

_OF_REQUEST = text("""
    select run_id, task, trigger, outcome, counts, error, actor, why, plan_hash, started_at, finished_at
      from groundskeeper.task_run
     where task = :task and run_key = :key
     order by shard
     limit 1""")

_GOOD = text("""
    select t.name, r.finished_at
      from unnest(cast(:tasks as text[]), cast(:since as timestamptz[])) as t(name, since)
      join lateral (
           select finished_at
             from groundskeeper.task_run
            where task between t.name and t.name and outcome in ('ok', 'planned') and started_at > t.since
            order by task, started_at desc
            limit 1) r on true""")

# A row a task: rows by the thousand take longer to read here than to count there.
_DAY = text("""
    select p.task, string_agg(p.part || ':' || p.worst || ':' || p.runs, ' ') as parts
      from (
           select task,
                  cast(floor(extract(epoch from started_at - cast(:since as timestamptz)) / :width) as int) as part,
                  min(array_position(cast(:order as text[]), coalesce(cast(outcome as text), 'running'))) as worst,
                  count(*) as runs
             from groundskeeper.task_run
            where started_at >= :since and started_at < :until and task <> :but
            group by 1, 2) p
     group by p.task""")


def _run(row: Row[Any]) -> Run:
    return Run(*tuple(row))


def newest(connection: Connection, tasks: Iterable[str]) -> dict[str, list[Run]]:
    """The newest runs of each task, newest first; a task without any is left out."""
    found: dict[str, list[Run]] = {}
    for row in connection.execute(_NEWEST, {"tasks": list(tasks), "limit": STATE}):
        found.setdefault(row.task, []).append(_run(row))
    return found


def trends(connection: Connection, tasks: Iterable[str], now: datetime) -> dict[str, list[float]]:
    """How many seconds each task's newest good runs of a month took, oldest first."""
    values = {"tasks": list(tasks), "since": now - timedelta(days=31), "limit": TREND}
    return {row.name: row.seconds for row in connection.execute(_TREND, values)}


def of_task(connection: Connection, task: str, *, before: datetime, limit: int) -> list[Run]:
    """The task's runs that began before a moment, newest first."""
    return [_run(row) for row in connection.execute(_OF_TASK, {"task": task, "before": before, "limit": limit})]


def one(connection: Connection, run_id: uuid.UUID) -> Run | None:
    """The run, or None."""
    row = connection.execute(_ONE, {"run_id": run_id}).one_or_none()
    return _run(row) if row else None


def of_request(connection: Connection, task: str, request: uuid.UUID) -> Run | None:
    """The run that the request became, or None as long as nothing has started."""
    row = connection.execute(_OF_REQUEST, {"task": task, "key": str(request)}).one_or_none()
    return _run(row) if row else None


def last_good(connection: Connection, limits: Mapping[str, timedelta], now: datetime) -> dict[str, datetime]:
    """When each task last ended well, as far back as its limit says anybody cares, and as long again."""
    values = {"tasks": list(limits), "since": [now - 2 * span for span in limits.values()]}
    return {row.name: row.finished_at for row in connection.execute(_GOOD, values)}


def day(connection: Connection, *, until: datetime, but: str) -> dict[str, dict[int, tuple[str, int]]]:
    """The day before `until`, by task and part: the worst outcome (or `running`) and how many runs. Without `but`."""
    span = timedelta(days=1)
    width = span.total_seconds() / PARTS
    values = {"since": until - span, "until": until, "width": width, "but": but, "order": list(_WORST)}
    found: dict[str, dict[int, tuple[str, int]]] = {}
    for row in connection.execute(_DAY, values):
        parts = (tuple(map(int, part.split(":"))) for part in row.parts.split(" "))
        found[row.task] = {part: (_WORST[worst - 1], runs) for part, worst, runs in parts}
    return found
