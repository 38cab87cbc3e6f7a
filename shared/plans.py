"""Plans and approvals: what a destructive run would do, how much it may do unasked, and who allowed more.

A plan's hash covers task, parameters, code version, predicates, the fixed cutoff and the ceiling, never live
counts: the same intention has the same hash however the table grows, and an approval is bound to it.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Text, and_, cast, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from shared import audit
from shared.clock import rfc3339
from shared.errors import Refused
from shared.schema import approval, run_request, task_run
from shared.schema import plan as plan_table
from shared.wording import counted

APPROVAL_LIFETIME = timedelta(hours=24)

# A job starts within minutes of being asked. What still waits after this was never started, and nobody expects it.
REQUEST_LIFETIME = timedelta(hours=1)


@dataclass(frozen=True, order=True)
class Item:
    """One line of a plan: `count` of `unit` in `what`, their size in bytes and oldest moment where known, and why.

    `exact` is False for an estimate (counting took longer than it may).
    """

    what: str
    count: int
    unit: str = "rows"
    why: str = ""
    bytes: int | None = None
    oldest: str | None = None
    exact: bool = True


@dataclass(frozen=True)
class Plan:
    """What a run would do. `predicates` (JSON-able) says by which conditions; `notes` what an operator should know."""

    items: tuple[Item, ...]
    predicates: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def totals(self) -> dict[str, int]:
        """The sum a unit, and `bytes` over all items where sizes are known."""
        sums: dict[str, int] = {}
        for item in self.items:
            sums[item.unit] = sums.get(item.unit, 0) + item.count
            if item.bytes is not None:
                sums["bytes"] = sums.get("bytes", 0) + item.bytes
        return sums

    def rows(self) -> list[dict[str, Any]]:
        """The items as JSON objects, sorted."""
        return [asdict(item) for item in sorted(self.items, key=lambda i: (i.what, i.why))]


@dataclass(frozen=True)
class Proposal:
    """A plan with everything its hash covers."""

    task: str
    code_version: str
    params: Mapping[str, Any]  # the effective parameters
    overrides: Mapping[str, Any]  # those given by hand: an approved run is given them again
    as_of: datetime
    ceiling: Mapping[str, int]
    plan: Plan = field(compare=False)

    def hash(self) -> str:
        """SHA-256 over the canonical JSON of what was intended."""
        intent = {
            "task": self.task,
            "code_version": self.code_version,
            "params": self.params,
            "predicates": self.plan.predicates,
            "as_of": rfc3339(self.as_of),
            "ceiling": dict(self.ceiling),
        }
        text = json.dumps(intent, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def over(self) -> list[str]:
        """The totals above the ceiling, in words."""
        return [
            f"{counted(total, unit)} (at most {self.ceiling[unit]:,})"
            for unit, total in sorted(self.plan.totals().items())
            if unit in self.ceiling and total > self.ceiling[unit]
        ]


class StoredPlan(NamedTuple):
    """A plan as it was stored, for showing and for running exactly it."""

    plan_hash: str
    task: str
    as_of: datetime
    params: dict[str, Any]
    ceiling: dict[str, int]
    items: list[dict[str, Any]]
    code_version: str


class Approval(NamedTuple):
    """An approval, open or decided."""

    approval_id: uuid.UUID
    task: str
    plan_hash: str
    requested_by: str
    reason: str
    requested_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    decision: str | None
    used_by_run: uuid.UUID | None


_STORED = (
    plan_table.c.plan_hash,
    plan_table.c.task,
    plan_table.c.as_of,
    plan_table.c.params,
    plan_table.c.ceiling,
    plan_table.c["items"],
    plan_table.c.code_version,
)
_APPROVAL = (
    approval.c.approval_id,
    approval.c.task,
    approval.c.plan_hash,
    approval.c.requested_by,
    approval.c.reason,
    approval.c.requested_at,
    approval.c.expires_at,
    approval.c.decided_at,
    approval.c.decided_by,
    approval.c.decision,
    approval.c.used_by_run,
)


def store(connection: Connection, proposal: Proposal, *, run_id: uuid.UUID, now: datetime) -> str:
    """Keep the proposal's plan under its hash, which is returned; the same intention again changes nothing."""
    plan_hash = proposal.hash()
    connection.execute(
        insert(plan_table)
        .values(
            plan_hash=plan_hash,
            task=proposal.task,
            run_id=run_id,
            as_of=proposal.as_of,
            params=dict(proposal.overrides),
            ceiling=dict(proposal.ceiling),
            items=proposal.plan.rows(),
            code_version=proposal.code_version,
            created_at=now,
        )
        .on_conflict_do_nothing()
    )
    return plan_hash


