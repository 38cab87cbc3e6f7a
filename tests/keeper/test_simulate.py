"""keeper simulate: real tasks under a clock that runs ahead, also when triggers misbehave and runs are killed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from shared.keeper import simulate as command
from shared.laptop.simulation import Simulated, simulate, workplace
from shared.manifest import ROOT, load_all

START = datetime(2026, 6, 1, tzinfo=UTC)


def run(names: tuple[str, ...], *, days: int, seed: int | None, full: timedelta) -> Simulated:
    tasks = {name: task for name, task in load_all().items() if name in names}
    with workplace() as folder:
        return simulate(tasks, start=START, days=days, seed=seed, folder=folder, full=full)


@pytest.mark.full
def test_two_days_keep_every_promise() -> None:
    names = ("db_cleanup", "outbox_relay")
    done = run(names, days=2, seed=3, full=timedelta(minutes=5))
    assert [one for one in done.invariants if not one.held] == []
    assert set(done.tallies) == set(names)
    assert done.tallies["outbox_relay"].slots == 2 * 1440 - 1  # the first slot is that at which the month begins
    assert done.tallies["outbox_relay"].counts["outbox_event.published"] > 0
    assert done.tallies["db_cleanup"].slots == 2
    assert done.tallies["db_cleanup"].counts["cookie_consent.deleted"] > 0


def test_the_command_prints_a_document_of_its_schema(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "purge_audit").symlink_to(ROOT / "functions" / "purge_audit")
    monkeypatch.setenv("KEEPER_FUNCTIONS", str(tmp_path))
    done = CliRunner().invoke(command.simulate, ["--days", "1", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    jsonschema.validate(document, json.loads((ROOT / "docs" / "schemas" / "simulate.json").read_text()))
    assert [task["task"] for task in document["tasks"]] == ["purge_audit"]


@pytest.mark.full
def test_days_of_mishaps_break_no_promise() -> None:
    names = ("db_cleanup", "outbox_relay", "purge_audit", "watchdog")
    done = run(names, days=4, seed=1, full=timedelta(minutes=30))
    assert [one for one in done.invariants if not one.held] == []
    mishaps = {name for tally in done.tallies.values() for name in tally.chaos}
    assert {"doubled", "late", "lost", "killed"} <= mishaps
