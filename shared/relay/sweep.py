"""One sweep over one outbox table: from its oldest event to its newest, everything that is due.

Transactions are short and never open while something is sent: one notes what ended since the last and claims what
comes next, then parcels fly, many together but of each key one at a time. A key whose parcel failed is held for the
rest of the sweep, and after it for as long as the failed event backs off.

The claim goes on behind the last claimed row only within a sweep. Each sweep begins at the oldest row again, so a
transaction that commits late is never passed over, and no claim walks over what the ones before it published.
"""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection

from shared.context import Context
from shared.relay.event import Blame, Broker, Event, Failure, Parcel
from shared.relay.packing import pack
from shared.relay.table import DEAD_AFTER, Failed, Lane, OutboxTable, Position

# The first claim of a sweep is small and the next ones are larger, unless bodies are what fills one.
_FIRST_ROWS, _GROWTH, _MOST_ROWS = 128, 8, 8192
_CLAIM_BYTES = 8_000_000

# Seconds before the run's end from which nothing new is sent, and from which nothing is waited for.
_RESERVE_S, _LAST_S = 5.0, 1.0
_LOOK_S = 0.5


@dataclass(frozen=True)
class Backoff:
    """How long a failed event waits: `first_s`, each further time four times as long, at most `most_s`; all of it
    up to a quarter more or less, so that what failed together does not come back together.
    """

    first_s: int
    most_s: int

    def after(self, attempts: int, random: float) -> timedelta:
        """The wait after so many failed attempts; `random` is from 0 to 1."""
        return timedelta(seconds=min(self.first_s * 4 ** (attempts - 1), self.most_s) * (0.75 + random / 2))


@dataclass
class Memory:
    """What a sweep of a table leaves to the next: until when keys are held, and which events got no answer."""

    held: dict[Lane, datetime]
    unanswered: set[str] = field(default_factory=set)


