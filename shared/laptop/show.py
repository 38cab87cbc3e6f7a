"""What the plane tells its operator: its parts, what runs when, and how each run ended."""

import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.errors import Outcome
from shared.laptop.processes import Part
from shared.laptop.scheduler import Attempt
from shared.manifest import Task
from shared.schedule import task_next

# Into a pipe rich would write 80 columns, which breaks addresses and counts apart.
console = Console(width=None if sys.stdout.isatty() else 140)

# The outcomes on which `up ONCE=1` fails.
FAILURES = {Outcome.FAILED, Outcome.PARTIAL, Outcome.RETRY, Outcome.REFUSED}


def parts(found: Iterable[Part]) -> None:
    """What is up, where, and what is missing."""
    table = _table("part", "what", "where")
    for part in found:
        what = f"[yellow]not available:[/] {escape(part.missing)}" if part.missing else escape(part.what)
        table.add_row(part.name, what, escape(part.where))
    console.print(table)


def schedule(tasks: Mapping[str, Task], now: datetime, where: Mapping[str, str]) -> None:
    """What runs when; `where` has each task's address. Times UTC."""
    table = _table("task", "started by", "next (UTC)", "where")
    never = datetime.max.replace(tzinfo=UTC)
    for task in sorted(tasks.values(), key=lambda t: (task_next(t, now) or never, t.name)):
        following = task_next(task, now)
        started_by = ", ".join(map(str, task.triggers)) or "by hand"
        soon = following.strftime("%a %H:%M") if following else ""
        table.add_row(task.name, escape(started_by), soon, where[task.name])
    console.print(table)


def attempt(ended: Attempt) -> None:
    """One line for a firing that ended."""
    console.print(f"{ended.slot:%H:%M} {ended.job.task.name} {_coloured(ended)} {escape(_details(ended))}".rstrip())


def outcomes(ended: Iterable[Attempt]) -> None:
    """The table of `--once`."""
    table = _table("task", "slot (UTC)", "outcome", "counts and reason")
    for one in ended:
        table.add_row(one.job.task.name, f"{one.slot:%Y-%m-%d %H:%M}", _coloured(one), escape(_details(one)))
    console.print(table)


def _coloured(ended: Attempt) -> str:
    bad = ended.outcome in FAILURES
    colour = "red" if bad else "yellow" if ended.outcome in (Outcome.UNAVAILABLE, Outcome.WAITING) else "green"
    return f"[{colour}]{ended.outcome}[/]"


def _details(ended: Attempt) -> str:
    counts = ended.document.get("counts")
    counted = [f"{name} {number}" for name, number in sorted(counts.items())] if isinstance(counts, dict) else []
    reason = ended.error or ended.document.get("error") or ""
    return "; ".join(filter(None, [", ".join(counted), str(reason)]))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
