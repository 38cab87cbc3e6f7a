"""train_all_models: decisions with numbers, scores by what is current, and no torch needed to score."""

import importlib.util
import json
import random
import shutil
import sys
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared import objects, plans
from shared.call import by_hand
from shared.database import Database
from shared.errors import Outcome
from shared.manifest import FUNCTIONS, load_all
from shared.models import services, shares
from shared.models.registry import MODELS, Registry
from shared.models.services import Days
from shared.platform import demo_accounts, demo_telemetry, demo_windows
from shared.platform.demo_world import TELEMETRY_DAYS, World
from shared.result import Result
from shared.settings import Settings
from tests.conftest import NOW, RunTask
from tests.parts import missing

Rows = Callable[..., list[Any]]
Train = Callable[..., Result]
Ask = Callable[..., uuid.UUID]
INDEXES = load_all()["train_all_models"].run.tasks


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
        demo_windows.load(connection, World.of(NOW, random.Random(1)))


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(objects.at(settings.bucket("models")))


@pytest.fixture
def ask(db: Database) -> Ask:
    """A request for a run."""

    def request(params: dict[str, Any] | None = None) -> uuid.UUID:
        with db.transaction() as connection:
            return plans.request_run(
                connection, task="train_all_models", actor="tester", why="a test", params=params, now=NOW
            )

    return request


@pytest.fixture
def train(run_task: RunTask, ask: Ask) -> Train:
    """Every index of the job, one after the other, as `keeper run` does; how the last ended, which sums up."""

    def run(indexes: int = INDEXES, *, params: dict[str, Any] | None = None, **more: Any) -> Result:
        asked = ask(params)
        return [run_task("train_all_models", by_hand(asked, shard=index), **more) for index in range(indexes)][-1]

    return run


@pytest.mark.usefixtures("_torch", "world")
def test_each_model_is_decided_with_numbers_and_what_is_current_scores(
    train: Train, rows: Rows, registry: Registry, settings: Settings
) -> None:
    result = train()
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["promoted"] == len(MODELS)
    for name in ("threat.model", "threat.robust_z-score", "ces.seasonal", "sla.breach.rate", "sla.latency.last_value"):
        assert result.counts[f"{name}.loss_e6"] > 0
    decided = {row.model: row for row in rows("select * from training_run")}
    assert set(decided) == set(MODELS)
    assert {row.decision for row in decided.values()} == {"promoted"}
    assert set(decided["threat"].baselines["threat"]) == {"rate", "rules", "robust z-score", "logistic regression"}
    for model, row in decided.items():
        version = registry.load(model, row.version)
        assert version.manifest["data_hash"] == row.data_hash
        assert (registry.current(model) is not None) == (row.decision == "promoted")
    scored = rows("select * from platform_score")
    assert len(scored) == result.counts["scores"] == 48
    assert all(0 <= row.ces <= 100 and row.ces_version == decided["ces"].version for row in scored)
    assert not list(objects.at(settings.bucket("models")).list("sla/shares/"))

    # What is current scores at the next run, also where there is no torch.
    hidden = sys.modules["torch"]
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        without = train()
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
    train: Train, rows: Rows, registry: Registry
) -> None:
    result = train()
    assert (result.outcome, result.counts["refused"], result.counts["scores"]) == (Outcome.OK, 3, 0)
    for row in rows("select * from training_run"):
        assert row.decision == "refused"
        assert "too little data" in row.reason
        assert registry.current(row.model) is None


@pytest.mark.usefixtures("_torch")
def test_a_leak_is_refused_and_said_aloud_while_the_others_go_on(train: Train, rows: Rows, db: Database) -> None:
    with db.transaction() as connection:
        demo_windows.load(connection, World.of(NOW, random.Random(1)))
        connection.execute(text("update ml_window set error_ratio = cast(is_attack as integer)"))
    result = train()
    assert result.outcome is Outcome.REFUSED
    assert "feature error_ratio of threat alone gives the answer away" in (result.error or "")
    assert {row.model: row.decision for row in rows("select * from training_run")}["ces"] == "promoted"


@pytest.mark.usefixtures("_torch")
def test_windows_with_fewer_accounts_than_k_teach_nothing_and_labels_go_by_their_source(
    train: Train, rows: Rows, db: Database, settings: Settings
) -> None:
    with db.transaction() as connection:
        demo_windows.load(connection, World.of(NOW, random.Random(1)))
        connection.execute(text("update ml_window set accounts = 19, is_attack = false"))
        connection.execute(
            text("""
            insert into window_label (window_start, width_s, source, is_attack, said_at, received_at)
            select window_start, width_s, source, source = 'operator', :now, :now
              from (select * from ml_window order by window_start limit 60) w,
                   unnest(array['operator', 'incident', 'indicator']) as source"""),
            {"now": NOW},
        )
    train()
    assert {row.reason for row in rows("select reason from training_run where model <> 'sla'")} == {
        "too little data: 0 rows of threat, 500 are needed",
        "too little data: 0 rows of ces, 500 are needed",
    }
    with db.transaction() as connection:
        connection.execute(text("update ml_window set accounts = 20"))
        connection.execute(text("delete from training_run"))
    train(params={"fitness": {m: {"rows": 500, "days": 28, "rarer": 61} for m in MODELS}})
    reason = rows("select reason from training_run where model = 'threat'")[0][0]
    assert "is there 60 times" in reason, "the operator's word goes before the others'"
    assert not list(Path(settings.bucket("models")).rglob("threat/versions/*"))


@pytest.mark.usefixtures("world")
def test_it_makes_no_difference_over_how_many_indexes_services_are_shared_out(
    train: Train, rows: Rows, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    seen: list[Days] = []
    monkeypatch.setattr(shares, "clear", lambda ctx, place: None)
    folder = Path(settings.bucket("models")) / "sla" / "shares"
    for times, tasks in enumerate((1, 3), 1):
        copied = tmp_path / str(tasks) / "train_all_models"
        shutil.copytree(FUNCTIONS / "train_all_models", copied)
        declared = (copied / "task.yaml").read_text().replace(f"tasks: {INDEXES}", f"tasks: {tasks}")
        (copied / "task.yaml").write_text(declared)
        train(tasks, functions=copied.parent)
        shared = rows("select sum(cast(counts ->> 'services' as integer)) from groundskeeper.task_run")[0][0]
        assert shared == times * rows("select count(distinct service_id) from aggregated_analytics")[0][0]
        left = list(folder.glob("*/*.npz"))
        assert len(left) == tasks
        seen.append(Days.together([Days.load(share.read_bytes()) for share in left]))
        shutil.rmtree(folder)
    assert services.breach(seen[0]).hash() == services.breach(seen[1]).hash()
    assert services.latency(seen[0]).hash() == services.latency(seen[1]).hash()
    assert len(set(seen[0].weight.tolist())) > 1, "an account's services share its say"


@pytest.mark.usefixtures("world")
def test_an_index_killed_while_it_sums_up_goes_on_and_no_other_does_it_too(
    ask: Ask, run_task: RunTask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # to see which one comes so far
    place = objects.at(settings.bucket("models"))
    for order, ended in (((0, 1, 2, 3), {Outcome.OK}), ((0, 1, 3, 2), {Outcome.OK, Outcome.UNAVAILABLE})):
        asked = ask()
        with place.create(f"sla/shares/{asked}/merged-by") as stream:
            stream.write(b"2")
        results = [run_task("train_all_models", by_hand(asked, shard=index)) for index in order]
        assert {result.outcome for result in results} == ended
        assert [r.outcome for r in results[:-1]] == [Outcome.OK] * 3
