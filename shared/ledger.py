"""The ledger's protocol: one row a run, a lease with a fence, and nothing written by a zombie.

An attempt holds the lease of its scope while `ended_at` is null; a partial unique index makes it the only one.
It proves itself alive by `heartbeat_at` (the database's clock: the only use of it). One whose heartbeat is older
than its lease is taken over: its attempt is ended and a new one, with a higher fence, begins. Whoever writes
takes `for key share` on its attempt in the same transaction: a taken-over attempt finds none and stops; a take-over
or a cancellation waits for a transaction under way. (A heartbeat changes no key column, so it never waits for
either; who only asks whether the lease is held takes no lock, so a start never waits for a run at work.)
"""

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, text

from shared import audit
from shared.errors import OUTCOMES, LeaseLost, Outcome

LEASE_S = 60
HEARTBEAT_S = 15


class Key(NamedTuple):
    """What makes two deliveries the same run, and how it was started."""

    task: str
    run_key: str
    shard: int
    trigger: str
    scheduled_for: datetime | None
    actor: str
    why: str | None
    scope: str  # what the lease is on: the task, the run key, or the lock the task declares
    code_version: str


class Opened(NamedTuple):
    """The lease is ours: work may begin. `counts` is what earlier attempts of this run achieved, `started_at` when
    its first one began."""

    run_id: uuid.UUID
    fence: int
    attempt: int
    counts: dict[str, int]
    started_at: datetime
    took_over: uuid.UUID | None


class Held(NamedTuple):
    """Another attempt holds the lease. `fresh`: this call wrote the run's row (nobody else is on this run key)."""

    run_id: uuid.UUID
    by: uuid.UUID
    fresh: bool


class Done(NamedTuple):
    """This run key is used up already, with this outcome."""

    run_id: uuid.UUID
    outcome: Outcome
    counts: dict[str, int]
    plan_hash: str | None
    error: str | None
    started_at: datetime
    finished_at: datetime | None


_INSERT_RUN = text("""
    insert into groundskeeper.task_run
           (run_id, task, run_key, shard, trigger, scheduled_for, actor, why, code_version, started_at)
    values (:run_id, :task, :run_key, :shard, :trigger, :scheduled_for, :actor, :why, :code_version, :now)
        on conflict (task, run_key, shard) do nothing
 returning run_id, outcome, counts, plan_hash, error, started_at, finished_at""")

_LOCK_RUN = text("""
    select run_id, outcome, counts, plan_hash, error, started_at, finished_at
      from groundskeeper.task_run
     where task = :task and run_key = :run_key and shard = :shard
       for update""")

_LIVE = text("""
    select a.fence, a.run_id, r.run_key,
           a.heartbeat_at < clock_timestamp() - make_interval(secs => a.lease_s) as stale
      from groundskeeper.task_attempt a
      join groundskeeper.task_run r on r.run_id = a.run_id
     where a.scope = :scope and a.ended_at is null""")

_LOCK_STALE = text("""
    select fence
      from groundskeeper.task_attempt
     where fence = :fence and ended_at is null
       and heartbeat_at < clock_timestamp() - make_interval(secs => lease_s)
       for update""")

_END_ATTEMPT = text("""
    update groundskeeper.task_attempt set ended_at = clock_timestamp() where fence = :fence and ended_at is null""")

_LOST_RUN = text("""
    update groundskeeper.task_run
       set outcome = 'failed', error_class = 'LeaseExpired', finished_at = :now,
           error = 'the run stopped reporting and was taken over by run ' || cast(:by as text)
     where run_id = :run_id and outcome is null""")

_INSERT_ATTEMPT = text("""
    insert into groundskeeper.task_attempt (run_id, attempt, scope, lease_s, started_at, heartbeat_at)
    select :run_id, 1 + count(*), :scope, :lease_s, clock_timestamp(), clock_timestamp()
      from groundskeeper.task_attempt where run_id = :run_id
        on conflict (scope) where ended_at is null do nothing
 returning fence, attempt""")

_REOPEN_RUN = text("""
    update groundskeeper.task_run
       set outcome = null, error_class = null, error = null, finished_at = null, code_version = :code_version
     where run_id = :run_id and outcome is not null""")

# Asked at each transaction: as a literal it takes one round trip, as a bind pg8000 makes three.
_FENCE = text("""
    select 1 from groundskeeper.task_attempt where fence = :fence and ended_at is null for key share""").bindparams(
    bindparam("fence", type_=BigInteger, literal_execute=True)
)

_HEARTBEAT = text("""
    update groundskeeper.task_attempt
       set heartbeat_at = clock_timestamp(), progress_done = :done, progress_total = :total
     where fence = :fence and ended_at is null""")

_COUNTS = text("update groundskeeper.task_run set counts = cast(:counts as jsonb) where run_id = :run_id")

_FINISH = text("""
    update groundskeeper.task_run
       set outcome = :outcome, counts = cast(:counts as jsonb), plan_hash = coalesce(:plan_hash, plan_hash),
           error_class = :error_class, error = :error, finished_at = :now
     where run_id = :run_id""")


