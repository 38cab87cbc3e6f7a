"""The rows of groundskeeper.secret_rotation: how far each secret's rotation has come."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from shared.schema import approval
from shared.schema_rooms import secret_rotation

_C = secret_rotation.c
_COLUMNS = (
    _C.rotation_id,
    _C.secret,
    _C.rotator,
    _C.run_id,
    _C.step,
    _C.old_version,
    _C.new_version,
    _C.details,
    _C.started_at,
    _C.promoted_at,
    _C.disabled_at,
)


@dataclass(frozen=True)
class Rotation:
    """One rotation that is under way."""

    rotation_id: uuid.UUID
    secret: str
    rotator: str
    run_id: uuid.UUID
    step: str
    old_version: str | None
    new_version: str | None
    details: dict[str, Any]
    started_at: datetime
    promoted_at: datetime | None
    disabled_at: datetime | None


def open_ones(connection: Connection) -> list[Rotation]:
    """The rotations under way, oldest first."""
    found = connection.execute(select(*_COLUMNS).where(_C.ended_at.is_(None)).order_by(_C.started_at, _C.secret))
    return [Rotation(*row) for row in found]


def begun_since(connection: Connection, moment: datetime, *, but_by: uuid.UUID) -> set[str]:
    """The secrets whose rotation began at or after `moment` or is open still; those by one run do not count, nor
    those that went back."""
    found = connection.execute(
        select(_C.secret)
        .distinct()
        .where(
            (_C.started_at >= moment) | _C.ended_at.is_(None),
            _C.run_id != but_by,
            _C.step != "rolled_back",
        )
    )
    return set(found.scalars())


def of_run(connection: Connection, run_id: uuid.UUID) -> set[str]:
    """The secrets whose rotation this run has begun."""
    return set(connection.execute(select(_C.secret).where(_C.run_id == run_id)).scalars())


def begin(
    connection: Connection,
    *,
    secret: str,
    rotator: str,
    run_id: uuid.UUID,
    old_version: int | None,
    details: Mapping[str, Any],
    now: datetime,
) -> None:
    """Write down that a rotation begins, before anything is made."""
    connection.execute(
        insert(secret_rotation).values(
            rotation_id=uuid.uuid4(),
            secret=secret,
            rotator=rotator,
            run_id=run_id,
            step="started",
            old_version=None if old_version is None else str(old_version),
            details=dict(details),
            started_at=now,
        )
    )


def move(connection: Connection, rotation: Rotation, step: str, **values: Any) -> None:
    """Write down that a rotation has come to `step`."""
    connection.execute(
        update(secret_rotation).where(_C.rotation_id == rotation.rotation_id).values(step=step, error=None, **values)
    )


def complain(connection: Connection, rotation: Rotation, error: str) -> None:
    """Write down why a rotation did not get on; `error` names no value."""
    connection.execute(update(secret_rotation).where(_C.rotation_id == rotation.rotation_id).values(error=error[:500]))


def rejected_since(connection: Connection, task: str, moment: datetime) -> bool:
    """Whether an operator has rejected what `task` asked for since `moment`."""
    found = connection.execute(
        select(approval.c.approval_id)
        .where(approval.c.task == task, approval.c.decision == "rejected", approval.c.requested_at >= moment)
        .limit(1)
    )
    return found.first() is not None
