"""The operators' own audit trail: who did what to the plane, and why. Kept eighteen months."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert

from shared.schema import operator_audit


def record(
    connection: Connection,
    *,
    actor: str,
    action: str,
    subject: str,
    why: str | None,
    now: datetime,
    details: dict[str, Any] | None = None,
) -> None:
    """Write one entry inside the caller's transaction, so that the deed and its entry stand or fall together."""
    connection.execute(
        insert(operator_audit).values(
            at=now, actor=actor, action=action, subject=subject, why=why, details=details or {}
        )
    )
