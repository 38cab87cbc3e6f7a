"""Publish by writing a row in the caller's transaction; only the outbox_relay task talks to a broker."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert

from shared.clock import rfc3339
from shared.schema import outbox


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
    event_id = event_id or uuid.uuid4()
    payload = {
        "id": str(event_id),
        "type": kind,
        "occurred_at": rfc3339(now),
        "account_id": account_id,
        "data": data,
    }
    connection.execute(
        insert(outbox).values(id=event_id, topic=topic, ordering_key=ordering_key, payload=payload, created_at=now)
    )
    return event_id
