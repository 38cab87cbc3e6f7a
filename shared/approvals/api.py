"""The endpoint of approvals: list, show, approve, reject, each by an operator who signed in.

    GET  /approvals                  the open ones
    GET  /approvals/{id}             one, with its plan
    POST /approvals/{id}/approve     {"why": "...", "break_glass": false}
    POST /approvals/{id}/reject      {"why": "..."}

Signing in is an ID token of Firebase in the Authorization header, never a cookie: no page of another site can send
one. Answers are JSON; an error is {"error": "..."}.
"""

import json
import re
import uuid
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from shared import plans
from shared.call import Request
from shared.clock import rfc3339
from shared.context import Context
from shared.errors import Refused
from shared.identity import Identity, NotAllowed, NotSignedIn
from shared.plans import Approval, StoredPlan
from shared.redaction import redact

_PATH = re.compile(r"/approvals(?:/([0-9a-fA-F-]{36})(?:/(approve|reject))?)?/?")
_LONGEST_WHY = 500
_MOST_ITEMS = 500  # of a plan, in an answer


@dataclass(frozen=True)
class Answer:
    """Status and JSON document; `decided` says whether something was decided by it."""

    status: HTTPStatus
    document: dict[str, Any]
    decided: bool = False


class _Wrong(Exception):
    """A request that cannot be answered as asked."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Decision:
    """What an operator sent with approve or reject."""

    why: str
    break_glass: bool


class Api:
    """Answers one request."""

    def __init__(self, ctx: Context, identity: Identity, fresh: timedelta) -> None:
        """A decision needs a sign-in no older than `fresh`."""
        self._ctx, self._identity, self._fresh = ctx, identity, fresh

    def answer(self, request: Request) -> Answer:
        """What to answer. Raises Retry or Unavailable when Firebase or the started task is not there."""
        try:
            return self._answer(request)
        except NotSignedIn as error:
            return Answer(HTTPStatus.UNAUTHORIZED, {"error": str(error)})
        except NotAllowed as error:
            return Answer(HTTPStatus.FORBIDDEN, {"error": str(error)})
        except _Wrong as error:
            return Answer(error.status, {"error": str(error)})

    def _answer(self, request: Request) -> Answer:
        matched = _PATH.fullmatch(request.path)
        if matched is None:
            raise _Wrong(HTTPStatus.NOT_FOUND, "there is nothing here: /approvals lists what is open")
        deciding = request.method == "POST"
        operator = self._operator(request, fresh_within=self._fresh if deciding else None)
        approval_id = uuid.UUID(matched[1]) if matched[1] else None
        if deciding != (matched[2] is not None):
            raise _Wrong(HTTPStatus.METHOD_NOT_ALLOWED, "GET lists and shows, POST approves and rejects")
        if approval_id is None:
            return self._list()
        if not deciding:
            return Answer(HTTPStatus.OK, self._shown(*self._found(approval_id)))
        decision = _decision(request)
        return self._decide(approval_id, decision, operator, approve=matched[2] == "approve")

    def _operator(self, request: Request, *, fresh_within: timedelta | None) -> str:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.casefold() != "bearer" or not token:
            raise NotSignedIn("sign in and send the ID token as `Authorization: Bearer …`")
        person = self._identity.by_token(token.strip(), fresh_within=fresh_within)
        return self._identity.require_operator(person)

    # --- reading

    def _list(self) -> Answer:
        with self._ctx.read() as connection:
            found = plans.pending(connection, self._ctx.clock.now())
        return Answer(HTTPStatus.OK, {"approvals": [_plain(approval) for approval in found]})

    def _found(self, approval_id: uuid.UUID) -> tuple[Approval, StoredPlan]:
        with self._ctx.read() as connection:
            found = plans.approval_of(connection, approval_id)
            if found is None:
                raise _Wrong(HTTPStatus.NOT_FOUND, "there is no such approval: /approvals lists what is open")
            return found, plans.stored(connection, found.plan_hash)

    def _shown(self, found: Approval, plan: StoredPlan) -> dict[str, Any]:
        return {
            "approval": _plain(found),
            "plan": {
                "plan_hash": plan.plan_hash,
                "as_of": rfc3339(plan.as_of),
                "params": plan.params,
                "ceiling": plan.ceiling,
                "code_version": plan.code_version,
                "items": plan.items[:_MOST_ITEMS],
                "more_items": max(0, len(plan.items) - _MOST_ITEMS),
            },
        }

    # --- deciding

    def _decide(self, approval_id: uuid.UUID, decision: Decision, operator: str, *, approve: bool) -> Answer:
        ctx = self._ctx
        found, plan = self._found(approval_id)
        if not _decided_so(found, operator, approve=approve):
            try:
                with ctx.begin() as connection:
                    found = plans.decide(
                        connection,
                        approval_id,
                        approve=approve,
                        by=operator,
                        why=decision.why,
                        now=ctx.clock.now(),
                        operators=ctx.settings.operators,
                        break_glass=decision.break_glass,
                    )
            except Refused as error:
                raise _Wrong(HTTPStatus.CONFLICT, redact(str(error))) from None
            said = ctx.log.warning if decision.break_glass else ctx.log.info
            said(
                "approval given by breaking the glass" if decision.break_glass else "approval decided",
                approval_id=str(approval_id),
                for_task=found.task,
                decision=found.decision,
                alert=decision.break_glass,
            )
        started = self._start(found, plan, decision) if approve else None
        return Answer(
            HTTPStatus.OK, {"approval": _plain(found), "run_request": str(started) if started else None}, decided=True
        )

    def _start(self, found: Approval, plan: StoredPlan, decision: Decision) -> uuid.UUID:
        """Start exactly the approved plan; the request's id."""
        return self._ctx.start(
            found.task,
            f"approval {found.approval_id}",
            params=plan.params,
            actor=found.decided_by,
            plan_hash=found.plan_hash,
            break_glass=decision.break_glass,
        )


def _decided_so(found: Approval, operator: str, *, approve: bool) -> bool:
    """Whether this very decision was made and the run it led to did not come about: then it is gone on with."""
    return found.decision == ("approved" if approve else "rejected") and (
        found.decided_by == operator and found.used_by_run is None
    )


def _decision(request: Request) -> Decision:
    try:
        body = json.loads(request.body or b"{}")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or set(body) - {"why", "break_glass"}:
        raise _Wrong(HTTPStatus.BAD_REQUEST, 'expected JSON like {"why": "...", "break_glass": false}')
    why, break_glass = body.get("why"), body.get("break_glass", False)
    if not isinstance(why, str) or not 0 < len(why.strip()) <= _LONGEST_WHY:
        raise _Wrong(HTTPStatus.BAD_REQUEST, f"why: expected a reason of 1 to {_LONGEST_WHY} characters")
    if not isinstance(break_glass, bool):
        raise _Wrong(HTTPStatus.BAD_REQUEST, "break_glass: expected true or false")
    return Decision(redact(why.strip()), break_glass)


def _plain(found: Approval) -> dict[str, Any]:
    return {
        "approval_id": str(found.approval_id),
        "task": found.task,
        "plan_hash": found.plan_hash,
        "requested_by": found.requested_by,
        "reason": found.reason,
        "requested_at": rfc3339(found.requested_at),
        "expires_at": rfc3339(found.expires_at),
        "decision": found.decision,
        "decided_by": found.decided_by,
        "decided_at": rfc3339(found.decided_at) if found.decided_at else None,
        "used_by_run": str(found.used_by_run) if found.used_by_run else None,
    }