class Sweep:
    """Made for one pass over `table`; it reads `memory` and changes it."""

    def __init__(
        self,
        ctx: Context,
        table: OutboxTable,
        connect: Callable[[], Broker],
        backoff: Backoff,
        memory: Memory,
    ) -> None:
        """`connect` is called when there is something to send."""
        self.unanswered: Counter[str] = Counter()
        """Events that the broker did not take and that are not to blame, by why."""
        self.refused: Counter[str] = Counter()
        """Events that failed, by topic and why."""
        self._ctx, self._table, self._connect, self._backoff, self._memory = ctx, table, connect, backoff, memory
        self._now = ctx.clock.now()
        self._position, self._rows, self._more = Position(), _FIRST_ROWS, True
        self._held_lanes = {lane for lane, until in memory.held.items() if until > self._now}
        self._held_topics: set[str] = set()
        self._numbers = itertools.count(1)
        self._ready: deque[Parcel] = deque()
        self._behind: dict[Lane, deque[Parcel]] = {}  # by lane at work: the parcels that wait for the one before them
        self._flying = self._open_events = self._open_bytes = 0
        self._newest_taken = 0
        self._taken: list[str] = []
        self._failed: list[Failed] = []
        self._doubts: list[tuple[Parcel, Failure]] = []

    def run(self) -> None:
        """Sweep to the end, or for as long as the run has time. Raises what `ctx.begin()` raises."""
        while self._more or self._flying:
            if self._more:
                self._turn()
                self._launch()
            while self._flying and not self._room():
                self._gather()
                self._launch()
            if self._ctx.time_left() < _LAST_S:
                break  # what is under way is sent again by the next run, with the same ids
        self._judge()
        if self._taken or self._failed:
            with self._ctx.begin() as connection:
                self._note(connection)

    def _room(self) -> bool:
        """Whether to claim more now, or, when there is no more, to look at the time."""
        if not self._more:
            return self._ctx.time_left() < _LAST_S
        # one claim flies while the database is asked for the next
        return self._open_events <= self._rows and self._open_bytes <= _CLAIM_BYTES

    # --- the database

    def _turn(self) -> None:
        """Note what ended and claim what comes next, in one transaction."""
        with self._ctx.begin() as connection:
            self._note(connection)
            claim = self._table.claim(
                connection,
                now=self._now,
                after=self._position,
                rows=self._rows,
                bytes_=_CLAIM_BYTES,
                lanes=self._held_lanes,
                topics=self._held_topics,
            )
        self._position, self._more = claim.last, not claim.ended
        self._held_lanes |= claim.busy
        if len(claim.events) == self._rows:
            self._rows = min(self._rows * _GROWTH, _MOST_ROWS)
        if claim.events:
            fine = self._sendable(claim.events)
            for parcel in pack(fine, self._connect(), self._memory.unanswered, self._numbers):
                self._open(parcel)

    def _note(self, connection: Connection) -> None:
        """Write down what the broker took and what failed."""
        now = self._ctx.clock.now()
        if self._taken:
            self._ctx.count(f"{self._table.name}.published", self._table.publish(connection, self._taken, now))
        if self._failed:
            self._table.fail(connection, self._failed)
            dead = sum(one.next_attempt_at is None for one in self._failed)
            self._ctx.count(f"{self._table.name}.dead", dead)
            self._ctx.count(f"{self._table.name}.failed", len(self._failed) - dead)
        self._taken, self._failed = [], []

    # --- parcels

    def _sendable(self, events: Sequence[Event]) -> list[Event]:
        """The events without those that can never be sent, which are noted as dead."""
        broker = self._connect()
        fine = []
        for event in events:
            if flaw := broker.flaw(event):
                self._fail(event, Failure(flaw, Blame.FOREVER))
            else:
                fine.append(event)
        return fine

    def _open(self, parcel: Parcel) -> None:
        """Line the parcel up: behind its key's other parcels, or ready to fly."""
        self._open_events += len(parcel.events)
        self._open_bytes += parcel.size
        lane = lane_of(parcel)
        if lane is None:
            self._ready.append(parcel)
        elif lane in self._behind:
            self._behind[lane].append(parcel)
        elif lane not in self._held_lanes:
            self._behind[lane] = deque()
            self._ready.append(parcel)
        else:  # its key failed since it was claimed
            self._close(parcel)

    def _close(self, parcel: Parcel) -> None:
        self._open_events -= len(parcel.events)
        self._open_bytes -= parcel.size

    def _launch(self) -> None:
        """Send what is ready, as far as the broker may have parcels under way."""
        if self._ready and self._ctx.time_left() < _RESERVE_S:
            self._give_up()
        if not self._ready:
            return
        broker = self._connect()
        while self._ready and self._flying < broker.most_flights:
            parcel = self._ready.popleft()
            if parcel.topic in self._held_topics:
                self._close(parcel)
                self._hold(parcel)
                continue
            self._flying += 1
            broker.send(parcel)

    def _give_up(self) -> None:
        """Send nothing more in this sweep; what is under way may still arrive."""
        self._more = False
        for parcel in itertools.chain(self._ready, *self._behind.values()):
            self._close(parcel)
        self._ready.clear()
        for waiting in self._behind.values():
            waiting.clear()

    # --- answers

    def _gather(self) -> None:
        for parcel, failure in self._connect().wait(_LOOK_S):
            self._flying -= 1
            self._close(parcel)
            if failure is None:
                self._take(parcel)
            elif failure.blame is Blame.EVENT and len(parcel.events) > 1:
                self._split(parcel)
            else:
                self._refuse(parcel, failure)
        if self._ctx.stopping:
            self._ctx.check()

    def _take(self, parcel: Parcel) -> None:
        self._taken.extend(event.id for event in parcel.events)
        self._newest_taken = max(self._newest_taken, parcel.number)
        self._next(parcel)

    def _next(self, parcel: Parcel) -> None:
        """Let the key's next parcel fly."""
        lane = lane_of(parcel)
        if lane is None:
            return
        if self._behind[lane]:
            self._ready.append(self._behind[lane].popleft())
        else:
            del self._behind[lane]

    def _split(self, parcel: Parcel) -> None:
        """Send the events of a refused parcel one by one, since one of them is to blame."""
        first, *others = alone = [Parcel(next(self._numbers), [event], event.size) for event in parcel.events]
        self._open_events += len(alone)
        self._open_bytes += parcel.size
        lane = lane_of(parcel)
        if lane is None:
            self._ready.extend(alone)
        else:
            self._ready.append(first)
            self._behind[lane].extendleft(reversed(others))

    def _refuse(self, parcel: Parcel, failure: Failure) -> None:
        if failure.blame is Blame.FOREVER:
            for event in parcel.events:
                self._fail(event, failure)
            self._next(parcel)
            return
        if failure.blame is Blame.NOBODY:
            self._doubts.append((parcel, failure))
        else:
            for event in parcel.events:
                self._fail(event, failure)
        if failure.blame is Blame.TOPIC:
            self._held_topics.add(parcel.topic)
        self._hold(parcel)
        if failure.blame is Blame.NOBODY and parcel.number > self._newest_taken:
            self._give_up()  # nothing sent since has got through: do not try the rest against a dead broker

    def _hold(self, parcel: Parcel) -> None:
        """Send nothing more of the parcel's key in this sweep."""
        lane = lane_of(parcel)
        if lane is None:
            return
        self._held_lanes.add(lane)
        for waiting in self._behind.pop(lane, ()):
            self._close(waiting)

    def _judge(self) -> None:
        """Whether what got no answer is itself to blame. It is when it got none for the second sweep running, while
        something sent later got through: an outage, even one that begins in the middle, counts against no event.
        """
        suspect, self._memory.unanswered = self._memory.unanswered, set()
        for parcel, failure in self._doubts:
            for event in parcel.events:
                if event.id in suspect and parcel.number < self._newest_taken:
                    self._fail(event, failure)
                else:
                    self._memory.unanswered.add(event.id)
                    self.unanswered[failure.words] += 1

    def _fail(self, event: Event, failure: Failure) -> None:
        """Note a failed attempt: when to try again, or that the event is dead."""
        attempts = DEAD_AFTER if failure.blame is Blame.FOREVER else min(event.attempts + 1, DEAD_AFTER)
        dead = attempts == DEAD_AFTER
        due = None if dead else self._now + self._backoff.after(attempts, self._ctx.random.random())
        self._failed.append(Failed(event.id, attempts, failure.words, due))
        self.refused[f"{event.topic}: {failure.words}" + ("; dead" if dead else "")] += 1
        if due and event.key is not None:
            lane = Lane(event.topic, event.key)
            self._memory.held[lane] = max(due, self._memory.held.get(lane, due))


def lane_of(parcel: Parcel) -> Lane | None:
    """What the parcel keeps its place in, None where it has no key."""
    return None if parcel.key is None else Lane(parcel.topic, parcel.key)
