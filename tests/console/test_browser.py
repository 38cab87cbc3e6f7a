"""The console in a real Chromium: seen in light and dark, on a desk and a phone, driven by its buttons, judged by axe
and Lighthouse."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from shared import plans
from shared.clock import SystemClock
from shared.database import Database
from shared.laptop.functions import Functions, OneProcess
from shared.laptop.ports import free_ports
from shared.manifest import ROOT, Cron, Every, load_all
from shared.platform import demo
from shared.schedule import last_slot
from shared.settings import Settings
from tests import node
from tests.parts import missing

DRIVE = Path(__file__).parent / "drive.mjs"
NOW = SystemClock().now()


def _history(database: Database) -> None:
    """A day of runs of every scheduled task, and a week of those that run daily; one of them failed, one is slow."""
    rows = []
    for task in load_all().values():
        for trigger in task.triggers:
            if not isinstance(trigger, Cron | Every):
                continue
            slot = last_slot(trigger, NOW)
            for _ in range(1440 if isinstance(trigger, Every) else 40):
                assert slot is not None
                late = task.name == "vacuum_analyze" and slot == last_slot(trigger, NOW)
                rows.append(
                    {
                        "task": task.name, "trigger": trigger.kind, "key": slot.isoformat(), "at": slot,
                        "outcome": "partial" if late else "ok", "error": "1 failed: endpoints" if late else None,
                        "to": slot + timedelta(seconds=2 + (slot.day * 7 + len(task.name)) % 11),
                        "counts": json.dumps({"rows": slot.day * 120, "batches": 3}),
                    }
                )  # fmt: skip
                slot = last_slot(trigger, slot - timedelta(minutes=1))
    with database.transaction() as connection:
        connection.execute(
            text("""
            insert into groundskeeper.task_run
                   (run_id, task, run_key, trigger, outcome, counts, error, actor, code_version, started_at,
                    finished_at)
            values (gen_random_uuid(), :task, :key, :trigger, :outcome, cast(:counts as jsonb), :error, 'scheduler',
                    'v', :at, :to)
                on conflict do nothing"""),
            rows,
        )
        connection.execute(
            text("insert into groundskeeper.verified_backup values ('dumps/m.json', :at, :at, 94)"),
            {"at": NOW - timedelta(hours=7)},
        )


@pytest.fixture
def base(db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The console and db_cleanup behind one address, on demo data."""
    demo.seed(db.engine, NOW)
    _history(db)
    functions = Functions(port=next(free_ports()))
    tasks = {name: load_all()[name] for name in ("dashboard", "db_cleanup")}
    variables = dict(settings.environ) | {
        f"KEEPER_TARGET_{name.upper()}": functions.url(task) for name, task in tasks.items()
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    functions.serve(tasks, OneProcess())
    yield functions.base
    functions.stop()


def _ask(db: Database, base: str) -> None:
    """An approval that waits, of a plan that db_cleanup makes."""
    import requests

    with db.transaction() as connection:
        asked = plans.request_run(
            connection, task="db_cleanup", actor="scheduler", why="the night", planning=True, now=SystemClock().now()
        )
    requests.post(f"{base}/db-cleanup", json={"run_request": str(asked)}, timeout=60)
    with db.transaction() as connection:
        plan = connection.execute(text("select plan_hash from groundskeeper.plan")).scalar_one()
        plans.ask(
            connection,
            task="db_cleanup",
            plan_hash=plan,
            by="scheduler",
            reason="above the cap",
            now=SystemClock().now(),
        )


@pytest.mark.full
@pytest.mark.alone
def test_the_console_in_a_browser(base: str, db: Database, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        missing("Chromium", "install chromium")
    _ask(db, base)
    folder = Path(os.environ.get("CONSOLE_SCREENSHOTS") or tmp_path)
    modules = node.installed("images/lighthouse")
    done = subprocess.run(
        ["node", str(DRIVE), str(modules), chromium, base, str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["violations"] == []
    assert found["said"] == []
    assert found["strangers"] == []
    assert found["steps"] == [
        "db_cleanup planned",
        "db_cleanup ok",
        "Everything is paused",
        found["steps"][3],
        found["steps"][4],
    ]
    assert found["without"] == len(load_all()) - 1
    assert found["first_stop"] == "Skip to the content"
    assert min(found["scores"].values()) >= 95, found["scores"]
