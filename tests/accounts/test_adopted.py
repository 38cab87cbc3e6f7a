"""A platform of other names: what `keeper doctor --adopt` prints is run as printed, and the tasks do their work."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared import holds
from shared.accounts.inventory import PROFILE, REPORTS, STORES
from shared.call import of_slot
from shared.database import Database
from shared.manifest import ROOT, Cron
from shared.platform.tables import METADATA
from shared.settings import Settings
from tests.accounts.fixtures import Answer
from tests.accounts.fixtures import ask as ask
from tests.accounts.fixtures import using as using
from tests.accounts.fixtures import world as world
from tests.accounts.world import World
from tests.conftest import NOW, RunTask

# Our column -> how theirs is called, what adopt.yaml says of it, and how theirs comes to be.
_OTHERWISE = {
    "audit_log.created_at": ("happened", "assume_tz: Europe/Berlin", "timestamp using {} at time zone 'Europe/Berlin'"),
    "signal.created_at": ("at_ms", "unit: ms", "bigint using cast(extract(epoch from {}) * 1000 as bigint)"),
    "mockup.created_at": ("at_s", "unit: s", "bigint using cast(extract(epoch from {}) as bigint)"),
    "bug_report.reporter_email": ("Reporter's mail", "", "text"),
}


def rename(db: Database, mapping: Path) -> None:
    """Give every table of the platform another schema and name, some columns too; write adopt.yaml."""
    lines = ["tables:"]
    with db.transaction() as connection:
        connection.execute(text("create schema app"))
        for table in METADATA.tables:
            lines += [f"  {table}:", f"    name: app.Their {table}"]
            connection.execute(text(f"alter table {table} set schema app"))
            connection.execute(text(f'alter table app.{table} rename to "Their {table}"'))
        for ours, (theirs, said, kind) in _OTHERWISE.items():
            table, _, column = ours.partition(".")
            at = f'alter table app."Their {table}"'
            connection.execute(text(f"{at} alter {column} drop default, alter {column} type {kind.format(column)}"))
            connection.execute(text(f'{at} rename {column} to "{theirs}"'))
            more = f", {said}" if said else ""
            lines.insert(lines.index(f"  {table}:") + 2, f'    columns: {{{column}: {{name: "{theirs}"{more}}}}}')
    mapping.write_text("\n".join(lines) + "\n")


@pytest.fixture
def members(db: Database) -> Iterator[None]:
    """Who is a member of which role is the server's, not the database's: as it was, for the tests after this one."""
    every = text(
        "select cast(cast(roleid as regrole) as text), cast(cast(member as regrole) as text) from pg_auth_members"
    )
    with db.transaction() as connection:
        before = {tuple(row) for row in connection.execute(every)}
    yield
    with db.transaction() as connection:
        for role, member in before - {tuple(row) for row in connection.execute(every)}:
            connection.execute(text(f"grant {role} to {member}"))


def test_the_views_doctor_prints_let_every_other_task_work_on_tables_of_other_names(
    world: World, ask: Callable[..., Answer], run_task: RunTask, db: Database, settings: Settings, tmp_path: Path,
    rows: Callable[..., list[Any]], members: None,
) -> None:  # fmt: skip
    gone, kept = world.account("gone7f3a"), world.account("kept91bc")
    with db.transaction() as connection:
        for row in (
            "audit_log (actor, action, created_at) values ('x', 'y', :at)",
            "signal (source, created_at) values ('x', :at)",
        ):
            connection.execute(text(f"insert into {row}"), {"at": NOW - timedelta(days=40)})
    mapping = tmp_path / "adopt.yaml"
    rename(db, mapping)

    def keeper(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "shared.keeper", *words, "--adopt", str(mapping)]
        environ = {**os.environ, **settings.environ}
        return subprocess.run(command, cwd=ROOT, env=environ, text=True, capture_output=True, check=False)

    def wrong() -> dict[str, str]:
        found = json.loads(keeper("doctor", "--json").stdout)["findings"]
        return {f"{f['subject']}: {f['seen']}": f["remedy"] for f in found if f["state"] == "wrong"}

    views = {remedy.partition(": ")[2] for remedy in wrong().values() if "create view" in remedy}
    assert len(views) == len({view.split()[2] for view in views}), "one view a table, for all tasks"
    with db.transaction() as connection:
        for view in views:
            connection.execute(text(view))
    granted = keeper("migrate", "--grants")
    assert granted.returncode == 0, granted.stderr
    assert wrong() == {}

    run_task("watchdog", of_slot(Cron("*/5 * * * *"), NOW))
    late = "select key from groundskeeper.watch_incident where key in ('age/audit_log', 'age/signal') order by key"
    assert rows(late) == [("age/audit_log",), ("age/signal",)]
    run_task("cleanup")
    started = rows("select task from groundskeeper.run_request where actor = 'cleanup' order by task")
    assert started == [("purge_objects",), ("purge_signals",)], (
        "a signal is due, no mockup is: moments as they are meant"
    )

    with db.transaction() as connection:
        hold = holds.add(connection, reason="a case", by="counsel", now=NOW, table="app.Their audit_log")
    assert ask(token=world.token(gone))[0] == 409, "a hold by the table's own name is heeded through the view"
    with db.transaction() as connection:
        holds.release(connection, hold, by="counsel", why="closed", now=NOW)
    status, document = ask(token=world.token(gone))
    assert (status, document["status"]) == (200, "deleted")
    for store in (*STORES, PROFILE, *REPORTS):
        own = store.table if "." in store.table else f'app."Their {store.table}"'
        count = f"select count(*) from {own} t where cast(t as text) like '%' || :name || '%'"
        assert rows(count, name=gone) == [(0,)], store.table
        assert rows(count, name=kept)[0][0] > 0, store.table
    assert rows("""select count(*) from app."Their bug_report" where "Reporter's mail" is null""")[0][0] == 2