def stored(connection: Connection, plan_hash: str) -> StoredPlan:
    """The plan with this hash. Raises Refused when there is none."""
    row = connection.execute(select(*_STORED).where(plan_table.c.plan_hash == plan_hash)).one_or_none()
    if row is None:
        raise Refused(f"there is no plan {plan_hash[:12]}…: make one with `keeper run TASK --plan`")
    return StoredPlan(*row)


def ask(connection: Connection, *, task: str, plan_hash: str, by: str, reason: str, now: datetime) -> uuid.UUID:
    """The open approval of this plan, opened if there is none; its id. One that has expired is closed first."""
    undecided = and_(approval.c.decided_at.is_(None), approval.c.expired_at.is_(None))
    # A task's role may close what expired, and has no right to the columns of a decision.
    connection.execute(
        update(approval)
        .where(approval.c.plan_hash == plan_hash, undecided, approval.c.expires_at <= now)
        .values(expired_at=now)
    )
    approval_id = uuid.uuid4()
    connection.execute(
        insert(approval)
        .values(
            approval_id=approval_id,
            task=task,
            plan_hash=plan_hash,
            requested_by=by,
            reason=reason,
            requested_at=now,
            expires_at=now + APPROVAL_LIFETIME,
        )
        .on_conflict_do_nothing(index_elements=[approval.c.plan_hash], index_where=undecided)
    )
    opened: uuid.UUID = connection.execute(
        select(approval.c.approval_id).where(approval.c.plan_hash == plan_hash, undecided)
    ).scalar_one()
    return opened


def pending(connection: Connection, now: datetime) -> list[Approval]:
    """The approvals that wait for a decision, oldest first."""
    found = connection.execute(
        select(*_APPROVAL)
        .where(approval.c.decided_at.is_(None), approval.c.expires_at > now)
        .order_by(approval.c.requested_at)
    )
    return [Approval(*row) for row in found]


def decide(
    connection: Connection,
    approval_id: uuid.UUID,
    *,
    approve: bool,
    by: str,
    why: str,
    now: datetime,
    operators: Sequence[str],
    break_glass: bool = False,
) -> Approval:
    """Approve or reject; the approval as decided. Raises Refused when it is not there, decided, expired, or when
    the requester approves although there is another operator, or when who decides is not on the list of operators
    (an empty list is a laptop's: there anyone is one).

    With `break_glass` the requester may approve alone, which the audit trail says in so many words.
    """
    listed = {operator.casefold() for operator in operators}
    if listed and by.casefold() not in listed:
        raise Refused("who decides is not on the list of operators (KEEPER_OPERATORS)")
    if not why.strip():
        raise Refused("a decision needs a reason: the audit asks for it")
    row = connection.execute(
        select(*_APPROVAL).where(approval.c.approval_id == approval_id).with_for_update()
    ).one_or_none()
    if row is None:
        raise Refused(f"there is no approval {approval_id}: `keeper approvals list` shows the open ones")
    found = Approval(*row)
    if found.decision is not None:
        raise Refused(f"approval {approval_id} was {found.decision} by {found.decided_by} already")
    if found.expires_at <= now:
        raise Refused(
            f"approval {approval_id} expired at {rfc3339(found.expires_at)}: run the task again for a new one"
        )
    alone = approve and found.requested_by.casefold() == by.casefold() and len(listed) > 1
    if alone and not break_glass:
        raise Refused(
            f"approval {approval_id} was asked for by who decides: another operator must approve it, or break the glass"
        )
    decision = "approved" if approve else "rejected"
    connection.execute(
        update(approval)
        .where(approval.c.approval_id == approval_id)
        .values(decided_at=now, decided_by=by, decision=decision, why=why)
    )
    audit.record(
        connection,
        actor=by,
        action="approve" if approve else "reject",
        subject=str(approval_id),
        why=why,
        now=now,
        details={"task": found.task, "plan_hash": found.plan_hash},
    )
    if approve and break_glass:
        audit.record(
            connection,
            actor=by,
            action="break_glass",
            subject=str(approval_id),
            why=why,
            now=now,
            details={"task": found.task, "plan_hash": found.plan_hash, "alone": alone},
        )
    return Approval(*connection.execute(select(*_APPROVAL).where(approval.c.approval_id == approval_id)).one())


