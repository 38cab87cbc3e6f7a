"""Execute one call of a task: guard, ledger row, lease, heartbeat, the task's own `run`, ending.

The order is the promise: nothing is done before the lease is ours, and whatever ends the run - also a defect or
a dead database - becomes one of the eleven outcomes in words. Killed anywhere, the next start takes over.
"""

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from shared import ledger, logs, pauses, plans
from shared.call import BadCall, Call
from shared.clock import Clock, rfc3339
from shared.context import Context, Planned
from shared.database import Database, ending_of
from shared.errors import OUTCOMES, ConfigurationError, Ending, LeaseLost, Outcome, Partial, Refused, Stopped
from shared.guard import check_stamp, check_version
from shared.logs import log
from shared.manifest import Task
from shared.params import build, resolve
from shared.redaction import describe, redact
from shared.result import Result
from shared.schema import plan as plan_table
from shared.schema import run_request
from shared.settings import Settings
from shared.strict_yaml import ManifestError

Body = Callable[[Context, Any], Mapping[str, int] | None]


class Runner:
    """Executes the calls of one task in this process; its database pool and its checks outlive a call."""

    def __init__(
        self,
        task: Task,
        body: Body,
        params_type: type,
        code_version: str,
        settings: Settings,
        clock: Clock,
        starter: Callable[[str, uuid.UUID], None],
    ) -> None:
        """Raises ManifestError when the task's params do not fit `params_type`."""
        self.task, self.settings, self.clock = task, settings, clock
        self._body, self._params_type, self._starter = body, params_type, starter
        self._code_version = code_version
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._checked = False
        self._params({})

    def _params(self, overrides: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        where = f"functions/{self.task.name}/task.yaml.params"
        unknown = set(overrides) - set(self.task.params)
        if unknown:
            raise ManifestError(
                f"{where}: no parameter {', '.join(sorted(unknown))}: known are "
                f"{', '.join(sorted(self.task.params)) or 'none'}"
            )
        plain = resolve({**self.task.params, **overrides}, self.settings.environ, where)
        return build(self._params_type, plain, where), plain

    def database(self) -> Database:
        """This task's database, opened once a process. Raises ConfigurationError."""
        with self._lock:
            if self._database is None:
                self._database = Database(self.settings, self.task.name)
            return self._database

    def close(self) -> None:
        """Close the database's connections."""
        if self._database is not None:
            self._database.close()

    # --- the protocol

    def execute(self, call: Call) -> Result:
        """Run `call` to its ending; never raises for what happens in the run."""
        started = self.clock.now()
        with logs.fields(task=self.task.name, trigger=call.trigger, run_key=call.run_key):
            try:
                if self.settings.paused:
                    raise _paused(call, self.settings.paused)
                database = self.database()
                self._guard(database)
                call = self._complete(database, call)
                result = self._leased(database, call, started)
            except Ending as ending:
                result = Result(self.task.name, ending.outcome, error=redact(str(ending)), started_at=started)
            except (ConfigurationError, ManifestError, BadCall) as error:
                result = Result(self.task.name, Outcome.REFUSED, error=redact(str(error)), started_at=started)
            except DBAPIError as error:
                meant = ending_of(error)
                if meant is None:
                    log.defect("the ledger failed", error)
                result = Result(
                    self.task.name,
                    meant.outcome if meant else Outcome.FAILED,
                    error=str(meant) if meant else describe(error),
                    started_at=started,
                )
            result = replace(result, finished_at=result.finished_at or self.clock.now())
            self._say(result)
            return result

    def _say(self, result: Result) -> None:
        meaning = OUTCOMES[result.outcome]
        seconds = (
            (result.finished_at - result.started_at).total_seconds()
            if result.finished_at and result.started_at
            else None
        )
        said = log.error if result.outcome is Outcome.FAILED else log.warning if meaning.alert else log.info
        said(
            "run ended",
            outcome=result.outcome.value,
            alert=meaning.alert,
            counts=dict(result.counts),
            error=result.error,
            seconds=seconds,
            run_id=str(result.run_id) if result.run_id else None,
        )

    def _guard(self, database: Database) -> None:
        """Refuse a database that is not this environment's, once a process."""
        with self._lock:
            if self._checked:
                return
            if database.pooled_by_transaction():
                raise ConfigurationError(
                    "DATABASE_URL leads through a transaction-mode pooler, where session state "
                    "breaks: give the server's own address or a session-mode port"
                )
            with database.transaction(read_only=True) as connection:
                check_version(connection)
                check_stamp(connection, self.settings)
            self._checked = True

    def _complete(self, database: Database, call: Call) -> Call:
        """A call by hand with what its request says."""
        if call.trigger != "hand":
            return call
        with database.transaction() as connection:
            row = connection.execute(
                select(run_request).where(run_request.c.request_id == uuid.UUID(call.run_key))
            ).one_or_none()
            if row is None or row.task != self.task.name:
                raise Refused(
                    f"there is no request {call.run_key} for {self.task.name}: use `keeper run {self.task.name}`"
                )
            if row.cancelled_at is not None:
                raise Refused(f"request {call.run_key} was cancelled")
            if row.claimed_at is None:
                connection.execute(
                    run_request.update()
                    .where(run_request.c.request_id == row.request_id)
                    .values(claimed_at=self.clock.now())
                )
        return replace(
            call,
            actor=row.actor,
            why=row.why,
            overrides=row.params,
            planning=row.planning,
            plan_hash=row.plan_hash,
            break_glass=row.break_glass,
        )

    def _key(self, call: Call) -> ledger.Key:
        scope = f"lock:{self.task.lock}" if self.task.lock else self.task.name
        if self.task.lock is None and call.trigger in ("topic", "http"):
            scope = f"{self.task.name}/{call.run_key}"
        return ledger.Key(
            task=self.task.name,
            run_key=call.run_key,
            shard=call.shard,
            trigger=call.trigger,
            scheduled_for=call.scheduled_for,
            actor=call.actor,
            why=call.why,
            scope=f"{scope}#{call.shard}" if self.task.run.tasks > 1 else scope,
            code_version=self._code_version,
        )

    def _leased(self, database: Database, call: Call, started: datetime) -> Result:
        message = call.trigger in ("topic", "http")
        patience = self.clock.monotonic() + (min(call.tick_s, 10) if call.tick_s else 0)
        while True:
            with database.transaction() as connection:
                if stops := pauses.in_force(connection, self.clock.now(), self.task.name):
                    raise _paused(call, f"{stops[0].reason} (by {stops[0].paused_by})")
                opened = ledger.open_run(connection, self._key(call), now=started)
                waiting = isinstance(opened, ledger.Held) and self.clock.monotonic() < patience
                if isinstance(opened, ledger.Held) and not waiting:
                    ledger.give_way(connection, opened, message=message, now=self.clock.now())
                elif waiting:
                    connection.rollback()  # the minute's row is written by whoever gets the lease in the end
            if not waiting:
                break
            self.clock.sleep(0.2)  # the minute before is ending: its last tick must not cost this minute its first
        if isinstance(opened, ledger.Held):
            return Result(
                self.task.name,
                Outcome.BUSY if message else Outcome.SKIPPED,
                run_id=None if message else opened.run_id,
                started_at=started,
                error=f"run {opened.by} is at work",
            )
        if isinstance(opened, ledger.Done):
            return Result(
                self.task.name,
                Outcome.SKIPPED,
                opened.run_id,
                opened.counts,
                plan_hash=opened.plan_hash,
                error=f"this run key is done already, with outcome {opened.outcome.value}",
                started_at=opened.started_at,
                finished_at=opened.finished_at,
            )
        with logs.fields(run_id=str(opened.run_id), attempt=opened.attempt):
            if opened.took_over:
                log.warning("took over a lease that had expired", from_run=str(opened.took_over))
            return self._attempt(database, call, opened, started)

    def _attempt(self, database: Database, call: Call, opened: ledger.Opened, started: datetime) -> Result:
        began = self.clock.monotonic()
        context: Context | None = None
        outcome, error_class, error = Outcome.OK, None, None
        plan: plans.Plan | None = None
        stop = threading.Event()
        try:
            params, plain = self._params(call.overrides)
            context = Context(
                task=self.task,
                call=call,
                opened=opened,
                database=database,
                settings=self.settings,
                clock=self.clock,
                now=self._moment(database, call, started),
                deadline=began + _limit(self.task),
                params=plain,
                code_version=self._code_version,
                starter=self._starter,
            )
            beat = threading.Thread(target=_beat, args=(database, context, opened.fence, stop), daemon=True)
            beat.start()
            counts = self._body(context, params)
            if counts is not None:
                context.counts = dict(counts)
        except Planned as planned:
            outcome, plan = Outcome.PLANNED, planned.plan
        except Partial as ending:
            outcome, error_class, error = ending.outcome, "Partial", redact(str(ending))
            if context is not None:
                context.counts = {**context.counts, **ending.counts}
        except Ending as ending:
            outcome, error_class, error = ending.outcome, type(ending).__name__, redact(str(ending))
        except LeaseLost as lost:
            outcome, error_class, error = Outcome.STOPPED, "LeaseLost", str(lost)
        except (ManifestError, ConfigurationError) as refused:
            outcome, error_class, error = Outcome.REFUSED, type(refused).__name__, redact(str(refused))
        except DBAPIError as failure:
            meant = ending_of(failure)
            outcome = meant.outcome if meant else Outcome.FAILED
            error_class, error = type(failure).__name__, str(meant) if meant else describe(failure)
            log.defect("the database refused", failure)
        except Exception as defect:  # whatever a task raises must reach the ledger as its defect, not vanish
            outcome, error_class, error = Outcome.FAILED, type(defect).__name__, describe(defect)
            log.defect("the task has a defect", defect)
        finally:
            stop.set()
        counts = dict(context.counts) if context else opened.counts
        plan_document, plan_hash = _shown(context, plan)
        if outcome is Outcome.PLANNED and plan is not None:
            counts = {**counts, **{f"planned.{unit}": total for unit, total in plan.totals().items()}}
        finished = self.clock.now()
        try:
            with database.transaction() as connection:
                ledger.finish(
                    connection,
                    opened,
                    outcome=outcome,
                    counts=counts,
                    plan_hash=plan_hash,
                    error_class=error_class,
                    error=error,
                    now=finished,
                )
        except LeaseLost as lost:
            log.warning("the lease was taken over; what this attempt did after that was refused")
            outcome, error = Outcome.STOPPED, str(lost)
        return Result(
            self.task.name,
            outcome,
            opened.run_id,
            counts,
            plan_document,
            plan_hash,
            error,
            started,
            finished,
            context.reply if context and outcome is Outcome.OK else None,
        )

    def _moment(self, database: Database, call: Call, started: datetime) -> datetime:
        """The run's `now`: the stored plan's for a run that was asked for by its hash, so its cutoffs are the same."""
        if call.plan_hash is None:
            return started
        with database.transaction(read_only=True) as connection:
            moment = connection.execute(
                select(plan_table.c.as_of).where(plan_table.c.plan_hash == call.plan_hash)
            ).scalar_one_or_none()
        return moment or started


def _paused(call: Call, reason: str) -> Ending:
    """How a paused start ends: a slot may pass, a message or request must come again."""
    if call.trigger in ("topic", "http"):
        return _Busy(f"paused: {reason}")
    return Stopped(f"paused: {reason}")


class _Busy(Ending):
    outcome = Outcome.BUSY


def _limit(task: Task) -> float:
    """Seconds a run may take: a tenth (at most 30 s) of the timeout is kept for the ending."""
    return task.run.timeout_s - min(30.0, task.run.timeout_s * 0.1)


def _beat(database: Database, context: Context, fence: int, stop: threading.Event) -> None:
    """Keep the lease alive; a database that does not answer costs the lease only when it lasts as long as that."""
    silent_since = context.clock.monotonic()
    while not stop.wait(ledger.HEARTBEAT_S):
        try:
            with database.transaction(name=f"{context.task.name}/heartbeat") as connection:
                alive = ledger.heartbeat(connection, fence, done=context.done, total=context.total)
            silent_since = context.clock.monotonic()
        except DBAPIError as error:
            log.warning("heartbeat failed", error=describe(error))
            alive = context.clock.monotonic() - silent_since < ledger.LEASE_S
        if not alive:
            context.lease_lost.set()
            return


def _shown(context: Context | None, plan: plans.Plan | None) -> tuple[dict[str, Any] | None, str | None]:
    """The plan as the run's JSON shows it, and its hash."""
    proposal = context.proposal if context else None
    if proposal is None:
        return None, None
    shown = plan or proposal.plan
    return {
        "as_of": rfc3339(proposal.as_of),
        "ceiling": dict(proposal.ceiling),
        "items": shown.rows(),
        "notes": list(shown.notes),
        "above_cap": proposal.over(),
    }, proposal.hash()
