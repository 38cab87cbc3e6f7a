"""Events as streams bring them: one JSON document a message, an event or a list of them."""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from shared.clock import parse_rfc3339

# Of one message. Pub/Sub brings 10 MB at most; what is larger is no telemetry.
LARGEST_BODY = 10 << 20
MOST_EVENTS = 5000

_SHOWN = 16_384


@dataclass(frozen=True, slots=True)
class Raw:
    """A message's body, and where it came from: the broker's own name for it, never its content."""

    source: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `data` is a stranger's: nothing in it is of a known type or size."""

    id: uuid.UUID
    kind: str
    occurred_at: datetime
    account_id: str | None
    data: Mapping[str, Any] = field(repr=False)
    source: str


@dataclass(frozen=True, slots=True)
class Poison:
    """What can never be handled, and why, in words that quote nothing of it."""

    source: str
    reason: str
    event_id: uuid.UUID | None
    content: str = field(repr=False)
    size: int


def read(raw: Raw) -> Iterator[Event | Poison]:
    """The events of a message; one Poison in place of each that is none."""
    if len(raw.body) > LARGEST_BODY:
        yield _poison(raw, f"the message is larger than {LARGEST_BODY} bytes")
        return
    try:
        document = json.loads(raw.body.decode(), parse_constant=_refuse)
    except UnicodeDecodeError:
        yield _poison(raw, "the message is not UTF-8")
        return
    except (ValueError, RecursionError):
        yield _poison(raw, "the message is not JSON")
        return
    many = document if isinstance(document, list) else [document]
    if len(many) > MOST_EVENTS:
        yield _poison(raw, f"the message holds more than {MOST_EVENTS} events")
        return
    for number, one in enumerate(many):
        source = raw.source if document is not many else f"{raw.source}[{number}]"
        yield _event(one, source)


def poisoned(event: Event, reason: str) -> Poison:
    """An event that was read and cannot be kept."""
    text = json.dumps({"type": event.kind, "data": event.data}, default=str)
    return Poison(event.source, reason, event.id, text[:_SHOWN], len(text))


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _poison(raw: Raw, reason: str) -> Poison:
    return Poison(raw.source, reason, None, raw.body[:_SHOWN].decode(errors="replace"), len(raw.body))


def _event(document: Any, source: str) -> Event | Poison:
    fields = document if isinstance(document, dict) else {}
    event_id = _uuid(fields.get("id"))
    flaw = None if fields else "the event is not an object"
    kind, account, data = fields.get("type"), fields.get("account_id"), fields.get("data")
    moment = _moment(fields.get("occurred_at"))
    if flaw is None and event_id is None:
        flaw = "id is not a UUID"
    elif flaw is None and not (isinstance(kind, str) and 0 < len(kind) <= 100):
        flaw = "type is not a text of 1 to 100 characters"
    elif flaw is None and moment is None:
        flaw = "occurred_at is not RFC 3339 with an offset"
    elif flaw is None and not (account is None or (isinstance(account, str) and 0 < len(account) <= 200)):
        flaw = "account_id is neither null nor a text of 1 to 200 characters"
    elif flaw is None and not isinstance(data, dict):
        flaw = "data is not an object"
    if flaw or event_id is None or moment is None:
        text = json.dumps(document)
        return Poison(source, flaw or "", event_id, text[:_SHOWN], len(text))
    return Event(event_id, str(kind), moment, account, data or {}, source)


def _uuid(value: object) -> uuid.UUID | None:
    try:
        return uuid.UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _moment(value: object) -> datetime | None:
    try:
        return parse_rfc3339(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
