"""Stop work: per task or for all, with a reason and an end. Read at a run's start and at each of its transactions."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from shared import audit
from shared.errors import Refused
from shared.schema import pause as table

ALL = "*"


class Pause(NamedTuple):
    """A pause in force for `task` (or `*`, all of them), until a moment or until resumed."""

    task: str
    reason: str
    paused_by: str
    paused_at: datetime
    until: datetime | None


def in_force(connection: Connection, now: datetime, task: str | None = None) -> list[Pause]:
    """The pauses in force at `now`: all of them, or those that stop `task`."""
    # Asked at each transaction: as literals it takes one round trip, as binds pg8000 makes three.
    moment = bindparam("now", now, type_=table.c.until.type, literal_execute=True)
    statement = (
        select(table.c.task, table.c.reason, table.c.paused_by, table.c.paused_at, table.c.until)
        .where(or_(table.c.until.is_(None), table.c.until > moment))
        .order_by(table.c.task)
    )
    if task is not None:
        names = bindparam("tasks", [task, ALL], type_=table.c.task.type, expanding=True, literal_execute=True)
        statement = statement.where(table.c.task.in_(names))
    return [Pause(*row) for row in connection.execute(statement)]


def ended(connection: Connection, now: datetime) -> dict[str, datetime]:
    """When the newest pause of each task (or `*`) ended, of those that are over at `now`."""
    over = connection.execute(select(table.c.task, table.c.until).where(table.c.until <= now))
    return {row.task: row.until for row in over}


def pause(connection: Connection, task: str, *, reason: str, by: str, now: datetime, until: datetime | None) -> None:
    """Pause `task` (or `*`); a pause that exists is replaced. Raises Refused without a reason or with a past end."""
    if not reason.strip():
        raise Refused("a pause needs a reason: the next operator will ask")
    if until is not None and until <= now:
        raise Refused(f"a pause until {until.isoformat()} is over already: give a later moment or none")
    values = {"reason": reason, "paused_by": by, "paused_at": now, "until": until}
    connection.execute(
        insert(table).values(task=task, **values).on_conflict_do_update(index_elements=[table.c.task], set_=values)
    )
    audit.record(connection, actor=by, action="pause", subject=task, why=reason, now=now)


def resume(connection: Connection, task: str, *, by: str, why: str | None, now: datetime) -> bool:
    """End the pause of `task` (or `*`). False when there was none."""
    lasting = or_(table.c.until.is_(None), table.c.until > now)
    done = connection.execute(update(table).where(table.c.task == task, lasting).values(until=now)).rowcount
    if done:
        audit.record(connection, actor=by, action="resume", subject=task, why=why, now=now)
    return bool(done)
