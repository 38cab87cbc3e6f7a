"""What started a run, whichever way it came: a schedule's slot, a message, a request, or a hand."""

import base64
import binascii
import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.clock import parse_rfc3339, rfc3339
from shared.manifest import Cron, Every, Http, Task, Topic
from shared.schedule import minute_of

# What may stand in a ledger row and a log line as it came: no e-mail address, no control character.
_KEY = re.compile(r"[A-Za-z0-9_.:/+=-]{1,200}")


class BadCall(ValueError):
    """A request that starts nothing: it names no run. The message says what was expected, never what came: that may
    be anybody's. `status` is what HTTP calls it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Message:
    """A Pub/Sub message as its push envelope brought it."""

    message_id: str
    data: bytes = field(repr=False)
    attributes: Mapping[str, str] = field(repr=False)
    ordering_key: str
    published_at: datetime | None
    delivery_attempt: int | None


@dataclass(frozen=True)
class Request:
    """An HTTP request to a task's endpoint; `body` is the raw bytes, `headers` have lower-case names."""

    method: str
    path: str
    query: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass
class Reply:
    """What an endpoint answers instead of the run's JSON."""

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Call:
    """One start of a task: by what, under which run key, and what came with it."""

    trigger: str
    run_key: str
    actor: str
    scheduled_for: datetime | None = None
    why: str | None = None
    planning: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    plan_hash: str | None = None
    break_glass: bool = False
    message: Message | None = None
    request: Request | None = None
    shard: int = 0
    tick_s: int | None = None

    @property
    def brought(self) -> bool:
        """Whether it is a message or a request: whoever brought it brings it again, and nobody else does."""
        return self.trigger in ("topic", "http")


def of_slot(trigger: Cron | Every, moment: datetime, *, shard: int = 0) -> Call:
    """The call a schedule makes at `moment`; Scheduler's jitter is cut to the minute, the finest slot there is."""
    slot = minute_of(moment)
    return Call(
        trigger=trigger.kind,
        run_key=rfc3339(slot),
        actor="scheduler",
        scheduled_for=slot,
        shard=shard,
        tick_s=trigger.seconds if isinstance(trigger, Every) else None,
    )


def of_message(envelope: Mapping[str, Any]) -> Call:
    """The call of a push envelope. https://cloud.google.com/pubsub/docs/push#receive_push. Raises BadCall."""
    raw = envelope.get("message")
    if not isinstance(raw, dict):
        raise BadCall("the push envelope has no message: expected {'message': {...}, 'subscription': ...}")
    message_id = raw.get("messageId") or raw.get("message_id")
    if not isinstance(message_id, str) or not _KEY.fullmatch(message_id):
        raise BadCall("the push envelope's message has no messageId of at most 200 letters, digits and signs")
    attributes = raw.get("attributes") or {}
    if not isinstance(attributes, dict) or not all(isinstance(v, str) for v in attributes.values()):
        raise BadCall("the push envelope's attributes are not a mapping of text to text")
    try:
        data = base64.b64decode(raw.get("data") or "", validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadCall("the push envelope's data is not base64") from error
    published = raw.get("publishTime") or raw.get("publish_time")
    try:
        moment = parse_rfc3339(published) if published else None
    except (ValueError, TypeError):
        moment = None
    return Call(
        trigger="topic",
        run_key=message_id,
        actor="pubsub",
        scheduled_for=moment,
        message=Message(
            message_id,
            data,
            attributes,
            str(raw.get("orderingKey") or raw.get("ordering_key") or ""),
            moment,
            attempt if isinstance(attempt := envelope.get("deliveryAttempt"), int) else None,
        ),
    )


def of_request(request: Request, endpoint: Http) -> Call:
    """The call of an endpoint's request. Raises BadCall.

    The run key is the Idempotency-Key header, else one of its own. Where strangers can call, the key is bound to who
    sent it (as a digest), so that nobody can use up or read another's; a body's own event id is not believed
    before the task has checked its signature.
    """
    key = request.headers.get("idempotency-key")
    if key is None or endpoint.auth == "stripe":
        run_key = str(uuid.uuid4())
    elif not _KEY.fullmatch(key):
        raise BadCall("Idempotency-Key: expected 1 to 200 letters, digits and signs: use a UUID")
    elif endpoint.auth == "service":
        run_key = key
    else:
        sender = request.headers.get("authorization", "")
        run_key = hashlib.sha256(f"{sender}\n{key}".encode()).hexdigest()[:32]
    return Call(trigger="http", run_key=run_key, actor="http", request=request)


def by_hand(request_id: uuid.UUID, *, shard: int = 0) -> Call:
    """The call of a run request; the rest is read from its row when the run opens."""
    return Call(trigger="hand", run_key=str(request_id), actor="", shard=shard)


def parse(task: Task, request: Request, document: Any) -> Call:
    """The call that `request` means for `task`; `document` is its JSON body or None. Raises BadCall."""
    schedule = request.headers.get("x-cloudscheduler-scheduletime")
    timed = next((t for t in task.triggers if isinstance(t, Cron | Every)), None)
    if schedule is not None and timed is not None:
        try:
            return of_slot(timed, parse_rfc3339(schedule))
        except ValueError:
            raise BadCall("X-CloudScheduler-ScheduleTime: expected RFC 3339 like 2026-01-01T02:00:00Z") from None
    if isinstance(document, dict) and set(document) == {"run_request"}:
        try:
            return by_hand(uuid.UUID(str(document["run_request"])))
        except ValueError:
            raise BadCall("run_request: expected a UUID") from None
    if isinstance(document, dict) and "message" in document and any(isinstance(t, Topic) for t in task.triggers):
        return of_message(document)
    endpoints = [t for t in task.triggers if isinstance(t, Http)]
    if endpoints:
        endpoint = next((t for t in endpoints if request.method in t.methods), None)
        if endpoint is None:
            methods = sorted({m for t in endpoints for m in t.methods})
            raise BadCall(f"the method is not one of {', '.join(methods)}", 405)
        return of_request(request, endpoint)
    raise BadCall(
        f"nothing here starts {task.name}: expected Cloud Scheduler's header "
        "X-CloudScheduler-ScheduleTime, a Pub/Sub push envelope or {'run_request': id}; "
        f"to start it by hand use `keeper run {task.name}`"
    )