def approval_of(connection: Connection, approval_id: uuid.UUID) -> Approval | None:
    """The approval with this id, open or decided."""
    row = connection.execute(select(*_APPROVAL).where(approval.c.approval_id == approval_id)).one_or_none()
    return Approval(*row) if row else None


def use(connection: Connection, *, plan_hash: str, run_id: uuid.UUID, now: datetime) -> bool:
    """Spend an unused, unexpired approval of this plan on this run; the same run may come again. False: none."""
    spent = connection.execute(
        select(approval.c.approval_id).where(approval.c.plan_hash == plan_hash, approval.c.used_by_run == run_id)
    ).first()
    if spent:
        return True
    free = (
        select(approval.c.approval_id)
        .where(
            approval.c.plan_hash == plan_hash,
            approval.c.decision == "approved",
            approval.c.used_by_run.is_(None),
            approval.c.expires_at > now,
        )
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    done = connection.execute(update(approval).where(approval.c.approval_id == free).values(used_by_run=run_id))
    return bool(done.rowcount)


def request_run(
    connection: Connection,
    *,
    task: str,
    actor: str,
    why: str,
    now: datetime,
    params: Mapping[str, Any] | None = None,
    planning: bool = False,
    plan_hash: str | None = None,
    break_glass: bool = False,
    request_id: uuid.UUID | None = None,
) -> uuid.UUID:
    """Ask for a run; the request's id. With a `request_id` that is there already nothing is asked twice.

    Raises Refused where the glass is to be broken without a reason.
    """
    if break_glass and not why.strip():
        raise Refused("breaking the glass needs a reason: the audit asks for it")
    request_id = request_id or uuid.uuid4()
    connection.execute(
        insert(run_request)
        .values(
            request_id=request_id,
            task=task,
            actor=actor,
            why=why,
            params=dict(params or {}),
            planning=planning,
            plan_hash=plan_hash,
            break_glass=break_glass,
            requested_at=now,
        )
        .on_conflict_do_nothing()
    )
    return request_id


def waiting(connection: Connection, task: str, *, shard: int, now: datetime) -> uuid.UUID | None:
    """The oldest request that this index of a job has not run: every index runs it, and one that was killed on the
    way is found again."""
    run = and_(
        task_run.c.task == task,
        task_run.c.run_key == cast(run_request.c.request_id, Text),
        task_run.c.shard == shard,
    )
    found: uuid.UUID | None = connection.execute(
        select(run_request.c.request_id)
        .outerjoin(task_run, run)
        .where(
            run_request.c.task == task,
            run_request.c.cancelled_at.is_(None),
            run_request.c.requested_at > now - REQUEST_LIFETIME,
            # one that could not start or end yet is tried again by the execution's next try
            or_(task_run.c.run_id.is_(None), task_run.c.outcome.is_(None), task_run.c.outcome == "retry"),
        )
        .order_by(run_request.c.requested_at)
        .limit(1)
    ).scalar()
    return found
