"""The consumer's side of "at least once": remember the ids of events already handled, in the consumer's database.

Create the table once (`create(engine)`, or its DDL in a migration of yours). Then, in the transaction that does an
event's work, ask `first_time`: work and memory stand or fall together, so an event is handled once however often it
comes. `forget` what is older than any broker could deliver again: 31 days covers Pub/Sub's longest retention.
"""

import uuid
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Column, Connection, DateTime, MetaData, Table, Text, Uuid, delete
from sqlalchemy.dialects.postgresql import insert

metadata = MetaData()

# `consumer` lets several share a database: each handles an event once.
inbox = Table(
    "inbox",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("event_id", Uuid, primary_key=True),
    Column("received_at", DateTime(timezone=True), nullable=False, index=True),
)


def create(connection: Connection) -> None:
    """Create the table where it is missing."""
    metadata.create_all(connection)


def first_time(connection: Connection, consumer: str, event_id: uuid.UUID, now: datetime) -> bool:
    """Whether `consumer` has not handled the event; if so it has when the caller's transaction commits.

    Of two transactions that ask at once the second waits for the first to end.
    """
    return bool(fresh(connection, consumer, [event_id], now))


def fresh(connection: Connection, consumer: str, event_ids: Iterable[uuid.UUID], now: datetime) -> set[uuid.UUID]:
    """Those of a batch's events that `consumer` has not handled, remembered as `first_time` does."""
    # in one order everywhere, so that two batches that share events wait for each other and never deadlock
    rows = [{"consumer": consumer, "event_id": one, "received_at": now} for one in sorted(set(event_ids))]
    if not rows:
        return set()
    return set(connection.scalars(insert(inbox).values(rows).on_conflict_do_nothing().returning(inbox.c.event_id)))


def forget(connection: Connection, before: datetime) -> int:
    """Drop what was received before that moment; how many rows."""
    return connection.execute(delete(inbox).where(inbox.c.received_at < before)).rowcount
