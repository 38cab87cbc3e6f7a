"""What the relay moves: an event, the parcel it travels in, and why one did not arrive."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol

# The names under which the event's id and its payload's `type` travel: Pub/Sub attributes, Kafka headers.
ID_ATTRIBUTE, TYPE_ATTRIBUTE = "event_id", "event_type"

# Bytes of a body that no broker here takes more of.
LONGEST = 10_000_000


class Event(NamedTuple):
    """A row of an outbox on its way.

    `body` is the payload's text as UTF-8, None where it is above LONGEST; `kind` is the payload's `type`; `attempts`
    have failed so far; `size` is at least the bytes it takes with key and attributes.
    """

    id: str
    topic: str
    key: str | None
    kind: str | None
    body: bytes | None
    attempts: int
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """Events of one topic, and of one key if they have one, that are sent, and arrive or fail, together.

    `number` grows with each parcel, so that of two the later one is known; `size` is the sum of the events'.
    """

    number: int
    events: Sequence[Event]
    size: int

    @property
    def topic(self) -> str:
        """The topic of all its events."""
        return self.events[0].topic

    @property
    def key(self) -> str | None:
        """The key of all its events."""
        return self.events[0].key


class Blame(Enum):
    """Whose fault a failure is, and so what it counts against."""

    EVENT = auto()  # the broker answered, and refused these events
    TOPIC = auto()  # the broker refuses the topic: every event of it would fail alike
    NOBODY = auto()  # no answer: an outage counts against no event
    FOREVER = auto()  # the event can never be sent as it is


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a parcel did not arrive, in words without anything of its contents."""

    words: str
    blame: Blame


class Broker(Protocol):
    """Where events go. Used on one thread; `send` and `wait` never raise for what happens to a parcel."""

    name: str
    most_events: int
    """Events a parcel may hold."""
    most_bytes: int
    """The sum of `Event.size` that a parcel of several events may have."""
    most_flights: int
    """Parcels that may be under way together."""

    def flaw(self, event: Event) -> str | None:
        """Why `event` can never be sent, None where it can."""
        ...

    def send(self, parcel: Parcel) -> None:
        """Start sending; `wait` says how it ended."""
        ...

    def wait(self, seconds: float) -> Sequence[tuple[Parcel, Failure | None]]:
        """What ended since the last call; waits up to `seconds` for the first."""
        ...

    def close(self) -> None:
        """Let go of the broker, and of what is still under way."""
        ...
