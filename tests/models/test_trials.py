"""A model is promoted only where it is better, and never learns from data that are not fit for it."""

import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared import objects
from shared.errors import Refused, Retry
from shared.models import backtest
from shared.models.baselines import CES, THREAT
from shared.models.dataset import Dataset, Fitness, TooLittle, Unfit, auc, check
from shared.models.measures import average_precision
from shared.models.net import ARRAYS, Net, NotLoadable, encoded
from shared.models.registry import Loaded, Registry
from shared.models.training import fit, from_state
from shared.models.trial import Part, Trial, hold
from tests.conftest import NOW

DAY, HOUR = 86_400, 3600
END = int(NOW.timestamp())
FITNESS = Fitness(rows=500, days=28, rarer=20)
ABOUT = {"trained_at": "2026-06-15T12:00:00Z"}


def windows(n: int = 1500, *, seed: int = 1, wrong: float = 0.05) -> Dataset:
    """Hours in which an attack is two things at once, or neither: no line divides it from the rest."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    y = ((np.sign(x[:, 0] * x[:, 1]) > 0) ^ (rng.random(n) < wrong)).astype(np.float64)
    at = END - DAY - HOUR * np.arange(n, 0, -1)
    return Dataset("threat", "probability", ("a", "b", "c"), x, y, at, at + DAY, np.ones(n), {"rule_score": x[:, 0]})


def tried(data: Dataset, champion: Loaded | None = None) -> Trial:
    return hold("threat", {"threat": Part(data, THREAT)}, champion, FITNESS, now=END, about=ABOUT)


@pytest.fixture(scope="module")
def good() -> Trial:
    return tried(windows())


def test_what_beats_every_baseline_is_promoted_with_numbers(good: Trial) -> None:
    assert good.decision == "promoted"
    compared = good.baselines["threat"]
    assert set(compared) == set(THREAT)
    assert all(one["beaten"] and one["high"] < 0 for one in compared.values())
    assert good.metrics["threat"]["auc"] > 0.9
    assert len(good.metrics["threat"]["by_origin"]) == backtest.ORIGINS


def test_the_same_data_make_the_same_weights(good: Trial) -> None:
    again = tried(windows())
    assert again.files["threat.npz"] == good.files["threat.npz"]
    assert again.data_hash == good.data_hash
    assert tried(windows(seed=2)).data_hash != good.data_hash


def test_the_champion_itself_is_not_better_than_the_champion(good: Trial) -> None:
    champion = Loaded("v1", {"threat": Net.load(good.files["threat.npz"])}, {})
    again = tried(windows(), champion)
    assert again.decision == "kept"
    assert "not better than champion" in again.reason


def test_shuffled_labels_are_not_promoted() -> None:
    data = windows()
    shuffled = replace(data, y=np.random.default_rng(3).permutation(data.y))
    trial = tried(shuffled)
    assert trial.decision == "kept"
    assert "not better than rate" in trial.reason


def test_what_has_turned_around_lately_is_not_promoted() -> None:
    data = windows()
    lately = data.at >= data.at[-1] - (data.at[-1] - data.at[0]) // 10
    assert tried(replace(data, y=np.where(lately, 1 - data.y, data.y))).decision == "kept"


def test_what_was_better_and_has_just_turned_around_has_drifted() -> None:
    data = windows(4000, wrong=0.2)
    lately = np.arange(4000) >= 3800
    trial = tried(replace(data, y=np.where(lately, 1 - data.y, data.y)))
    assert trial.decision == "kept"
    assert trial.reason.startswith("drifted: ")
    assert "is better at the newest origin" in trial.reason


def test_where_a_naive_forecast_is_all_there_is_to_know_it_wins() -> None:
    rng = np.random.default_rng(5)
    walk = np.clip(50 + np.cumsum(rng.normal(size=1500)), 0, 100)
    at = END - 2 * DAY - HOUR * np.arange(1499, 0, -1)
    named = {"last_value": walk[:-1], "seasonal": np.roll(walk[:-1], 24), "exponentially_weighted": walk[:-1]}
    data = Dataset(
        "ces", "level", ("last", "noise"), np.column_stack([walk[:-1], rng.normal(size=1499)]), walk[1:], at, at + HOUR,
        np.ones(1499), named,
    )  # fmt: skip
    trial = hold("ces", {"ces": Part(data, CES)}, None, FITNESS, now=END, about=ABOUT)
    assert trial.decision == "kept"
    assert "not better than last value" in trial.reason


def _broken(what: str) -> Dataset:
    data = windows()
    x = data.x.copy()
    match what:
        case "ten rows":
            return Dataset(
                data.name, data.kind, data.features, x[:10], data.y[:10], data.at[:10], data.until[:10],
                data.weight[:10], {"rule_score": x[:10, 0]},
            )  # fmt: skip
        case "few days":
            return replace(data, at=END - 2 * DAY - np.arange(1500, 0, -1), until=END - DAY - np.arange(1500, 0, -1))
        case "a constant answer":
            return replace(data, y=np.zeros(1500))
        case "a rare answer":
            return replace(data, y=(np.arange(1500) < 19).astype(np.float64))
        case "not a number":
            x[7, 1] = np.nan
            return replace(data, x=x)
        case "an infinite hint":
            return replace(data, hints={"rule_score": np.where(np.arange(1500) == 3, np.inf, x[:, 0])})
        case "the future":
            return replace(data, until=data.until + DAY)
        case "a giveaway":
            x[:, 2] = data.y * 1000 + x[:, 2]
            return replace(data, x=x)
        case _:
            return replace(data, at=data.at[::-1].copy())


@pytest.mark.parametrize(
    ("what", "why", "kind"),
    [
        ("ten rows", "10 rows of threat, 500 are needed", TooLittle),
        ("few days", "28 are needed", TooLittle),
        ("a constant answer", "always 0: there is nothing to learn", Unfit),
        ("a rare answer", "19 times, 20 are needed", TooLittle),
        ("not a number", "1 of the features of threat are not finite", Unfit),
        ("an infinite hint", "1 of the rule_score of threat are not finite", Unfit),
        ("the future", "a leak: .* are of the future", Unfit),
        ("a giveaway", "a leak: feature c of threat alone gives the answer away", Unfit),
        ("another order", "not in the order of time", Unfit),
    ],
)
def test_data_that_are_not_fit_are_refused_with_the_reason(what: str, why: str, kind: type[Unfit]) -> None:
    with pytest.raises(kind, match=why):
        check(_broken(what), FITNESS, now=END)


def test_no_origin_trains_on_what_was_not_known_at_it() -> None:
    data = windows()
    for train, test in backtest.origins(data):
        assert data.until[train].max() <= data.at[test].min()
    tested = sum(test.sum() for _, test in backtest.origins(data))
    assert tested == pytest.approx(backtest.TESTED * len(data), rel=0.01)


def test_the_card_shows_every_baseline_the_interval_and_plots(good: Trial) -> None:
    card = good.files["card.md"].decode()
    for name in THREAT:
        assert f"| {name}: " in card
    assert card.count("<svg") == 2
    assert "false positive rate at 0.5" in card
    assert "What it cannot do" in card


def test_weights_are_read_as_weights_and_nothing_else(good: Trial) -> None:
    net = Net.load(good.files["threat.npz"])
    again = from_state(good.files["platform_threat_model.pt"], net.kind, net.features)
    assert np.allclose(again.predict(windows().x), net.predict(windows().x))
    with pytest.raises(NotLoadable):
        Net.load(pickle.dumps({"center": 1}))
    with pytest.raises(NotLoadable):
        Net.load(good.files["threat.npz"][:-10])
    with pytest.raises(pickle.UnpicklingError):
        from_state(pickle.dumps(Path("x"), protocol=2), net.kind, net.features)
    with pytest.raises(NotLoadable):
        Net.load(replace(net, bias=np.array([np.nan])).save())


def test_weights_kept_before_there_were_bins_still_score_and_those_of_a_form_to_come_are_refused(good: Trial) -> None:
    net = Net.load(good.files["threat.npz"])
    old = replace(net, knots=np.zeros((3, 1)), linear=net.linear[:3], hidden=net.hidden[:3])
    kept = {name: getattr(old, name) for name in ARRAYS if name != "knots"}

    def saved(**more: Any) -> bytes:
        stream = io.BytesIO()
        np.savez(stream, kind=np.array("probability"), features=np.array(net.features), **kept, **more)
        return stream.getvalue()

    x = windows().x
    assert np.array_equal(Net.load(saved()).predict(x), old.predict(x))
    with pytest.raises(NotLoadable, match="form 3, this code knows forms up to 2"):
        Net.load(saved(form=np.array(3)))


def test_a_bin_is_come_through_from_its_start_to_its_end_and_one_without_width_by_nothing() -> None:
    knots = np.array([[-1.0, 0.0, 0.0, 2.0]])
    assert encoded(np.array([[-5.0], [-0.5], [1.0], [9.0]]), knots).tolist() == [
        [-5, 0, 0, 0],
        [-0.5, 0.5, 0, 0],
        [1, 1, 0, 0.5],
        [9, 1, 0, 1],
    ]


def test_quantiles_never_cross_and_levels_stay_in_their_bounds() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(600, 2))
    at = END - 2 * DAY - HOUR * np.arange(600, 0, -1)
    data = Dataset("q", "quantiles", ("a", "b"), x, x[:, 0] + rng.normal(size=600), at, at + HOUR, np.ones(600), {})
    said = fit(data, np.ones(600, bool)).predict(rng.normal(size=(500, 2)) * 100)
    assert (np.diff(said, axis=1) >= 0).all()
    level = fit(replace(data, kind="level", y=50 + 40 * np.sign(x[:, 0])), np.ones(600, bool))
    assert ((level.predict(x * 1e9) >= 0) & (level.predict(x * 1e9) <= 100)).all()


def test_ranks_are_right_also_with_ties() -> None:
    assert auc(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 0, 1, 1])) == 1.0
    assert auc(np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.0, 1, 0, 1])) == 0.5
    assert average_precision(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0, 1])) == pytest.approx((1 + 2 / 3) / 2)


# --- the registry


@pytest.fixture
def registry(tmp_path: Path, good: Trial) -> Registry:
    registry = Registry(objects.at(str(tmp_path / "models")))
    for version in ("v1", "v2"):
        registry.store("threat", version, good.files, {"decision": "promoted"})
    return registry


def test_a_version_is_current_once_it_has_loaded_and_the_one_before_comes_back(registry: Registry) -> None:
    for version in ("v1", "v2"):
        registry.point("threat", version, by="me", why="a test", now=NOW)
    assert registry.champion("threat").version == "v2"
    back = registry.rollback("threat", by="me", why="it is worse", now=NOW)
    assert (back.version, back.number) == ("v1", 3)
    net = registry.champion("threat").parts["threat"]
    assert np.isfinite(net.predict(windows().x)).all()
    assert [p.version for p in registry.pointers("threat")] == ["v1", "v2", "v1"]


def test_a_version_never_changes_and_a_changed_one_is_not_loaded(
    registry: Registry, good: Trial, tmp_path: Path
) -> None:
    registry.store("threat", "v1", good.files, {"decision": "promoted"})
    with pytest.raises(Refused, match="a version never changes"):
        registry.store("threat", "v1", {**good.files, "card.md": b"other"}, {"decision": "promoted"})
    (tmp_path / "models/threat/versions/v2/threat.npz").write_bytes(b"other")
    with pytest.raises(Refused, match="somebody changed it"):
        registry.point("threat", "v2", by="me", why="a test", now=NOW)
    assert registry.current("threat") is None


def test_without_a_manifest_there_is_no_version(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "models/threat/versions/v2/manifest.json").unlink()
    assert [one["version"] for one in registry.versions("threat")] == ["v1"]
    for version in ("v2", "v9", "../v1"):
        with pytest.raises(Refused, match="no whole version"):
            registry.load("threat", version)


def test_of_two_promotions_at_once_one_is_told_to_look_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "current", lambda _: None)
    registry.point("threat", "v1", by="me", why="a test", now=NOW)
    with pytest.raises(Retry):
        registry.point("threat", "v2", by="you", why="a test", now=NOW)


def test_there_is_nothing_to_roll_back_to_at_first(registry: Registry) -> None:
    with pytest.raises(Refused, match="nothing"):
        registry.rollback("threat", by="me", why="a test", now=NOW)
    registry.point("threat", "v1", by="me", why="a test", now=NOW)
    with pytest.raises(Refused, match="nothing"):
        registry.rollback("threat", by="me", why="a test", now=NOW)


def test_an_export_holds_exactly_the_current_versions(registry: Registry, tmp_path: Path, good: Trial) -> None:
    registry.point("threat", "v2", by="me", why="a test", now=NOW)
    assert registry.export(tmp_path / "out") == [("threat", "v2")]
    names = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert names == {f"threat/{name}" for name in (*good.files, "manifest.json")}
