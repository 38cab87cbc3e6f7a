"""An outbox table's rows: claim what is due, write down what became of it, count what waits.

A row is published (`published_at` is set), dead (not published, five failed attempts: what db_cleanup deletes after
seven days) or waiting. A claim changes nothing on the row. It does not have to: the run's lease makes its holder the
only relay, the fence in each of its transactions makes a former holder unable to write, and a row claimed by a run
that died is waiting again at once instead of when some claim expires.
"""

import json
from collections.abc import Iterable, Sequence, Set
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import dialect

from shared.database import BY_INDEX
from shared.relay.event import LONGEST, Event

DEAD_AFTER = 5

# Tells topic and key apart in the one text by which a lane is named to the server.
_BETWEEN = "\x1f"

_preparer = dialect().identifier_preparer  # type: ignore[no-untyped-call]


def quoted(table: str) -> str:
    """`table` or `schema.table` as SQL."""
    return ".".join(_preparer.quote(part) for part in table.split("."))


class Position(NamedTuple):
    """A place in the order of a table's rows: (created_at, id), as PostgreSQL writes them."""

    created_at: str = "-infinity"
    id: str = "00000000-0000-0000-0000-000000000000"


class Lane(NamedTuple):
    """What is kept in order: the events of one key of one topic."""

    topic: str
    key: str


class Failed(NamedTuple):
    """A failed attempt as the row says it: `attempts` including this one, when to try again (None: dead)."""

    id: str
    attempts: int
    error: str
    next_attempt_at: datetime | None


class Claim(NamedTuple):
    """Events in the table's order, without those that somebody else is at, and without the ones behind these in the
    `busy` lanes. `ended`: there are no more behind `last`.
    """

    events: Sequence[Event]
    busy: Set[Lane]
    last: Position
    ended: bool


class Waiting(NamedTuple):
    """How many events wait, since when the oldest does, and how many are dead."""

    backlog: int
    oldest: datetime | None
    dead: int


