"""Execute one call of a task: guard, ledger row, lease, heartbeat, the task's own `run`, ending.

The order is the promise: nothing is done before the lease is ours, and whatever ends the run - also a defect or
a dead database - becomes one of the eleven outcomes in words. Killed anywhere, the next start takes over.
"""

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from shared import ledger, logs, pauses, plans
from shared.call import Call, Reply
from shared.clock import Clock, rfc3339
from shared.context import Context, Planned
from shared.database import Database
from shared.endings import Ended, ended
from shared.errors import (
    OUTCOMES,
    ConfigurationError,
    Ending,
    LeaseLost,
    Outcome,
    Partial,
    Refused,
    Stopped,
    flat_counts,
)
from shared.guard import check_stamp, check_version
from shared.heartbeat import beating
from shared.logs import log
from shared.manifest import Task
from shared.params import build, resolve
from shared.result import Result
from shared.schema import plan as plan_table
from shared.schema import run_request
from shared.settings import Settings
from shared.stopping import process_stopping
from shared.strict_yaml import ManifestError

Body = Callable[[Context, Any], Mapping[str, int] | None]

# Invokes a task for a run request that is committed already.
Starter = Callable[[str, uuid.UUID], None]

# What a task does when its run could not even be opened, the ledger being out of reach.
Unreached = Callable[[Settings, Clock, Any, Ended], Reply | None]

