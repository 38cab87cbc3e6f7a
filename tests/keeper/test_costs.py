"""keeper costs: the bill as a document and as a table."""

import json
from datetime import timedelta

import jsonschema
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from shared.clock import SystemClock
from shared.costs.estimate import SIZES, estimate
from shared.database import Database
from shared.keeper.costs import costs
from shared.manifest import ROOT, load_all


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(costs, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_document_holds_every_task_at_every_size_and_the_ways_to_relay() -> None:
    document = json.loads(printed("--json"))
    jsonschema.validate(document, json.loads((ROOT / "docs" / "schemas" / "costs.json").read_text()))
    tasks = load_all()
    for size, shown in zip(SIZES, document["sizes"], strict=True):
        assert [line["task"] for line in shown["tasks"]] == list(tasks)
        assert shown["dollars"] == pytest.approx(estimate(tasks, size).dollars, abs=0.01)
        assert [way["way"] for way in shown["ways"]] == ["minute", "tick", "doorbell", "workers"]


def test_the_table_names_tasks_totals_ways_and_what_is_left_out() -> None:
    shown = printed()
    assert all(word in shown for word in (*load_all(), "all", "free of charge", "doorbell", "workers", "(assumed)"))
    assert "Without the database" in shown


def test_measured_seconds_are_the_ledgers_of_the_last_thirty_days(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    now = SystemClock().now()
    with db.transaction() as connection:
        for days, seconds in ((1, 10), (2, 30), (31, 5000)):
            connection.execute(
                text("""
                insert into groundskeeper.task_run
                       (run_id, task, run_key, trigger, outcome, actor, code_version, started_at, finished_at)
                values (gen_random_uuid(), 'db_cleanup', cast(:at as text), 'cron', 'ok', 'test', '1', :at, :ended)"""),
                {"at": now - timedelta(days=days), "ended": now - timedelta(days=days, seconds=-seconds)},
            )
    document = json.loads(printed("--measured", "--json"))
    lines = {line["task"]: line for line in document["sizes"][0]["tasks"]}
    assert (lines["db_cleanup"]["seconds_a_call"], lines["db_cleanup"]["measured"]) == (20.0, True)
    assert not lines["vacuum_analyze"]["measured"]
