"""The console in a real Chromium: seen in light and dark, on a desk and a phone, driven by its buttons, judged by axe
and Lighthouse."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import text

from shared.clock import SystemClock, rfc3339
from shared.database import Database
from shared.laptop.firebase import DEMO_OPERATOR, DEMO_PASSWORD, VARIABLE, FirebaseAuth
from shared.laptop.functions import Functions, OneProcess
from shared.laptop.ports import free_ports
from shared.manifest import ROOT, Cron, Every, load_all
from shared.platform import demo
from shared.schedule import last_slot
from shared.secrets import LocalSecrets
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
def firebase(settings: Settings) -> Iterator[FirebaseAuth]:
    double = FirebaseAuth(settings.project, SystemClock())
    double.users.add(DEMO_OPERATOR, DEMO_PASSWORD, uid="op", operator=True)
    yield double
    double.stop()


@pytest.fixture
def base(
    db: Database, settings: Settings, firebase: FirebaseAuth, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[str]:
    """The console and what it starts behind one address, on demo data, with an approval of a rotation that waits."""
    demo.seed(db.engine, NOW)
    _history(db)
    functions = Functions(port=next(free_ports()))
    tasks = {name: load_all()[name] for name in ("dashboard", "db_cleanup", "restore_run", "rotate_secrets")}
    LocalSecrets(tmp_path / "secrets").add("internal-api-token", "of last month")
    variables = dict(settings.environ) | {
        **{f"KEEPER_TARGET_{name.upper()}": functions.url(task) for name, task in tasks.items()},
        "KEEPER_SECRETS": str(tmp_path / "secrets"),
        "KEEPER_OPERATORS": DEMO_OPERATOR,
        "CONSOLE_SIGN_IN": "always",
        "CONSOLE_IDENTITY_ENDPOINT": f"http://{firebase.host}/identitytoolkit.googleapis.com",
        "FIREBASE_API_KEY": "web-key",
        VARIABLE: firebase.host,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    functions.serve(tasks, OneProcess())
    slot = {"X-CloudScheduler-ScheduleTime": rfc3339(NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0))}
    asked = requests.post(functions.url(tasks["rotate_secrets"]), json={}, headers=slot, timeout=60).json()
    assert asked["outcome"] == "waiting", asked
    yield functions.base
    functions.stop()


@pytest.mark.full
@pytest.mark.alone
def test_the_console_in_a_browser(
    base: str, firebase: FirebaseAuth, rows: Callable[..., list[Any]], tmp_path: Path
) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        missing("Chromium", "install chromium")
    folder = Path(os.environ.get("CONSOLE_SCREENSHOTS") or tmp_path)
    modules = node.installed("images/lighthouse")
    done = subprocess.run(
        ["node", str(DRIVE), str(modules), chromium, base, str(folder), DEMO_OPERATOR, DEMO_PASSWORD],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["violations"] == []
    assert found["said"] == []
    assert found["strangers"] == []
    assert found["latest"], "on a phone the timeline begins with its oldest hours"
    sign_in = f"http://{firebase.host}/identitytoolkit.googleapis.com/v1/accounts:signInWithPassword?key=web-key"
    assert found["door"] == [sign_in]
    assert DEMO_OPERATOR in found["signed_in"]
    assert found["steps"] == [
        "db_cleanup planned",
        "db_cleanup ok",
        "Bring back what this run of db_cleanup deleted?",
        "restore_run ok",
        "Everything is paused",
        found["steps"][5],  # resumed: how many tasks need a look
        "rotate_secrets ok",
        "Not found",
    ]
    restored = rows("select counts from groundskeeper.task_run where task = 'restore_run'")[0].counts
    assert restored["restored"] == restored["archived"] > 0
    assert [r.step for r in rows("select step from groundskeeper.secret_rotation")] == ["promoted"]
    acted = rows(
        "select actor, action from groundskeeper.operator_audit where at > :began order by audit_id", began=NOW
    )
    assert {r.actor for r in acted} == {DEMO_OPERATOR}
    assert {"run", "restore", "pause", "resume", "approve"} <= {r.action for r in acted}
    assert found["without"] == len(load_all()) - 1
    assert found["first_stop"] == "Skip to the content"
    assert all(score is not None and score >= 95 for score in found["scores"].values()), found["scores"]
