"""train_all_models: decisions with numbers, scores by what is current, and no torch needed to score."""

import importlib.util
import json
import random
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared import objects
from shared.call import of_slot
from shared.database import Database
from shared.errors import Outcome
from shared.manifest import Cron
from shared.models.registry import MODELS, Registry
from shared.platform import demo_accounts, demo_telemetry
from shared.platform.demo_world import TELEMETRY_DAYS, World
from shared.settings import Settings
from tests.conftest import NOW, RunTask
from tests.parts import missing

Rows = Callable[..., list[Any]]
SLOT = of_slot(Cron("37 14 * * *"), NOW)


@pytest.fixture
def _torch() -> None:
    if importlib.util.find_spec("torch") is None:
        missing("torch", "make setup, where pip has a CPU build")


@pytest.fixture
def world(db: Database) -> None:
    """Services with daily rollups until yesterday, and 180 days of windows until now."""
    later = World.of(NOW + timedelta(days=TELEMETRY_DAYS), random.Random(1))
    with db.transaction() as connection:
        demo_accounts.load(connection, later)
        demo_telemetry._rollups(connection, later)
        demo_telemetry._windows(connection, World.of(NOW, random.Random(1)))


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(objects.at(settings.bucket("models")))


@pytest.mark.usefixtures("_torch", "world")
def test_each_model_is_decided_with_numbers_and_what_is_current_scores(
    run_task: RunTask, rows: Rows, registry: Registry, db: Database
) -> None:
    result = run_task("train_all_models", SLOT)
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["promoted"] + result.counts["kept"] == len(MODELS)
    decided = {row.model: row for row in rows("select * from training_run")}
    assert set(decided) == set(MODELS)
    assert decided["ces"].decision == "promoted", decided["ces"].reason
    assert set(decided["threat"].baselines["threat"]) == {"rate", "rules", "robust z-score", "logistic regression"}
    for model, row in decided.items():
        version = registry.load(model, row.version)
        assert version.manifest["data_hash"] == row.data_hash
        assert (registry.current(model) is not None) == (row.decision == "promoted")
    scored = rows("select * from platform_score")
    assert len(scored) == result.counts["scores"] == 48
    assert all(0 <= row.ces <= 100 and row.ces_version == decided["ces"].version for row in scored)
    assert run_task("train_all_models", SLOT).outcome is Outcome.SKIPPED

    # Promoted by hand, the model scores at the next run, also where there is no torch.
    registry.point("sla", decided["sla"].version, by="me", why="a test", now=NOW)
    hidden = sys.modules["torch"]
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        without = run_task("train_all_models")
    finally:
        sys.modules["torch"] = hidden
    assert without.outcome is Outcome.UNAVAILABLE
    assert "torch" in (without.error or "")
    forecasts = rows("select * from service_forecast")
    assert len(forecasts) == without.counts["forecasts"] > 40
    for row in forecasts:
        assert 0 <= row.breach_probability <= 1
        assert 0 < row.p50_ms <= row.p90_ms <= row.p95_ms

    # What is written about models names nobody.
    files = [f for m in MODELS for f in registry.files(m, decided[m].version).values() if f[:1] in b"{#"]
    said = b"".join(files).decode() + json.dumps([dict(row._mapping) for row in decided.values()], default=str)
    for account in rows("select account_id, email from user_profile"):
        assert account.account_id not in said
        assert account.email not in said


@pytest.mark.usefixtures("_torch")
def test_with_no_data_each_model_is_refused_and_nothing_is_current(
    run_task: RunTask, rows: Rows, registry: Registry
) -> None:
    result = run_task("train_all_models", SLOT)
    assert (result.outcome, result.counts["refused"], result.counts["scores"]) == (Outcome.OK, 3, 0)
    for row in rows("select * from training_run"):
        assert row.decision == "refused"
        assert "too little data" in row.reason
        assert registry.current(row.model) is None


@pytest.mark.usefixtures("_torch")
def test_a_leak_is_refused_and_said_aloud_while_the_others_go_on(run_task: RunTask, rows: Rows, db: Database) -> None:
    with db.transaction() as connection:
        demo_telemetry._windows(connection, World.of(NOW, random.Random(1)))
        connection.execute(text("update ml_window set error_ratio = cast(is_attack as integer)"))
    result = run_task("train_all_models", SLOT)
    assert result.outcome is Outcome.REFUSED
    assert "feature error_ratio of threat alone gives the answer away" in (result.error or "")
    assert {row.model: row.decision for row in rows("select * from training_run")}["ces"] == "promoted"


@pytest.mark.usefixtures("_torch")
def test_windows_with_fewer_accounts_than_k_teach_nothing_and_labels_go_by_their_source(
    run_task: RunTask, rows: Rows, db: Database, settings: Settings
) -> None:
    with db.transaction() as connection:
        demo_telemetry._windows(connection, World.of(NOW, random.Random(1)))
        connection.execute(text("update ml_window set accounts = 19, is_attack = false"))
        connection.execute(
            text("""
            insert into window_label (window_start, width_s, source, is_attack, said_at, received_at)
            select window_start, width_s, source, source = 'operator', :now, :now
              from (select * from ml_window order by window_start limit 60) w,
                   unnest(array['operator', 'incident', 'indicator']) as source"""),
            {"now": NOW},
        )
    run_task("train_all_models", SLOT)
    assert {row.reason for row in rows("select reason from training_run where model <> 'sla'")} == {
        "too little data: 0 rows of threat, 500 are needed",
        "too little data: 0 rows of ces, 500 are needed",
    }
    with db.transaction() as connection:
        connection.execute(text("update ml_window set accounts = 20"))
        connection.execute(text("delete from training_run"))
    run_task("train_all_models", params={"fitness": {m: {"rows": 500, "days": 28, "rarer": 61} for m in MODELS}})
    reason = rows("select reason from training_run where model = 'threat'")[0][0]
    assert "is there 60 times" in reason, "the operator's word goes before the others'"
    assert not list(Path(settings.bucket("models")).rglob("threat/versions/*"))
