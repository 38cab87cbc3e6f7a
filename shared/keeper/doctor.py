"""`keeper doctor`: what is wrong with this plane, and what to do about it; with --adopt, what a platform lacks."""

import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import click
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from shared import pauses, plans
from shared.adoption import beside, read_adoption
from shared.database import ending_of
from shared.errors import ConfigurationError
from shared.guard import check_stamp, check_version
from shared.keeper import adopt, options, show
from shared.keeper.finding import Finding
from shared.keeper.session import Session, session
from shared.schema_rooms import watch_incident


@click.command()
@click.option(
    "--adopt",
    "adopt_file",
    type=click.Path(path_type=Path),
    is_flag=False,
    flag_value=Path(),
    help="Check which tasks can run on this database's own tables (mapping: FILE, or functions/adopt.yaml).",
)
@options.JSON
def doctor(adopt_file: Path | None, as_json: bool) -> None:
    """Say what is wrong and what to do. Exits 1 when something is."""
    with session() as at:
        findings = [*_tools(), *_database(at)]
        if adopt_file is not None and all(f.state == "ok" for f in findings if f.subject == "database"):
            adoption = beside(at.functions) if adopt_file == Path() else read_adoption(adopt_file)
            findings += adopt.findings(at, adoption)
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
