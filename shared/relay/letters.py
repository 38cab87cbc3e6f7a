"""Dead letters: events that failed five times or can never be sent. Look at them, send them again, or drop them.

Only dead events are ever touched, so nothing here can meet the relay at work on the same row.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from shared import audit
from shared.errors import Refused
from shared.outbox import DOORBELL
from shared.relay.table import DEAD_AFTER, quoted

# The audit names the events a deed touched, up to so many.
_NAMED = 100


@dataclass(frozen=True)
class Letter:
    """A dead event; `bytes` is its payload's length."""

    table: str
    id: uuid.UUID
    topic: str
    key: str | None
    attempts: int
    error: str | None
    created_at: datetime
    bytes: int


@dataclass(frozen=True)
class Choice:
    """Which dead letters are meant: these ids, or all, in either case of one topic only if it is named."""

    ids: tuple[uuid.UUID, ...] = ()
    topic: str | None = None

    def where(self) -> str:
        """The condition, for the binds of `binds`."""
        where = "published_at is null and attempts >= :dead_after"
        if self.ids:
            where += " and id = any(cast(:ids as uuid[]))"
        if self.topic is not None:
            where += " and topic = :topic"
        return where

    def binds(self) -> dict[str, object]:
        """What `where` refers to."""
        binds: dict[str, object] = {"dead_after": DEAD_AFTER}
        if self.ids:
            binds["ids"] = [str(one) for one in self.ids]
        if self.topic is not None:
            binds["topic"] = self.topic
        return binds


def find(connection: Connection, tables: Sequence[str], choice: Choice) -> list[Letter]:
    """The chosen dead letters, oldest first. Raises Refused when an id names none."""
    found = []
    for table in tables:
        rows = connection.execute(
            text(f"""
            select id, topic, ordering_key, attempts, last_error, created_at, octet_length(cast(payload as text))
              from {quoted(table)}
             where {choice.where()}
             order by created_at, id"""),
            choice.binds(),
        )
        found += [Letter(table, *row) for row in rows]
    if missing := set(choice.ids) - {letter.id for letter in found}:
        raise Refused(f"no dead letter has the id {min(map(str, missing))}: `keeper outbox list` shows them")
    return sorted(found, key=lambda letter: (letter.created_at, letter.id))


def replay(connection: Connection, letters: Sequence[Letter], *, by: str, why: str, now: datetime) -> dict[str, int]:
    """Give the events five attempts more, at once; how many by table. What they failed of stays on the row."""
    done = _apply(
        connection,
        letters,
        "update {table} set attempts = 0, next_attempt_at = null where {where}",
    )
    connection.execute(text("select pg_notify(:channel, '')"), {"channel": DOORBELL})
    _record(connection, letters, done, action="outbox replay", by=by, why=why, now=now)
    return done


def discard(connection: Connection, letters: Sequence[Letter], *, by: str, why: str, now: datetime) -> dict[str, int]:
    """Delete the events for good; how many by table."""
    done = _apply(connection, letters, "delete from {table} where {where}")
    _record(connection, letters, done, action="outbox discard", by=by, why=why, now=now)
    return done


def _apply(connection: Connection, letters: Sequence[Letter], statement: str) -> dict[str, int]:
    done = {}
    for table in sorted({letter.table for letter in letters}):
        choice = Choice(ids=tuple(letter.id for letter in letters if letter.table == table))
        sql = statement.format(table=quoted(table), where=choice.where())
        done[table] = connection.execute(text(sql), choice.binds()).rowcount
    return done


def _record(
    connection: Connection,
    letters: Sequence[Letter],
    done: dict[str, int],
    *,
    action: str,
    by: str,
    why: str,
    now: datetime,
) -> None:
    if not why.strip():
        raise Refused(f"{action} needs a reason: the next operator will ask")
    details = {"events": done, "ids": [str(letter.id) for letter in letters[:_NAMED]]}
    audit.record(connection, actor=by, action=action, subject="outbox_relay", why=why, now=now, details=details)
