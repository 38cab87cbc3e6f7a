"""Findings from the tables: backlogs that grow, and what is older than it may be."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, column, func, select, table, text

from shared import holds
from shared.holds import Hold
from shared.manifest import Task
from shared.watch.finding import Finding
from shared.watch.runs import words


@dataclass(frozen=True)
class Age:
    """The oldest or newest `timestamp` of the rows `where` of `table` may be `limit_s` old, and there may be at most
    `most_rows` of them (0: any number). `task` is who sees to it: without it in the plane, nothing is asked."""

    name: str
    what: str
    task: str
    table: str
    timestamp: str
    of: Literal["oldest", "newest"]
    where: str
    limit_s: int
    most_rows: int


def held(connection: Connection, ages: Iterable[Age], found: Sequence[Hold]) -> frozenset[str]:
    """The tables whose rows one of the holds `found` may keep."""
    names = holds.called(connection, (age.table for age in ages)) if found else {}
    return frozenset(table for table, own in names.items() if any(h.table is None or h.table in own for h in found))


def findings(
    connection: Connection, ages: Iterable[Age], tasks: Mapping[str, Task], *, held: frozenset[str], now: datetime
) -> Iterator[Finding]:
    """Which of `ages` are over their limits; of a table in `held` the oldest row is kept on purpose."""
    for age in ages:
        if age.task not in tasks or (age.of == "oldest" and age.table in held):
            continue
        schema, _, name = age.table.rpartition(".")
        source = table(name, column(age.timestamp), schema=schema or None)
        chosen = func.min if age.of == "oldest" else func.max
        # The condition is task.yaml's, and everything in it was reviewed with it.
        where = text(age.where or "true")  # nosemgrep: avoid-sqlalchemy-text
        moment = connection.execute(
            select(chosen(source.c[age.timestamp])).select_from(source).where(where)
        ).scalar_one()
        limit = timedelta(seconds=age.limit_s)
        if moment is None and age.of == "newest":
            yield Finding(f"age/{age.name}", "error", f"{age.what}: there is none", age.task)
        elif moment is not None and now - moment > limit:
            yield Finding(
                f"age/{age.name}",
                "error",
                f"{age.what}: {words(now - moment)} old, the limit is {words(limit)}",
                age.task,
            )
        if age.most_rows:
            few = select(source.c[age.timestamp]).select_from(source).where(where).limit(age.most_rows + 1).subquery()
            if connection.execute(select(func.count()).select_from(few)).scalar_one() > age.most_rows:
                yield Finding(
                    f"backlog/{age.name}", "error", f"{age.what}: more than {age.most_rows:,} of them", age.task
                )
