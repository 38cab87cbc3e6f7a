"""What a task's `run(ctx, params)` is given: the time, the database, the world, and the ledger's promises.

`ctx.begin()` is the only way to write: its transaction proves the lease, heeds pause, deadline and SIGTERM, and
carries the run's counts, so that what the ledger says and what was done stand or fall together.
"""

import json
import random
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from shared import audit, holds, ledger, objects, outbox, pauses, plans, secrets
from shared.call import Call, Message, Reply, Request
from shared.clock import Clock
from shared.database import Database
from shared.errors import ConfigurationError, Refused, Stopped, Waiting, flat_counts
from shared.logs import Log, log
from shared.manifest import ANY, Task
from shared.schema import verified_backup
from shared.settings import Settings
from shared.stopping import process_stopping


class Planned(Exception):
    """Ends a run that only plans; the wrapper turns it into the outcome `planned`."""

    def __init__(self, plan: plans.Plan | None) -> None:
        super().__init__("planned")
        self.plan = plan


# How long a process does not ask for a secret again, so that a rotation is noticed; by project and name.
_RECENT_S = 60.0
_recent: dict[tuple[str, str], tuple[float, str]] = {}


class Context:
    """One attempt of one run. Made by the wrapper, used on one thread."""

    now: datetime
    """Aware UTC, fixed for the run: an approved run has its plan's moment, so that its cutoffs are the same."""
    counts: dict[str, int]
    """What was achieved so far, also by killed attempts of this run. Change it through `count`."""

    def __init__(
        self,
        *,
        task: Task,
        call: Call,
        opened: ledger.Opened,
        database: Database,
        settings: Settings,
        clock: Clock,
        now: datetime,
        deadline: float,
        params: Mapping[str, Any],
        code_version: str,
        starter: Callable[[str, uuid.UUID], None],
    ) -> None:
        """`deadline` is on the clock's monotonic scale; `params` are the effective ones, as plain data."""
        self.task = task
        self.run_id = opened.run_id
        self.run_key = call.run_key  # the same for every index of a job
        self.attempt = opened.attempt
        self.actor = call.actor
        self.why = call.why
        self.now = now
        self.clock = clock
        self.random = random.Random(self.run_id.int)  # noqa: S311 - jitter and sampling, not secrets
        self.log: Log = log
        self.message: Message | None = call.message
        self.request: Request | None = call.request
        self.reply: Reply | None = None
        self.counts = dict(opened.counts)
        self.planning = call.planning or (task.destructive and settings.mode == "observe")
        self.shard = call.shard
        self.lease_lost = threading.Event()
        self.done: int | None = None
        self.total: int | None = None
        self.proposal: plans.Proposal | None = None
        self.plan_hash = call.plan_hash  # of the plan this run was asked to do, if it was
        self._call = call
        self._opened = opened
        self._database = database
        self._settings = settings
        self._deadline = deadline
        self._params = params
        self._code_version = code_version
        self._starter = starter
        self._authorized = False
        self._asked: uuid.UUID | None = None
        self._secrets: secrets.Secrets | None = None
        self._ticked = False

    # --- time and stopping

    def time_left(self) -> float:
        """Seconds until this run must end."""
        return max(0.0, self._deadline - self.clock.monotonic())

    @property
    def stopping(self) -> bool:
        """Whether to end now: the deadline came, SIGTERM came, or the lease is lost. Progress is kept."""
        return process_stopping.is_set() or self.lease_lost.is_set() or self.time_left() <= 0

    def check(self) -> None:
        """End the run where `stopping` says so. Raises Stopped."""
        if self.lease_lost.is_set():
            raise Stopped("the lease was lost")
        if process_stopping.is_set():
            raise Stopped("the process was asked to stop")
        if self.time_left() <= 0:
            raise Stopped("the time was up; the next run goes on")

    def tick(self, rung: Callable[[float], bool] | None = None) -> bool:
        """Wait for the next tick of an `every` run; False when its minute is over or it must stop.

        `rung` waits at most so many seconds, and says whether somebody rang meanwhile: that is a tick as well, up to
        the minute's very end.
        Ticks are aligned to the minute; one that was missed because the work took longer is not made up for. By
        hand, or for a minute long past, there is exactly one tick.
        """
        step, slot = self._call.tick_s, self._call.scheduled_for
        now = self.clock.now()
        first, self._ticked = not self._ticked, True
        if step is None or slot is None or (first and now >= slot):
            return first and not self.stopping
        # Scheduler's clock may be a little ahead of ours: then the first tick is still to come, at the slot itself.
        due = slot + timedelta(seconds=step * (int((now - slot).total_seconds() // step) + 1))
        over = due >= slot + timedelta(minutes=1)
        if over and rung is None:
            return False
        while (wait := (due - self.clock.now()).total_seconds()) > 0 and not self.stopping:
            if rung is None:
                self.clock.sleep(min(wait, 0.5))
            elif rung(min(wait, 0.5)):
                return not self.stopping
        return not over and not self.stopping

    # --- the database

    @property
    def _name(self) -> str:
        return f"{self.task.name}/{str(self.run_id)[:8]}"

    @contextmanager
    def begin(self, *, lock_timeout_ms: int = 2000, statement_timeout_ms: int = 60_000) -> Iterator[Connection]:
        """A transaction to write in. Raises Stopped (deadline, SIGTERM, pause), LeaseLost, or ends a planning run.

        Inside it a destructive task's `holds.in_force(connection, now)` is exact: a hold that is being placed waits
        for this transaction to end, and every later one sees it.
        """
        self.check()
        if self.planning:
            raise Planned(self.proposal.plan if self.proposal else None)
        if self.task.destructive and not self._authorized:
            raise RuntimeError(f"{self.task.name} is destructive and wrote before ctx.authorize(plan)")
        with self._guarded(lock_timeout_ms, statement_timeout_ms) as connection:
            yield connection

    def _limited(self, timeout_ms: int) -> int:
        """`timeout_ms`, or what is left of the run if that is less: no statement outlives the deadline."""
        return max(1, min(timeout_ms, int(self.time_left() * 1000)))

    @contextmanager
    def _guarded(self, lock_timeout_ms: int = 2000, statement_timeout_ms: int = 60_000) -> Iterator[Connection]:
        before = dict(self.counts)
        try:
            with self._database.transaction(
                lock_timeout_ms=lock_timeout_ms,
                name=self._name,
                statement_timeout_ms=self._limited(statement_timeout_ms),
            ) as connection:
                ledger.check_fence(connection, self._opened.fence)
                if self.task.destructive:
                    holds.keep_out(connection)
                if not self.task.for_operators and (
                    stops := pauses.in_force(connection, self.clock.now(), self.task.name)
                ):
                    raise Stopped(f"paused by {stops[0].paused_by}: {stops[0].reason}")
                yield connection
                if self.counts != before:
                    ledger.keep_counts(connection, self.run_id, self.counts)
        except BaseException:
            self.counts = before  # what was rolled back was not achieved
            raise

    @contextmanager
    def read(self, *, statement_timeout_ms: int = 60_000) -> Iterator[Connection]:
        """A transaction that can only read."""
        with self._database.transaction(
            read_only=True, name=self._name, statement_timeout_ms=self._limited(statement_timeout_ms)
        ) as connection:
            yield connection

    @contextmanager
    def autocommit(self, *, lock_timeout_ms: int = 2000, statement_timeout_ms: int = 600_000) -> Iterator[Connection]:
        """A connection outside transactions, for statements that refuse one. The lease is proven just before."""
        with self.begin():
            pass
        with self._database.autocommit(
            lock_timeout_ms=lock_timeout_ms, statement_timeout_ms=self._limited(statement_timeout_ms), name=self._name
        ) as connection:
            yield connection

    @contextmanager
    def scratch(self, tables: str, *, statement_timeout_ms: int = 600_000) -> Iterator[Connection]:
        """A connection outside transactions with temporary `tables` (SQL that makes them). All else it can only read,
        so that a plan may use it as well."""
        timeout = self._limited(statement_timeout_ms)
        with self._database.autocommit(statement_timeout_ms=timeout, name=self._name) as connection:
            connection.exec_driver_sql(tables)
            connection.exec_driver_sql("set default_transaction_read_only = on")
            yield connection

    def program_environment(self, folder: Path) -> dict[str, str]:
        """Variables with which pg_dump and its like reach the run's database; see `Database`."""
        return self._database.program_environment(folder)

    def count(self, name: str, by: int = 1) -> None:
        """Add to the run's counts; written with the transaction under way, or with the next one."""
        self.counts = flat_counts({**self.counts, name: self.counts.get(name, 0) + by})

    def progress(self, done: int, total: int | None) -> None:
        """Say how far the run is, in items; shown with its next heartbeat."""
        self.done, self.total = done, total

    # --- plans

    def authorize(self, plan: plans.Plan) -> None:
        """Return when the run may act on `plan`; end it as planned, or refused with the plan kept, where it may not.

        The ceiling is the plan's own when the run was asked for by a plan's hash, else the task's caps. Above it
        an approval is opened and the run is refused before its first write.
        """
        wanted, plan_hash = self._store(plan, self.task.caps)
        self._backup_gate()
        if over := self._over(wanted):
            self._ask(plan, f"above the cap: {', '.join(over)}")
            raise Refused(
                f"the run would touch {', '.join(over)}: look at the plan and decide with "
                f"`keeper approvals approve {self._asked}`"
            )
        if wanted and self._above_caps(wanted.ceiling):
            self._spend(plan_hash)
        self._authorized = True

    def await_approval(self, plan: plans.Plan, reason: str) -> None:
        """For what is never done unasked: return in the run that an operator allowed to do exactly `plan`. In any
        other the plan is kept with an open approval for `reason`, and the run ends as waiting."""
        wanted, plan_hash = self._store(plan, plan.totals())
        if wanted is None:
            self._ask(plan, reason)
            raise Waiting(f"{reason}: look at the plan and decide with `keeper approvals approve {self._asked}`")
        self._over(wanted)
        self._spend(plan_hash)
        self._authorized = True

    def _store(self, plan: plans.Plan, ceiling: Mapping[str, int]) -> tuple[plans.StoredPlan | None, str]:
        """Keep what is proposed; the plan this run was asked to do, if any, and the proposal's hash.

        Ends a planning run, and one whose plan is not the one asked for any more.
        """
        with self._guarded() as connection:
            wanted = plans.stored(connection, self._call.plan_hash) if self._call.plan_hash else None
            self.proposal = self._propose(plan, wanted.ceiling if wanted else ceiling)
            plan_hash = plans.store(connection, self.proposal, run_id=self.run_id, now=self.clock.now())
        if self.planning:
            raise Planned(plan)
        if wanted and plan_hash != wanted.plan_hash:
            raise Refused(
                f"the plan {wanted.plan_hash[:12]}… no longer holds (parameters or code changed since): "
                f"plan again with `keeper run {self.task.name} --plan`"
            )
        return wanted, plan_hash

    def _over(self, wanted: plans.StoredPlan | None) -> list[str]:
        """What the run would touch above its ceiling. Raises Refused where its plan has set it."""
        over = self.proposal.over() if self.proposal else []
        if over and wanted:
            raise Refused(f"the run would touch {', '.join(over)} by now: above what its plan asked for")
        return over

    def _spend(self, plan_hash: str) -> None:
        """Use the plan's approval up. Raises Refused when it has none that is unused."""
        with self._guarded() as connection:
            if not plans.use(connection, plan_hash=plan_hash, run_id=self.run_id, now=self.clock.now()):
                raise Refused(
                    f"the plan {plan_hash[:12]}… is more than may be done unasked and has no unused approval: "
                    "`keeper approvals list`"
                )

    def _propose(self, plan: plans.Plan, ceiling: Mapping[str, int]) -> plans.Proposal:
        return plans.Proposal(
            task=self.task.name,
            code_version=self._code_version,
            params=self._params,
            overrides=self._call.overrides,
            as_of=self.now,
            ceiling=ceiling,
            plan=plan,
        )

    def _above_caps(self, ceiling: Mapping[str, int]) -> bool:
        return any(ceiling.get(unit, 0) > cap for unit, cap in self.task.caps.items())

    def _ask(self, plan: plans.Plan, reason: str) -> None:
        """Open an approval of exactly this plan."""
        totals = plan.totals()
        caps = self.task.caps or totals
        self.proposal = self._propose(plan, {unit: max(cap, totals.get(unit, 0)) for unit, cap in caps.items()})
        with self._guarded() as connection:
            plan_hash = plans.store(connection, self.proposal, run_id=self.run_id, now=self.clock.now())
            self._asked = plans.ask(
                connection,
                task=self.task.name,
                plan_hash=plan_hash,
                by=self.actor,
                reason=reason,
                now=self.clock.now(),
            )

    def _backup_gate(self) -> None:
        gate = self._settings.backup_gate
        if gate is None:
            return
        with self.read() as connection:
            newest = connection.execute(
                select(func.max(verified_backup.c.taken_at)).where(verified_backup.c.verified_at <= self.clock.now())
            ).scalar_one()
        if newest is not None and self.clock.now() - newest <= gate:
            return
        age = "none is known" if newest is None else f"the newest is of {newest.isoformat()}"
        if not self._call.break_glass:
            raise Refused(
                f"no verified backup younger than {gate.total_seconds() / 3600:.0f} hours ({age}): run "
                "backup_database and verify_backup, or break the glass with a reason"
            )
        with self._guarded() as connection:
            audit.record(
                connection,
                actor=self.actor,
                action="break_glass",
                subject=self.task.name,
                why=self.why,
                now=self.clock.now(),
                details={"run_id": str(self.run_id), "backup": age},
            )
        self.log.warning("backup gate broken by hand", backup=age)

    def holds(self) -> list[holds.Hold]:
        """The legal holds in force now; read again before each batch, since one may be placed meanwhile."""
        with self.read() as connection:
            return holds.in_force(connection, self.clock.now())

    # --- the world

    @property
    def settings(self) -> Settings:
        """This process's configuration, for the core's services that take it (shared/identity.py, say)."""
        return self._settings

    def place(self, place: str) -> objects.Objects:
        """What an operator's parameter names: a logical bucket this task declares (`_` is `-` in it), or a location.

        Raises ConfigurationError where nobody said where the bucket is, or where what is put there would not last.
        """
        bucket = place.replace("_", "-")
        if bucket in {b.bucket for b in self.task.buckets}:
            place = bucket
        elif "/" not in place:
            place = f"./{place}"
        found = self.objects(place)
        if self._settings.in_cloud and not found.location.startswith("gs://"):
            raise ConfigurationError(
                f"{place} is a folder, and a folder in the cloud is the instance's memory: give gs://bucket/prefix"
            )
        return found

    def objects(self, place: str) -> objects.Objects:
        """The objects of a logical bucket this task declares, or at a location (gs://… or a folder with a /)."""
        if "/" in place:
            return objects.at(place)
        if place not in {b.bucket for b in self.task.buckets}:
            raise RuntimeError(f"{self.task.name} uses bucket {place!r} but its task.yaml does not name it")
        return objects.at(self._settings.bucket(place))

    def secret(self, name: str, version: str = "latest") -> str:
        """The secret's value. Raises Unavailable when it has none, RuntimeError when task.yaml does not name it."""
        return self.secret_versions(name).get(version)

    def recent_secret(self, name: str) -> str:
        """As `secret`, in the cloud at most a minute old: for endpoints, where asking takes longer than the rest."""
        if not self._settings.in_cloud:
            return self.secret(name)
        kept = _recent.get((self._settings.project, name))
        if kept is None or self.clock.monotonic() - kept[0] >= _RECENT_S:
            kept = _recent[self._settings.project, name] = self.clock.monotonic(), self.secret(name)
        return kept[1]

    def secret_versions(self, name: str) -> secrets.Secret:
        """The secret with its versions, for a task that rotates it. Raises as `secret` does."""
        if name not in self.task.secrets:
            raise RuntimeError(f"{self.task.name} reads secret {name!r} but its task.yaml does not name it")
        self._secrets = self._secrets or secrets.store(self._settings)
        return secrets.Secret(name, self._secrets)

    def publish(
        self,
        connection: Connection,
        *,
        topic: str,
        kind: str,
        data: dict[str, Any],
        account_id: str | None = None,
        ordering_key: str | None = None,
        event_id: uuid.UUID | None = None,
    ) -> uuid.UUID:
        """Publish an event with the caller's transaction; outbox_relay sends it. The event's id.

        Raises RuntimeError when task.yaml does not name the topic.
        """
        if topic not in self.task.publishes:
            raise RuntimeError(f"{self.task.name} publishes to {topic!r} but its task.yaml does not name it")
        return outbox.publish(
            connection,
            topic=topic,
            kind=kind,
            data=data,
            now=self.clock.now(),
            account_id=account_id,
            ordering_key=ordering_key,
            event_id=event_id,
        )

    def start(
        self,
        task: str,
        reason: str,
        *,
        params: Mapping[str, Any] | None = None,
        actor: str | None = None,
        planning: bool = False,
        plan_hash: str | None = None,
        break_glass: bool = False,
    ) -> uuid.UUID:
        """Start another task as a run of its own, with its own lease and row; the request's id.

        The same task for the same reason with the same parameters is one request of this run: an attempt that goes
        on after a kill does not start it a second time. `actor` is the operator who asked, where one did; with
        `planning` it only shows what it would do, with `plan_hash` it does exactly that plan.
        """
        if not {task, ANY} & set(self.task.starts):
            raise RuntimeError(f"{self.task.name} starts {task!r} but its task.yaml does not name it under starts")
        asked = json.dumps([task, reason, params, planning, plan_hash], sort_keys=True, default=str)
        with self.begin() as connection:
            request_id = plans.request_run(
                connection,
                task=task,
                actor=actor or self.task.name,
                why=reason,
                params=params,
                planning=planning,
                plan_hash=plan_hash,
                break_glass=break_glass,
                now=self.clock.now(),
                request_id=uuid.uuid5(self.run_id, asked),
            )
        self._starter(task, request_id)
        return request_id

    def respond(
        self,
        status: int,
        body: bytes,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """What an endpoint answers instead of the run's JSON, when the run ends well."""
        self.reply = Reply(status, body, {"Content-Type": content_type, **(headers or {})})
