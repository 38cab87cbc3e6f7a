"""Publish by writing a row in the caller's transaction; only the outbox_relay task talks to a broker."""

import secrets
import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert

from shared.clock import rfc3339
from shared.schema import outbox

# A relay that is awake listens here (PostgreSQL passes it on at the commit); with nobody awake it costs nothing.
DOORBELL = "groundskeeper_outbox"


def publish(
    connection: Connection,
    *,
    topic: str,
    kind: str,
    data: dict[str, Any],
    now: datetime,
    account_id: str | None = None,
    ordering_key: str | None = None,
    event_id: uuid.UUID | None = None,
) -> uuid.UUID:
    """Write one event to groundskeeper.outbox; its id.

    The payload is `{id, type, occurred_at, account_id, data}`. Events of one `ordering_key` are published in the
    order of their commits' rows; without a key there is no order.
    """
    event_id = event_id or _time_ordered(now)
    payload = {
        "id": str(event_id),
        "type": kind,
        "occurred_at": rfc3339(now),
        "account_id": account_id,
        "data": data,
    }
    connection.execute(
        insert(outbox)
        .values(id=event_id, topic=topic, ordering_key=ordering_key, payload=payload, created_at=now)
        .returning(func.pg_notify(DOORBELL, ""))
    )
    return event_id


def _time_ordered(now: datetime) -> uuid.UUID:
    """A UUID of version 7 (RFC 9562, section 5.7): ids of one time lie side by side in the index."""
    milliseconds = int(now.timestamp() * 1000) & (2**48 - 1)
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62))
