"""Dead letters of what came in: found and, when an operator says so, deleted for good."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, select

from shared import audit
from shared.errors import Refused
from shared.schema_events import dead_letter

_C = dead_letter.c
_SHOWN = (_C.letter_id, _C.consumer, _C.source, _C.event_id, _C.reason, _C.payload, _C.bytes, _C.received_at)
_NAMED = 100  # letters that an entry of the audit names


def find(connection: Connection, ids: Sequence[uuid.UUID], consumer: str | None) -> list[dict[str, Any]]:
    """The letters with these ids, or all; of `consumer`, if given; the oldest first.

    Raises Refused where an id has none.
    """
    where: list[ColumnElement[bool]] = [_C.letter_id.in_(ids)] if ids else []
    if consumer is not None:
        where.append(_C.consumer == consumer)
    rows = connection.execute(select(*_SHOWN).where(*where).order_by(_C.received_at, _C.letter_id)).mappings()
    found = [dict(row) for row in rows]
    if missing := set(ids) - {one["letter_id"] for one in found}:
        raise Refused(f"no dead letter has the id {min(map(str, missing))}: `keeper inbox list` shows them")
    return found


def discard(
    connection: Connection,
    letters: Sequence[Mapping[str, Any]],
    consumer: str | None,
    *,
    by: str,
    why: str,
    now: datetime,
) -> None:
    """Delete what `find` gave, and say so in the operators' audit."""
    named = [one["letter_id"] for one in letters]
    connection.execute(delete(dead_letter).where(_C.letter_id.in_(named)))
    audit.record(
        connection,
        actor=by,
        action="inbox discard",
        subject=consumer or "all",
        why=why,
        now=now,
        details={"letters": len(named), "ids": [str(one) for one in named[:_NAMED]]},
    )
