"""From when on a task's absence counts: nobody misses what could not have come."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, select

from shared import pauses
from shared.schema import environment


def counted_from(connection: Connection, tasks: Iterable[str], now: datetime) -> dict[str, datetime]:
    """By task: when the environment began, or the newest pause that stopped the task ended, whichever is later."""
    stamped = connection.execute(select(environment.c.stamped_at)).scalar_one()
    ended = pauses.ended(connection, now)
    return {task: max(stamped, *(ended.get(name, stamped) for name in (task, pauses.ALL))) for task in tasks}