class OutboxTable:
    """The table `name`, of the shape of groundskeeper.outbox. Every method is part of the caller's transaction.

    What waits is found by its own index. After a backlog that index is large and nearly empty, and PostgreSQL takes
    reading the whole published history for cheaper, which it is not.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        at = quoted(name)
        # Looked at first and locked after: a row that somebody else is at must not be sent, and what skips it would
        # not know that the events behind it have to wait as well. The sizes are summed before a payload is fetched,
        # so that a claim's memory is bounded whatever rows hold; and all comes as one JSON text, since taking
        # thousands of rows apart in the driver costs more than everything else.
        self._claim = text(f"""
            with due as materialized (
              select id, created_at, topic, ordering_key, attempts, payload
                from {at}
               where published_at is null
                 and attempts < :dead_after
                 and (next_attempt_at is null or next_attempt_at <= :now)
                 and (created_at, id) > (cast(:after_at as timestamptz), cast(:after_id as uuid))
                 and topic <> all(cast(:topics as text[]))
                 and (ordering_key is null or topic || :between || ordering_key <> all(cast(:lanes as text[])))
               order by created_at, id
               limit :rows),
            ours as materialized (
              select t.id
                from {at} t
               where t.id = any(array(select due.id from due))
                 and t.published_at is null
                 and t.attempts < :dead_after
                 for update skip locked),
            sized as materialized (
              select due.id, created_at, topic, ordering_key, attempts, payload, ours.id is not null as free,
                     octet_length(cast(payload as text)) as size
                from due
                left join ours on ours.id = due.id),
            summed as (
              select id, created_at, topic, ordering_key, attempts, payload, free, size,
                     sum(size) over (order by created_at, id) - size as before
                from sized)
            select cast(json_agg(json_build_array(free, created_at, size, id, topic, ordering_key, attempts,
                   case when free and size <= :longest then payload ->> 'type' end,
                   case when free and size <= :longest then cast(payload as text) end) order by created_at, id) as text)
              from summed
             where before < :bytes""")
        self._published = text(f"""
            update {at}
               set published_at = :now
             where id = any(cast(:ids as uuid[])) and published_at is null""")
        self._failed = text(f"""
            update {at} t
               set attempts = f.attempts, last_error = f.error, next_attempt_at = f.at
              from unnest(cast(:ids as uuid[]), cast(:attempts as smallint[]), cast(:errors as text[]),
                          cast(:moments as timestamptz[])) as f (id, attempts, error, at)
             where t.id = f.id and t.published_at is null""")
        self._held = text(f"""
            select topic, ordering_key, max(next_attempt_at)
              from {at}
             where published_at is null
               and attempts < :dead_after
               and next_attempt_at > :now
               and ordering_key is not null
             group by topic, ordering_key""")
        self._waiting = text(f"""
            select count(*) filter (where attempts < :dead_after),
                   min(created_at) filter (where attempts < :dead_after),
                   count(*) filter (where attempts >= :dead_after)
              from {at}
             where published_at is null""")

    def claim(
        self,
        connection: Connection,
        *,
        now: datetime,
        after: Position,
        rows: int,
        bytes_: int,
        lanes: Iterable[Lane] = (),
        topics: Iterable[str] = (),
    ) -> Claim:
        """The next events behind `after` that are due at `now`: at most `rows`, and no more once their bodies pass
        `bytes_`. A body above LONGEST is not fetched. `lanes` and `topics` are held back.
        """
        connection.execute(BY_INDEX)
        found = connection.execute(
            self._claim,
            {
                "dead_after": DEAD_AFTER,
                "now": now,
                "after_at": after.created_at,
                "after_id": after.id,
                "topics": list(topics),
                "between": _BETWEEN,
                "lanes": [f"{lane.topic}{_BETWEEN}{lane.key}" for lane in lanes],
                "rows": rows,
                "bytes": bytes_,
                "longest": LONGEST,
            },
        ).scalar_one()
        rows_found = json.loads(found) if found else []
        events, busy = [], set()
        for free, _, size, id_, topic, key, attempts, kind, body in rows_found:
            if not free and key is not None:
                busy.add(Lane(topic, key))
            if free and (key is None or Lane(topic, key) not in busy):
                events.append(Event(id_, topic, key, kind, body and body.encode(), attempts, _whole(size, key, kind)))
        last = Position(rows_found[-1][1], rows_found[-1][3]) if rows_found else after
        ended = len(rows_found) < rows and sum(row[2] for row in rows_found) < bytes_
        return Claim(events, busy, last, ended)

    def publish(self, connection: Connection, ids: Sequence[str], now: datetime) -> int:
        """Note that the broker has these; how many rows say so now that did not before."""
        # the array as text: the driver looks at each character of a list's strings, and a UUID has none to escape
        return connection.execute(self._published, {"ids": f"{{{','.join(ids)}}}", "now": now}).rowcount

    def fail(self, connection: Connection, failed: Sequence[Failed]) -> None:
        """Note failed attempts."""
        values = {
            "ids": [one.id for one in failed],
            "attempts": [one.attempts for one in failed],
            "errors": [one.error for one in failed],
            "moments": [one.next_attempt_at and one.next_attempt_at.isoformat() for one in failed],
        }
        connection.execute(self._failed, values)

    def held(self, connection: Connection, now: datetime) -> dict[Lane, datetime]:
        """The lanes one of whose events failed and is not due yet: until when each waits."""
        connection.execute(BY_INDEX)
        found = connection.execute(self._held, {"dead_after": DEAD_AFTER, "now": now})
        return {Lane(topic, key): until for topic, key, until in found}

    def waiting(self, connection: Connection) -> Waiting:
        """What waits in this table."""
        connection.execute(BY_INDEX)
        return Waiting(*connection.execute(self._waiting, {"dead_after": DEAD_AFTER}).one())


def _whole(length: int, key: str | None, kind: str | None) -> int:
    """At least the bytes of a body of `length` with all that goes along; a character is four bytes at most."""
    return length + 4 * (len(key or "") + len(kind or "")) + 128
