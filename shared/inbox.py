"""The consumer's side of "at least once": remember the ids of events already handled.

In the transaction that does an event's work, ask `first_time`: work and memory stand or fall together, so an event is
handled once however often it comes. `groundskeeper.inbox` is purged of what no broker could deliver again.
"""

import uuid
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, text

# In one order everywhere, so that two batches that share events wait for each other and never deadlock.
_REMEMBER = text("""
    insert into groundskeeper.inbox (consumer, event_id, received_at)
    select :consumer, id, :now
      from unnest(cast(:ids as uuid[])) as id
     order by id
        on conflict do nothing
    returning event_id""")


def first_time(connection: Connection, consumer: str, event_id: uuid.UUID, now: datetime) -> bool:
    """Whether `consumer` has not handled the event; if so it has when the caller's transaction commits.

    Of two transactions that ask at once the second waits for the first to end.
    """
    return bool(fresh(connection, consumer, [event_id], now))


def fresh(connection: Connection, consumer: str, event_ids: Iterable[uuid.UUID], now: datetime) -> set[uuid.UUID]:
    """Those of a batch's events that `consumer` has not handled, remembered as `first_time` does."""
    ids = sorted(set(event_ids))
    if not ids:
        return set()
    return set(connection.scalars(_REMEMBER, {"consumer": consumer, "ids": ids, "now": now}))