# Seconds between looks at a lease that is about to become free, and between tries to write a run's ending.
_LOOK_S = 0.5
_FINISH_AGAIN_S = (1.0, 4.0)


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
        starter: Starter,
        unreached: Unreached | None = None,
    ) -> None:
        """Raises ManifestError when the task's params do not fit `params_type`."""
        self.task, self.settings, self.clock = task, settings, clock
        self._body, self._params_type, self._starter = body, params_type, starter
        self._unreached = unreached
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
        # Only what task.yaml says is looked up in the environment: an override could name any variable of it.
        plain = {**resolve(self.task.params, self.settings.environ, where), **overrides}
        return build(self._params_type, plain, where), plain

    def database(self) -> Database:
        """This task's database, opened once a process. Raises ConfigurationError."""
        with self._lock:
            if self._database is None:
                in_pool = self.task.run.connections - 1  # what runs outside transactions has a connection of its own
                self._database = Database(self.settings, self.task.name, pool_size=in_pool)
            return self._database

    def close(self) -> None:
        """Close the database's connections."""
        if self._database is not None:
            self._database.close()

    # --- the protocol

    def execute(self, call: Call) -> Result:
        """Run `call` to its ending; never raises for what happens in the run."""
        started, began = self.clock.now(), self.clock.monotonic()
        with logs.fields(task=self.task.name, trigger=call.trigger, run_key=call.run_key):
            try:
                if self.settings.paused and not self.task.for_operators:
                    raise _paused(call, self.settings.paused)
                database = self.database()
                self._guard(database)
                call = self._complete(database, call)
                result = self._leased(database, call, started, began)
            except (Exception, KeyboardInterrupt) as error:  # nothing a start meets may leave it without an outcome
                how = _ending(error, call)
                reply = self._say_unreached(how)
                result = Result(self.task.name, how.outcome, error=how.error, started_at=started, reply=reply)
            result = replace(result, finished_at=result.finished_at or self.clock.now())
            self._say(result)
            return result

    def _say_unreached(self, how: Ended) -> Reply | None:
        """Let the tasks that people look at say that they cannot; a pause is nothing to be said."""
        if self._unreached is None or how.outcome in (Outcome.STOPPED, Outcome.BUSY):
            return None
        try:
            return self._unreached(self.settings, self.clock, self._params({})[0], how)
        except Exception as error:  # the ending it was to tell of must still be answered
            log.defect("nobody could be told that the ledger is out of reach", error)
            return None

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
        with database.transaction(read_only=True) as connection:
            row = connection.execute(
                select(run_request).where(run_request.c.request_id == uuid.UUID(call.run_key))
            ).one_or_none()
        if row is None or row.task != self.task.name:
            raise Refused(f"there is no request {call.run_key} for {self.task.name}: use `keeper run {self.task.name}`")
        if row.cancelled_at is not None:
            raise Refused(f"request {call.run_key} was cancelled")
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
        if self.task.lock is None and call.brought:
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

    def _patience(self, call: Call, started: datetime) -> float:
        """Seconds to wait for a lease that another run holds.

        A minute's run waits for the minute before, whose last tick may take long, as long as it has ticks left
        itself. A job's index that is tried again knows that the try before is dead: it waits until its lease is.
        """
        if call.tick_s is not None and call.scheduled_for is not None:
            return (call.scheduled_for + timedelta(minutes=1) - started).total_seconds()
        return ledger.LEASE_S + 1 if self.settings.tried_before else 0.0

    def _leased(self, database: Database, call: Call, started: datetime, began: float) -> Result:
        key, until = self._key(call), began + self._patience(call, started)
        while True:
            wait = self.clock.monotonic() < until and not process_stopping.is_set()
            if (opened := self._open(database, call, key, started, wait=wait)) is not None:
                break
            self.clock.sleep(_LOOK_S)
        if isinstance(opened, ledger.Held):
            return Result(
                self.task.name,
                Outcome.BUSY if call.brought else Outcome.SKIPPED,
                run_id=None if call.brought else opened.run_id,
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
            return self._attempt(database, call, opened, started, began)

    def _open(
        self, database: Database, call: Call, key: ledger.Key, started: datetime, *, wait: bool
    ) -> ledger.Opened | ledger.Held | ledger.Done | None:
        """Open the run; None when its lease is held by one that is worth waiting for."""
        with database.transaction() as connection:
            if not self.task.for_operators and (stops := pauses.in_force(connection, self.clock.now(), self.task.name)):
                raise _paused(call, f"{stops[0].reason} (by {stops[0].paused_by})")
            # Nothing is written while waiting: the minute's row is written by whoever gets the lease in the end.
            if wait and self._worth_waiting(ledger.holder(connection, key.scope), call):
                return None
            opened = ledger.open_run(connection, key, now=started)
            if isinstance(opened, ledger.Held):
                ledger.give_way(connection, opened, message=call.brought, now=self.clock.now())
            elif isinstance(opened, ledger.Opened) and call.trigger == "hand":
                self._claim(connection, call)
            return opened

    def _worth_waiting(self, holder: str | None, call: Call) -> bool:
        """Whether a start should wait for `holder`; a slot delivered twice need not wait for itself."""
        return holder is not None and (self.settings.tried_before or holder != call.run_key)

    def _claim(self, connection: Connection, call: Call) -> None:
        connection.execute(
            run_request.update()
            .where(run_request.c.request_id == uuid.UUID(call.run_key), run_request.c.claimed_at.is_(None))
            .values(claimed_at=self.clock.now())
        )

    def _attempt(
        self, database: Database, call: Call, opened: ledger.Opened, started: datetime, began: float
    ) -> Result:
        context: Context | None = None
        plan: plans.Plan | None = None
        how = Ended(Outcome.OK)
        try:
            params, plain = self._params(call.overrides)
            context = Context(
                task=self.task,
                call=call,
                opened=opened,
                database=database,
                settings=self.settings,
                clock=self.clock,
                now=self._moment(database, call, opened),
                deadline=began + _limit(self.task),
                params=plain,
                code_version=self._code_version,
                starter=self._starter,
            )
            with beating(database, context, opened.fence):
                counts = self._body(context, params)
            if counts is not None:
                context.counts = flat_counts(counts)
        except Planned as planned:
            how, plan = Ended(Outcome.PLANNED), planned.plan
        except (Exception, KeyboardInterrupt) as error:  # whatever a task raises must reach the ledger, not vanish
            how = _ending(error, call)
            if context is not None and isinstance(error, Partial):
                context.counts = {**context.counts, **error.counts}
            if context is not None and how.outcome is Outcome.RETRY and context.stopping:
                # A statement is given no longer than the run has: cut short, it is the deadline that did it.
                how = Ended(Outcome.STOPPED, how.error_class, f"the time was up: {how.error}")
        counts = dict(context.counts) if context else opened.counts
        plan_document, plan_hash = _shown(context, plan)
        if how.outcome is Outcome.PLANNED and plan is not None:
            counts = {**counts, **{f"planned.{unit}": total for unit, total in plan.totals().items()}}
        finished = self.clock.now()
        how = self._finish(database, opened, how, counts=counts, plan_hash=plan_hash, finished=finished)
        return Result(
            self.task.name,
            how.outcome,
            opened.run_id,
            counts,
            plan_document,
            plan_hash,
            how.error,
            started,
            finished,
            context.reply if context and how.outcome is Outcome.OK else None,
        )

    def _finish(
        self,
        database: Database,
        opened: ledger.Opened,
        how: Ended,
        *,
        counts: Mapping[str, int],
        plan_hash: str | None,
        finished: datetime,
    ) -> Ended:
        """Write the ending, again where the ledger was gone for a moment; how the run ended in the end."""
        for pause in (*_FINISH_AGAIN_S, None):
            try:
                with database.transaction() as connection:
                    ledger.finish(
                        connection,
                        opened,
                        outcome=how.outcome,
                        counts=counts,
                        plan_hash=plan_hash,
                        error_class=how.error_class,
                        error=how.error,
                        now=finished,
                    )
                return how
            except LeaseLost as lost:
                log.warning("the lease was taken over; what this attempt did after that was refused")
                return ended(lost)
            except Exception as error:  # the ledger died between the work and its ending: the work is not undone
                lost_ending = ended(error)
                if lost_ending.outcome is not Outcome.RETRY or pause is None:
                    return lost_ending._replace(
                        error=f"the run ended {how.outcome.value}, unwritten: {lost_ending.error}"
                    )
                self.clock.sleep(pause)
        raise AssertionError("the last try returns")

    def _moment(self, database: Database, call: Call, opened: ledger.Opened) -> datetime:
        """The run's `now`: when its first attempt began, or its plan's moment, so that the cutoffs are the same."""
        if call.plan_hash is None:
            return opened.started_at
        with database.transaction(read_only=True) as connection:
            moment = connection.execute(
                select(plan_table.c.as_of).where(plan_table.c.plan_hash == call.plan_hash)
            ).scalar_one_or_none()
        return moment or opened.started_at


def _ending(error: BaseException, call: Call) -> Ended:
    """How `error` ends `call`. A task that refuses a message has put it aside with its reason; what a wrong password
    or a missing right refuses is put aside by nobody, and its key must not be used up."""
    how = ended(error)
    if call.brought and how.outcome is Outcome.REFUSED and not isinstance(error, Refused):
        return how._replace(outcome=Outcome.UNAVAILABLE)
    return how


def _paused(call: Call, reason: str) -> Ending:
    """How a paused start ends: a slot may pass, a message or request must come again."""
    if call.brought:
        return _Busy(f"paused: {reason}")
    return Stopped(f"paused: {reason}")


class _Busy(Ending):
    outcome = Outcome.BUSY


def _limit(task: Task) -> float:
    """Seconds a run may take: a tenth (at most 30 s) of the timeout is kept for the ending."""
    return task.run.timeout_s - min(30.0, task.run.timeout_s * 0.1)


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
