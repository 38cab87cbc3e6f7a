"""`keeper run db_cleanup --rules` and `keeper restore`, as processes, with their JSON by schema."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shared.manifest import ROOT
from shared.settings import Settings
from tests.retention.conftest import Execute, Rows

Keeper = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def keeper(settings: Settings, tmp_path: Path) -> Keeper:
    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "VIRTUAL_ENV")}
        return subprocess.run(
            [sys.executable, "-m", "shared.keeper", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            env={**environment, **settings.environ, "KEEPER_HOME": str(tmp_path / "home")},
            check=False,
        )

    return run


def _document(done: "subprocess.CompletedProcess[str]", schema: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(found, json.loads((ROOT / "docs" / "schemas" / f"{schema}.json").read_text()))
    return found


def test_a_run_by_a_rules_file_is_restored_and_proven_equal(
    keeper: Keeper, execute: Execute, rows: Rows, tmp_path: Path
) -> None:
    execute(
        "create table visits (id int primary key, at timestamptz)",
        "insert into visits select n, '2026-01-01' from generate_series(1, 20) n",
    )
    file = tmp_path / "rules.yaml"
    file.write_text(
        "rules:\n  - {name: visits, table: visits, timestamp: at, keep_days: 30, account: none,"
        " archive: {keep_days: 9}}\n"
    )
    planned = _document(keeper("run", "db_cleanup", "--rules", str(file), "--plan", "--json"), "run")
    assert (planned["outcome"], planned["counts"]["planned.rows"]) == ("planned", 20)
    ran = keeper("run", "db_cleanup", "--rules", str(file), "--json")
    assert ran.returncode == 0, ran.stderr
    document = _document(ran, "run")
    assert document["counts"] == {"visits.deleted": 20, "visits.archived": 20}
    back = keeper("restore", document["run_id"], "--reason", "a mistake", "--json")
    assert back.returncode == 0, back.stderr
    restored = _document(back, "restore")
    assert (restored["restored"], restored["equal"], restored["conflicts"]) == (20, True, [])
    assert len(rows("select 1 from visits")) == 20
    assert "restored rows" in keeper("hold", "list").stdout
    again = keeper("restore", document["run_id"], "--reason", "a mistake")
    assert "20 there already; equal to the archive" in " ".join(again.stdout.split())


def test_a_run_that_archived_nothing_cannot_be_restored(keeper: Keeper) -> None:
    done = keeper("restore", "00000000-0000-0000-0000-000000000000", "--reason", "a test")
    assert done.returncode == 3
    assert "archived nothing" in done.stderr
