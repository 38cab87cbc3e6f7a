"""How far each deletion is: one row of groundskeeper.erasure, locked while a step is taken and written with it."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, text
from sqlalchemy.dialects.postgresql import insert

from shared.clock import rfc3339
from shared.erasure import account_hash, person_hash
from shared.schema import erasure

_COLUMNS = (
    erasure.c.erasure_id,
    erasure.c.account_hash,
    erasure.c.account_id,
    erasure.c.person_hash,
    erasure.c.requested_at,
    erasure.c.completed_at,
    erasure.c.steps,
    erasure.c.receipt,
)


@dataclass(frozen=True)
class Progress:
    """One deletion. `account_id` is None once it is completed."""

    erasure_id: uuid.UUID
    account_hash: str
    account_id: str | None
    person_hash: str | None
    requested_at: datetime
    completed_at: datetime | None
    steps: Mapping[str, Any]
    receipt: Mapping[str, Any] | None

    def done(self, step: str) -> bool:
        """Whether `step` has been taken to its end."""
        return "done_at" in self.steps.get(step, {})


def begin(connection: Connection, account_id: str, uid: str, key: str, now: datetime) -> Progress:
    """The deletion of `account_id`, new or as it is. One that was completed, of an account that came back, is begun
    again."""
    values = {"account_id": account_id, "person_hash": person_hash(uid, key)}
    again: dict[str, Any] = {"requested_at": now, "completed_at": None, "receipt": None, "steps": {}}
    statement = insert(erasure).values(
        account_hash=account_hash(account_id, key), erasure_id=uuid.uuid4(), requested_at=now, **values
    )
    connection.execute(statement.on_conflict_do_nothing(index_elements=[erasure.c.account_hash]))
    here = erasure.c.account_hash == account_hash(account_id, key)
    connection.execute(erasure.update().where(here, erasure.c.account_id.is_(None)).values(**values, **again))
    return _read(connection.execute(select(*_COLUMNS).where(here)).one())


def of_person(connection: Connection, uid: str, key: str) -> Progress | None:
    """The newest deletion that this Firebase user asked for."""
    found = connection.execute(
        select(*_COLUMNS)
        .where(erasure.c.person_hash == person_hash(uid, key))
        .order_by(erasure.c.requested_at.desc(), erasure.c.erasure_id)
        .limit(1)
    ).first()
    return _read(found) if found else None


def unfinished(connection: Connection, *, before: datetime) -> list[uuid.UUID]:
    """The deletions under way that were asked for before that moment, oldest first."""
    return list(
        connection.execute(
            select(erasure.c.erasure_id)
            .where(erasure.c.account_id.is_not(None), erasure.c.requested_at <= before)
            .order_by(erasure.c.requested_at)
        ).scalars()
    )


def locked(connection: Connection, erasure_id: uuid.UUID) -> Progress:
    """The deletion as it is now; nobody else takes a step of it until this transaction ends."""
    return _read(
        connection.execute(select(*_COLUMNS).where(erasure.c.erasure_id == erasure_id).with_for_update()).one()
    )


def note(connection: Connection, erasure_id: uuid.UUID, step: str, facts: Mapping[str, Any]) -> None:
    """Write what `step` has done so far."""
    connection.execute(
        text("""
            update groundskeeper.erasure
               set steps = steps || jsonb_build_object(cast(:step as text), cast(:facts as jsonb))
             where erasure_id = :id"""),
        {"id": erasure_id, "step": step, "facts": json.dumps(facts)},
    )


def finish(connection: Connection, erasure_id: uuid.UUID, step: str, facts: Mapping[str, Any], now: datetime) -> None:
    """Write that `step` is done, and what it did."""
    note(connection, erasure_id, step, {**facts, "done_at": rfc3339(now)})


def complete(connection: Connection, erasure_id: uuid.UUID, receipt: Mapping[str, Any], now: datetime) -> None:
    """End the deletion: the receipt stays, the account's id does not."""
    connection.execute(
        erasure.update()
        .where(erasure.c.erasure_id == erasure_id)
        .values(completed_at=now, receipt=dict(receipt), account_id=None)
    )


def _read(row: Any) -> Progress:
    """`row` has _COLUMNS, in their order."""
    return Progress(*row)
