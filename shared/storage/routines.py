"""Which routines have work: rows that fell due since they last ran well, a run that left something, or no good run."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnClause, Connection, column, exists, literal, select, table

from shared import ledger
from shared.clock import months_before
from shared.context import Context
from shared.errors import Outcome, Partial, Retry, Unavailable
from shared.schema import task_run

_GOOD = (Outcome.OK.value, Outcome.PLANNED.value)
# How a run ends that left something to do for which nobody has to decide first.
_LEFT = (Outcome.STOPPED.value, Outcome.RETRY.value, Outcome.PARTIAL.value)
_STATEMENT_MS = 10_000


@dataclass(frozen=True)
class Routine:
    """`task` has work when rows of `table` are over `keep_days` or `keep_months` that were not when it last ran well.

    Without a table, when it did not run well for `every_hours`.
    """

    task: str
    table: str = ""
    timestamp: str = ""
    keep_days: int = 0
    keep_months: int = 0
    every_hours: int = 0

    def __post_init__(self) -> None:
        if sum(map(bool, (self.keep_days, self.keep_months, self.every_hours))) != 1:
            raise ValueError(f"routine {self.task}: expected one of keep_days, keep_months and every_hours")
        if bool(self.table and self.timestamp) == bool(self.every_hours):
            raise ValueError(f"routine {self.task}: table and timestamp go with keep_days or keep_months")

    def cutoff(self, now: datetime) -> datetime:
        """Rows before this moment are due."""
        return months_before(now, self.keep_months) if self.keep_months else now - timedelta(days=self.keep_days)


def work(connection: Connection, routine: Routine, now: datetime) -> str:
    """Why the routine should run at `now`; empty when it need not, or is at it."""
    runs = select(task_run.c.outcome, task_run.c.started_at).where(task_run.c.task == routine.task)
    latest = connection.execute(runs.order_by(task_run.c.started_at.desc()).limit(1)).one_or_none()
    if latest is not None and latest.outcome is None:
        return "" if ledger.holder(connection, routine.task) else "its last run was broken off"
    if latest is not None and latest.outcome in _LEFT:
        return "its last run left something to do"
    good = runs.where(task_run.c.outcome.in_(_GOOD)).order_by(task_run.c.started_at.desc()).limit(1)
    done = connection.execute(good).one_or_none()
    if routine.every_hours:
        late = done is None or now - done.started_at >= timedelta(hours=routine.every_hours)
        return f"no good run for {routine.every_hours} hours" if late else ""
    schema, _, name = routine.table.rpartition(".")
    stamp: ColumnClause[datetime] = column(routine.timestamp)
    due = select(literal(1)).select_from(table(name, stamp, schema=schema or None)).where(stamp < routine.cutoff(now))
    if done is not None:  # what was due then and stayed, stayed for a reason: the daily run looks at it again
        due = due.where(stamp >= routine.cutoff(done.started_at))
    return f"rows of {routine.table} fell due" if connection.execute(select(exists(due))).scalar_one() else ""


def start(ctx: Context, routines: tuple[Routine, ...]) -> dict[str, int]:
    """Start those that have work, each as a run of its own; counts `started` and `idle`.

    Raises Partial naming those that could not be started.
    """
    failed: list[str] = []
    ctx.count("started", 0)
    for routine in routines:
        ctx.check()
        with ctx.read(statement_timeout_ms=_STATEMENT_MS) as connection:
            why = work(connection, routine, ctx.now)
        if not why:
            ctx.count("idle")
            continue
        try:
            ctx.start(routine.task, f"cleanup: {why}")
        except (Retry, Unavailable) as error:
            failed.append(f"{routine.task}: {error}")
        else:
            ctx.count("started")
            ctx.log.info("started a routine", routine=routine.task, why=why)
    with ctx.begin():
        pass  # the counts of what needed no other writing
    if failed:
        raise Partial(failed, {})
    return ctx.counts
