"""How `keeper` speaks: tables for people, one JSON document for programs, progress in a terminal only."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from shared.clock import rfc3339
from shared.result import JSON_VERSION

console = Console()
errors = Console(stderr=True)

_STYLES = {
    "ok": "green",
    "planned": "cyan",
    "skipped": "dim",
    "stopped": "yellow",
    "waiting": "yellow",
    "busy": "yellow",
    "unavailable": "magenta",
    "refused": "red",
    "retry": "yellow",
    "partial": "red",
    "failed": "bold red",
}


def document(**content: Any) -> None:
    """Print one JSON document on standard output."""
    click.echo(json.dumps({"schema_version": JSON_VERSION, **content}, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    return rfc3339(value) if isinstance(value, datetime) else str(value)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print a table; `empty` is said instead where it has no row. Never cut in a pipe."""
    shown = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        shown.add_column(column, justify="right" if column in ("count", "rows", "bytes") else "left", overflow="fold")
    filled = False
    for row in rows:
        filled = True
        shown.add_row(*[_cell(value) for value in row])
    if not filled:
        console.print(empty)
    elif console.is_terminal:
        console.print(shown)
    else:
        Console(width=200, file=sys.stdout).print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def outcome(name: str | None) -> str:
    """An outcome in its colour; a run without one is running."""
    return f"[{_STYLES[name]}]{name}[/]" if name else "[blue]running[/]"


def duration(span: timedelta | None) -> str:
    """A span as people say it."""
    if span is None:
        return ""
    seconds = span.total_seconds()
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def counts(values: dict[str, int]) -> str:
    """Counts in one cell: those that are not zero, or `nothing to do`."""
    return ", ".join(f"{k} {v:,}" for k, v in sorted(values.items()) if v) or ("nothing to do" if values else "")


def complain(text: str) -> None:
    """Say on standard error what went wrong."""
    errors.print(f"[bold red]keeper:[/] {text}", highlight=False, soft_wrap=True)