def open_run(connection: Connection, key: Key, *, now: datetime) -> Opened | Held | Done:
    """Take the lease of `key.scope` for the run `key` names, inside the caller's transaction.

    Done: the run key is used up. Held: another attempt is alive; for a schedule's slot the row written now
    says `skipped`, while a message or request leaves no row (it will come again).
    """
    values = {"task": key.task, "run_key": key.run_key, "shard": key.shard}
    run = connection.execute(
        _INSERT_RUN,
        {
            **values,
            "run_id": uuid.uuid4(),
            "trigger": key.trigger,
            "scheduled_for": key.scheduled_for,
            "actor": key.actor,
            "why": key.why,
            "code_version": key.code_version,
            "now": now,
        },
    ).first()
    fresh = run is not None
    run = run or connection.execute(_LOCK_RUN, values).one()
    if run.outcome and OUTCOMES[Outcome(run.outcome)].done:
        return Done(
            run.run_id,
            Outcome(run.outcome),
            run.counts,
            run.plan_hash,
            run.error,
            run.started_at,
            run.finished_at,
        )
    live = connection.execute(_LIVE, {"scope": key.scope}).first()
    # Only a silent attempt is waited for: its last transaction may be under way still, and may bring it back.
    if live and not (live.stale and connection.execute(_LOCK_STALE, {"fence": live.fence}).first()):
        return Held(run.run_id, live.run_id, fresh)
    if live:
        connection.execute(_END_ATTEMPT, {"fence": live.fence})
        if live.run_id != run.run_id:
            connection.execute(_LOST_RUN, {"run_id": live.run_id, "by": str(run.run_id), "now": now})
    attempt = connection.execute(
        _INSERT_ATTEMPT, {"run_id": run.run_id, "scope": key.scope, "lease_s": LEASE_S}
    ).first()
    if attempt is None:  # someone else took the free lease between our look and our insert
        holder = connection.execute(_LIVE, {"scope": key.scope}).first()
        return Held(run.run_id, holder.run_id if holder else run.run_id, fresh)
    if not fresh:
        connection.execute(_REOPEN_RUN, {"run_id": run.run_id, "code_version": key.code_version})
    return Opened(
        run.run_id, attempt.fence, attempt.attempt, dict(run.counts), run.started_at, live.run_id if live else None
    )


def holder(connection: Connection, scope: str) -> str | None:
    """The run key of the run at work on `scope`, or None when its lease is free or may be taken over."""
    live = connection.execute(_LIVE, {"scope": scope}).first()
    return str(live.run_key) if live and not live.stale else None


def give_way(connection: Connection, held: Held, *, message: bool, now: datetime) -> None:
    """Record that a run did not start because the lease was held; see `open_run`."""
    if not held.fresh:
        return
    if message:
        connection.execute(
            text("delete from groundskeeper.task_run where run_id = :run_id and outcome is null"),
            {"run_id": held.run_id},
        )
    else:
        connection.execute(
            text("""
            update groundskeeper.task_run
               set outcome = 'skipped', finished_at = :now,
                   error = 'run ' || cast(:by as text) || ' was still at work'
             where run_id = :run_id and outcome is null"""),
            {"run_id": held.run_id, "by": str(held.by), "now": now},
        )


def check_fence(connection: Connection, fence: int) -> None:
    """Prove inside the caller's transaction that its attempt still holds the lease. Raises LeaseLost."""
    if connection.execute(_FENCE, {"fence": fence}).first() is None:
        raise LeaseLost(f"the lease of attempt {fence} was taken over: nothing more may be written")


def heartbeat(connection: Connection, fence: int, *, done: int | None, total: int | None) -> bool:
    """Say that the attempt lives, and how far it is. False when its lease is lost."""
    return bool(connection.execute(_HEARTBEAT, {"fence": fence, "done": done, "total": total}).rowcount)


def keep_counts(connection: Connection, run_id: uuid.UUID, counts: Mapping[str, int]) -> None:
    """Write what the run achieved so far, in the transaction that achieves it."""
    connection.execute(_COUNTS, {"run_id": run_id, "counts": _json(counts)})


def finish(
    connection: Connection,
    opened: Opened,
    *,
    outcome: Outcome,
    counts: Mapping[str, int],
    plan_hash: str | None,
    error_class: str | None,
    error: str | None,
    now: datetime,
) -> None:
    """Write the run's ending and give the lease back. Raises LeaseLost when it is ours no more."""
    if not connection.execute(_END_ATTEMPT, {"fence": opened.fence}).rowcount:
        raise LeaseLost(f"the lease of attempt {opened.fence} was taken over before the run could say its ending")
    connection.execute(
        _FINISH,
        {
            "run_id": opened.run_id,
            "outcome": outcome.value,
            "counts": _json(counts),
            "plan_hash": plan_hash,
            "error_class": error_class,
            "error": error,
            "now": now,
        },
    )


def cancel(connection: Connection, run_id: uuid.UUID, *, by: str, now: datetime) -> bool:
    """Take a running run's lease away: once this is committed it writes nothing more. False: not running.

    A transaction of the run that is under way is waited for, as long as the connection's lock timeout. A request
    by hand does not come again.
    """
    attempts = connection.execute(
        text("""
        select fence from groundskeeper.task_attempt
         where run_id = :run_id and ended_at is null
           for update"""),
        {"run_id": run_id},
    ).all()
    for attempt in attempts:
        connection.execute(_END_ATTEMPT, {"fence": attempt.fence})
    run = connection.execute(
        text("""
        update groundskeeper.task_run
           set outcome = 'stopped', finished_at = :now, error = 'cancelled: the operators'' audit says by whom'
         where run_id = :run_id and outcome is null
     returning run_key, trigger"""),
        {"run_id": run_id, "now": now},
    ).first()
    if run is not None and run.trigger == "hand":
        connection.execute(
            text("update groundskeeper.run_request set cancelled_at = :now where request_id = cast(:key as uuid)"),
            {"key": run.run_key, "now": now},
        )
    if run is not None:
        audit.record(connection, actor=by, action="cancel", subject=str(run_id), why=None, now=now)
    return run is not None


def _json(counts: Mapping[str, int]) -> str:
    return json.dumps(dict(sorted(counts.items())))
