"""`keeper doctor`: what is wrong with this plane, and what to do about it; with --adopt, what a platform lacks."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from shared import pauses, plans
from shared.adoption import Adoption, read_adoption
from shared.database import ending_of
from shared.errors import ConfigurationError
from shared.guard import check_stamp, check_version
from shared.keeper import options, show
from shared.keeper.session import Session, session
from shared.manifest import Task
from shared.schema import watch_incident


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok`, `note` or `wrong`, what was seen, and what to do."""

    subject: str
    state: str
    seen: str
    remedy: str = ""


# Looked for in the folder one stands in.
_MAPPING = Path("adopt.yaml")


@click.command()
@click.option(
    "--adopt",
    "adopt_file",
    type=click.Path(path_type=Path),
    is_flag=False,
    flag_value=_MAPPING,
    help="Check which tasks can run on this database's own tables (mapping: adopt.yaml).",
)
@options.JSON
def doctor(adopt_file: Path | None, as_json: bool) -> None:
    """Say what is wrong and what to do. Exits 1 when something is."""
    with session() as at:
        findings = [*_tools(), *_database(at)]
        if adopt_file is not None and all(f.state == "ok" for f in findings if f.subject == "database"):
            findings += _adoption(at, _mapping(adopt_file))
    if as_json:
        show.document(findings=[f.__dict__ for f in findings])
    else:
        marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "wrong": "[bold red]wrong[/]"}
        show.table(
            "Doctor",
            ["subject", "state", "seen", "remedy"],
            ((f.subject, marks[f.state], f.seen, f.remedy) for f in findings),
            empty="Nothing to look at.",
        )
    sys.exit(any(f.state == "wrong" for f in findings))


def _tools() -> Iterator[Finding]:
    for tool, need in (
        ("terraform", "deploying"),
        ("java", "the official Pub/Sub emulator"),
        ("chromium", "Lighthouse scans"),
        ("node", "Lighthouse scans and the web client"),
    ):
        found = shutil.which(tool)
        yield Finding(
            tool,
            "ok" if found else "note",
            "found" if found else "not installed",
            "" if found else f"install it for {need}; everything else works without",
        )


def _database(at: Session) -> Iterator[Finding]:
    try:
        with at.database.transaction(read_only=True) as connection:
            version = connection.execute(text("show server_version")).scalar_one()
            yield Finding("database", "ok", f"PostgreSQL {version}")
            yield from _schema(at, connection)
    except DBAPIError as error:
        meant = ending_of(error)
        yield Finding("database", "wrong", str(meant or "it answers with an error"), "see DATABASE_URL")
        return
    if at.database.pooled_by_transaction():
        yield Finding(
            "database",
            "wrong",
            "a transaction-mode pooler stands between",
            "give the server's own address in DATABASE_URL",
        )


def _schema(at: Session, connection: Connection) -> Iterator[Finding]:
    if connection.execute(text("select to_regclass('groundskeeper.schema_version')")).scalar_one() is None:
        yield Finding("schema", "wrong", "this database has no schema groundskeeper", "keeper migrate")
        return
    checks: list[tuple[str, Callable[[], None]]] = [
        ("schema", lambda: check_version(connection)),
        ("environment", lambda: check_stamp(connection, at.settings)),
    ]
    for subject, check in checks:
        try:
            check()
            yield Finding(subject, "ok", "as this code expects")
        except ConfigurationError as error:
            yield Finding(subject, "wrong", str(error), "keeper migrate")
            return
    yield from _work(connection, at.clock.now())


def _work(connection: Connection, now: datetime) -> Iterator[Finding]:
    """What stands still, waits for somebody, or was found wrong by the watchdog."""
    for pause in pauses.in_force(connection, now):
        name = "all" if pause.task == pauses.ALL else pause.task
        yield Finding(name, "note", f"paused by {pause.paused_by}: {pause.reason}", f"keeper resume {name}")
    for approval in plans.pending(connection, now):
        remedy = f"keeper approvals show {approval.approval_id}"
        yield Finding(approval.task, "note", f"waits for an approval: {approval.reason}", remedy)
    found = connection.execute(
        select(watch_incident.c.summary, watch_incident.c.runbook)
        .where(watch_incident.c.closed_at.is_(None))
        .order_by(watch_incident.c.opened_at)
    )
    for incident in found:
        yield Finding(incident.runbook, "wrong", incident.summary, f"see docs/tasks/{incident.runbook}.md")


def _mapping(file: Path) -> Adoption:
    """What `file` maps; without the one that is looked for where none is given, every name is its own."""
    if file.exists():
        return read_adoption(file)
    if file != _MAPPING:
        raise ConfigurationError(f"--adopt {str(file)!r}: there is no such file")
    return Adoption({})


def _adoption(at: Session, adoption: Adoption) -> Iterator[Finding]:
    with at.database.transaction(read_only=True) as connection:
        for task in at.tasks().values():
            yield from _task_fit(connection, task, adoption)


def _task_fit(connection: Connection, task: Task, adoption: Adoption) -> Iterator[Finding]:
    wrong = False
    for access, tables in task.tables.items():
        for table, columns in tables.items():
            if table.startswith("groundskeeper."):  # ours, and `keeper migrate` brings it
                continue
            theirs = adoption.table(table)
            for problem in _table_fit(connection, theirs, [adoption.column(table, c) for c in columns], access):
                wrong = True
                yield Finding(task.name, "wrong", problem, f"map {table} in adopt.yaml, or grant and index it")
    if not wrong:
        yield Finding(task.name, "ok", "can run: its tables, columns and rights are there")


def _table_fit(connection: Connection, table: str, columns: list[str], access: str) -> Iterator[str]:
    relation = connection.execute(text("select to_regclass(:table)"), {"table": table}).scalar()
    if relation is None:
        yield f"table {table} does not exist"
        return
    there = set(
        connection.execute(
            text("""
        select attname from pg_attribute
         where attrelid = to_regclass(:table) and attnum > 0 and not attisdropped"""),
            {"table": table},
        ).scalars()
    )
    for column in columns:
        if column not in there:
            yield f"{table} has no column {column}"
    for privilege in ("SELECT",) if access == "read" else ("SELECT", "DELETE") if access == "write" else ():
        if not connection.execute(
            text("select has_table_privilege(to_regclass(:table), :privilege)"),
            {"table": table, "privilege": privilege},
        ).scalar_one():
            yield f"no right to {privilege} on {table}"
