"""Dead letters: what can never be handled, with its reason, without what nobody should read."""

import ipaddress
import re
import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from shared.ingest.events import Poison
from shared.redaction import redact

_KEEP = text("""
    insert into groundskeeper.dead_letter (letter_id, consumer, source, event_id, reason, payload, bytes, received_at)
    values (:letter_id, :consumer, :source, :event_id, :reason, :payload, :bytes, :now)
        on conflict (letter_id) do nothing""")

# What could be an address of the internet; ipaddress decides.
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{3,45}")


def keep(connection: Connection, consumer: str, poison: Sequence[Poison], now: datetime) -> None:
    """Keep dead letters in the caller's transaction; the same one again changes nothing."""
    rows = [
        {
            "letter_id": uuid.uuid5(uuid.NAMESPACE_URL, f"{consumer}/{one.source}"),
            "consumer": consumer,
            "source": one.source,
            "event_id": one.event_id,
            "reason": one.reason,
            "payload": shown(one.content),
            "bytes": one.size,
            "now": now,
        }
        for one in poison
    ]
    if rows:
        connection.execute(_KEEP, rows)


def shown(content: str) -> str:
    """What of a payload may be kept: no secret, no e-mail address, no address of the internet, no odd character."""
    whole = redact(content).encode("utf-8", "replace").decode()
    return _ADDRESS.sub(lambda found: "<address>" if _is_address(found[0]) else found[0], whole)


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word.strip(".:") if word.count(":") < 2 else word.rstrip("."))
    except ValueError:
        return False
    return True
