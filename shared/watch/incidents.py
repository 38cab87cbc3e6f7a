"""Incidents: a finding is one from when it is first seen until it is gone, however often it is looked at."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.schema_rooms import watch_incident as table
from shared.watch.finding import Finding


@dataclass(frozen=True)
class Incident:
    """One incident; `over` once its finding is gone."""

    incident_id: uuid.UUID
    key: str
    severity: str
    summary: str
    runbook: str
    opened_at: datetime
    closed_at: datetime | None

    @property
    def over(self) -> bool:
        return self.closed_at is not None


def keep(connection: Connection, found: Iterable[Finding], *, unseen: frozenset[str], now: datetime) -> tuple[int, int]:
    """Open an incident for each new finding and close those whose finding is gone; how many of each.

    What could not be looked at (`unseen`: the beginnings of keys, like `schedule`) stays as it was.
    """
    now_wrong = {f.key: f for f in found}
    open_keys = set(connection.execute(select(table.c.key).where(table.c.closed_at.is_(None))).scalars())
    opened = 0
    for finding in now_wrong.values():
        same = connection.execute(
            update(table)
            .where(table.c.key == finding.key, table.c.closed_at.is_(None))
            .values(seen_at=now, summary=finding.summary, severity=finding.severity)
        )
        if not same.rowcount:
            connection.execute(
                insert(table).values(
                    incident_id=uuid.uuid4(),
                    key=finding.key,
                    severity=finding.severity,
                    summary=finding.summary,
                    runbook=finding.runbook,
                    opened_at=now,
                    seen_at=now,
                )
            )
            opened += 1
    gone = [k for k in open_keys - set(now_wrong) if k.partition("/")[0] not in unseen]
    if gone:
        connection.execute(
            update(table).where(table.c.key.in_(gone), table.c.closed_at.is_(None)).values(closed_at=now)
        )
    return opened, len(gone)


def untold(connection: Connection) -> list[Incident]:
    """What nobody was told yet, oldest first: beginnings, and ends of what was told. What was over before anybody
    could be told is told as over."""
    rows = connection.execute(
        select(*_SHOWN)
        .where(or_(table.c.told_at.is_(None), table.c.closed_at.is_not(None)), table.c.told_closed_at.is_(None))
        .order_by(table.c.opened_at, table.c.key)
    )
    return [Incident(*row) for row in rows]


def told(connection: Connection, incident: Incident, now: datetime) -> None:
    """Somebody was told of the incident's beginning, or of its end."""
    values = {"told_at": now} if not incident.over else {"told_closed_at": now}
    connection.execute(update(table).where(table.c.incident_id == incident.incident_id).values(**values))


def still_open(connection: Connection) -> int:
    """How many incidents are open."""
    return len(connection.execute(select(table.c.incident_id).where(table.c.closed_at.is_(None))).all())


_SHOWN = (
    table.c.incident_id,
    table.c.key,
    table.c.severity,
    table.c.summary,
    table.c.runbook,
    table.c.opened_at,
    table.c.closed_at,
)
