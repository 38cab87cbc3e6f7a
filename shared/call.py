"""What started a run, whichever way it came: a schedule's slot, a message, a request, or a hand."""

import base64
import binascii
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.clock import parse_rfc3339, rfc3339
from shared.manifest import Cron, Every, Http, Task, Topic
from shared.schedule import minute_of


class BadCall(ValueError):
    """A request that starts nothing: it names no run. The message says what was expected."""


@dataclass(frozen=True)
class Message:
    """A Pub/Sub message as its push envelope brought it."""

    message_id: str
    data: bytes
    attributes: Mapping[str, str]
    ordering_key: str
    published_at: datetime | None
    delivery_attempt: int | None


@dataclass(frozen=True)
class Request:
    """An HTTP request to a task's endpoint; `body` is the raw bytes, `headers` have lower-case names."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


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
    if not isinstance(message_id, str) or not message_id:
        raise BadCall("the push envelope's message has no messageId")
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
            dict(raw.get("attributes") or {}),
            raw.get("orderingKey") or "",
            moment,
            envelope.get("deliveryAttempt"),
        ),
    )


def of_request(request: Request) -> Call:
    """The call of an endpoint's request; its run key is the Idempotency-Key header, else one of its own."""
    key = request.headers.get("idempotency-key")
    return Call(trigger="http", run_key=key[:200] if key else str(uuid.uuid4()), actor="http", request=request)


def by_hand(request_id: uuid.UUID) -> Call:
    """The call of a run request; the rest is read from its row when the run opens."""
    return Call(trigger="hand", run_key=str(request_id), actor="")


def parse(task: Task, request: Request, document: Any) -> Call:
    """The call that `request` means for `task`; `document` is its JSON body or None. Raises BadCall."""
    schedule = request.headers.get("x-cloudscheduler-scheduletime")
    timed = next((t for t in task.triggers if isinstance(t, Cron | Every)), None)
    if schedule is not None and timed is not None:
        try:
            return of_slot(timed, parse_rfc3339(schedule))
        except ValueError as error:
            raise BadCall(f"X-CloudScheduler-ScheduleTime: {error}") from None
    if isinstance(document, dict) and set(document) == {"run_request"}:
        try:
            return by_hand(uuid.UUID(str(document["run_request"])))
        except ValueError:
            raise BadCall(f"run_request: expected a UUID, got {document['run_request']!r}") from None
    if isinstance(document, dict) and "message" in document and any(isinstance(t, Topic) for t in task.triggers):
        return of_message(document)
    endpoint = next((t for t in task.triggers if isinstance(t, Http)), None)
    if endpoint is not None:
        if request.method not in endpoint.methods:
            raise BadCall(f"method {request.method} is not one of {', '.join(endpoint.methods)}")
        return of_request(request)
    raise BadCall(
        f"nothing here starts {task.name}: expected Cloud Scheduler's header "
        "X-CloudScheduler-ScheduleTime, a Pub/Sub push envelope or {'run_request': id}; "
        f"to start it by hand use `keeper run {task.name}`"
    )
