"""`keeper queries`: the newest analysis for people and programs, and one statement's plans before and after."""

import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import insert

from shared.database import Database
from shared.keeper.__main__ import keeper as command
from shared.manifest import ROOT
from shared.schema_rooms import query_analysis, query_plan
from shared.settings import Settings
from tests.conftest import NOW

Keeper = Callable[..., Result]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "queries.json").read_text())
FINDING = {"kind": "scan_of_a_big_table", "subject": "public.orders", "why": "reads all 20 MiB"}


@pytest.fixture
def keeper(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    for name, value in {**settings.environ, "KEEPER_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(command, ["queries", *words])


def _node(what: str, index: str | None) -> dict[str, Any]:
    step = {"table": "public.orders", "index": index, "telling": [], "rows": 5, "conditions": ["(customer = $1)"]}
    return {"what": what, **step, "children": []}


@pytest.fixture
def looked(db: Database) -> None:
    """Two looks: the statement's plan changed from a scan to an index; another has none."""
    for day, (what, index, hash_, before) in enumerate(
        [("Seq Scan", None, "aaaa", None), ("Index Scan", "by_customer", "bbbb", "aaaa")]
    ):
        run, now = uuid.uuid4(), NOW + timedelta(days=day)
        counters = {"run_id": run, "at": now, "calls": 10, "total_ms": 12.5, "rows": 50}
        planned = {
            "query_id": -7,
            "sql": "select * from orders where customer = $1",
            "plan_hash": hash_,
            "reason": None,
        }
        with db.transaction() as connection:
            connection.execute(
                insert(query_analysis).values(
                    run_id=run,
                    at=now,
                    was_reset=False,
                    statements=2,
                    explained=1,
                    reasons={"no privilege": 1},
                    findings=[FINDING],
                )
            )
            connection.execute(
                insert(query_plan),
                [
                    {
                        **counters,
                        **planned,
                        "rank": 1,
                        "plan": _node(what, index),
                        "before": before,
                        "findings": [FINDING],
                    },
                    {
                        **counters,
                        "query_id": 8,
                        "sql": "update orders set customer = $1",
                        "plan_hash": None,
                        "reason": "no privilege",
                        "rank": 2,
                        "plan": None,
                        "before": None,
                        "findings": [],
                    },
                ],
            )


def document(done: Result) -> dict[str, Any]:
    assert done.exception is None, done.exception
    found = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA, format_checker=jsonschema.FormatChecker())
    return dict(found)


def test_the_newest_look_is_shown_with_what_has_no_plan_and_why(keeper: Keeper, looked: None) -> None:
    found = document(keeper("--json"))
    assert [s["query_id"] for s in found["statements"]] == [-7, 8]
    shown = keeper().output
    assert "explained 1 of 2" in shown
    assert "1 not: no privilege" in shown
    assert "Index Scan (changed)" in shown
    assert "scan_of_a_big_table" in shown


def test_one_statement_is_shown_with_its_plan_before_the_change(keeper: Keeper, looked: None) -> None:
    found = document(keeper("-7", "--json"))
    assert (found["statement"]["plan_hash"], found["before"]["plan_hash"]) == ("bbbb", "aaaa")
    shown = keeper("-7").output
    assert shown.index("Index Scan using by_customer on public.orders") < shown.index("Seq Scan on public.orders")
    unplanned = document(keeper("8", "--json"))
    assert (unplanned["statement"]["reason"], unplanned["before"]) == ("no privilege", None)


def test_nothing_analysed_yet_is_said_in_words(keeper: Keeper) -> None:
    assert "keeper run analyze_query_plans" in str(keeper().exception)
