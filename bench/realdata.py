"""train_all_models on real data, as river ships them: what the gate promotes, and what it keeps where naive wins.

Phishing (UCI; 1,250 pages, only 625 distinct, so those that look alike stay on one side of each cut), Shuttle
(Statlog; 49,097 rows), and a water main's flow by the hour, a day ahead, where "as now" is hard to beat. Our own
baselines are the gate; forests of scikit-learn, on the same rows, are there to compare. Which pages are of one side is
drawn, and one draw is luck: phishing is cut again in other orders of time, and 70 to 30 in no order. Needs
requirements-bench.txt.
"""

import csv
import gzip
import io
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from importlib.resources import files
from statistics import fmean

import numpy as np
from sklearn.ensemble import IsolationForest, RandomForestClassifier

from bench.measure import Ratio, Series, report
from shared.models import backtest
from shared.models.baselines import LATENCY, Baseline, Predict, logistic, rate, robust_z
from shared.models.dataset import Dataset, Fitness, Floats, Mask, Seconds, auc
from shared.models.measures import average_precision
from shared.models.training import fit
from shared.models.trial import Part, Trial, hold

_NOW = 4_000_000_000
_HOUR, _DAY, _WEEK_HOURS = 3600, 86_400, 168
_FITNESS = Fitness(rows=500, days=20, rarer=50)
_ORDERS, _SPLITS, _TRAINED = 12, 20, 0.7
Cuts = Callable[[Dataset], Iterable[tuple[Mask, Mask]]]

_NAIVE = {"rate": rate(), "robust z-score": robust_z(), "logistic regression": logistic()}


def _table(name: str) -> tuple[tuple[str, ...], list[list[str]]]:
    raw = (files("river") / "datasets" / name).read_bytes()
    rows = csv.reader(io.StringIO((gzip.decompress(raw) if name.endswith(".gz") else raw).decode()))
    return tuple(next(rows)), list(rows)


def _labelled(name: str, *, alike_together: bool, order: int = 1) -> Dataset:
    """Rows whose last column is the answer, an hour apart; or rows that look alike in an hour of their own, drawn."""
    names, rows = _table(name)
    table = np.array(rows, dtype=np.float64)
    x, y, hour = table[:, :-1], table[:, -1], np.arange(len(table))
    if alike_together:
        _, group = np.unique(x, axis=0, return_inverse=True)
        hour = np.random.default_rng(order).permutation(group.max() + 1)[group]
    by_hour = np.argsort(hour, kind="stable")
    at: Seconds = _NOW - _HOUR * (1 + hour.max() - hour[by_hour])
    return Dataset(name, "probability", names[:-1], x[by_hour], y[by_hour], at, at + 1, np.ones(len(y)), {})


def _water() -> Dataset:
    """An hour's flow a day ahead, as service latencies are forecast: quantiles, against the same naive forecasts."""
    _, rows = _table("water-flow.csv")
    at = np.array([int(datetime.fromisoformat(row[0]).timestamp()) for row in rows])
    flow = np.array([float(row[1]) for row in rows])
    weighted = np.empty_like(flow)
    held = flow[0]
    for n, one in enumerate(flow):
        held += 0.1 * (one - held)
        weighted[n] = held
    now = np.arange(_WEEK_HOURS, len(flow) - 24)
    means = [np.array([flow[n - span + 1 : n + 1].mean() for n in now]) for span in (24, _WEEK_HOURS)]
    turns = [2 * np.pi * (at[now] % span) / span for span in (_DAY, 7 * _DAY)]
    hints = {"last_value": flow[now], "seasonal": flow[now + 24 - _WEEK_HOURS], "exponentially_weighted": weighted[now]}
    features = {**hints, "before": flow[now - 1], "day": means[0], "week": means[1]}
    for name, turn in zip(("hour", "weekday"), turns, strict=True):
        features |= {f"{name}_sine": np.sin(turn), f"{name}_cosine": np.cos(turn)}
    order = np.argsort(at[now], kind="stable")
    sorted_at, ones = at[now][order], np.ones(len(now))
    return Dataset(
        "water flow", "quantiles", tuple(features), np.column_stack(list(features.values()))[order],
        flow[now + 24][order], sorted_at, sorted_at + _DAY, ones, {k: v[order] for k, v in hints.items()},
    )  # fmt: skip


def _model(data: Dataset, train: Mask, test: Mask) -> Floats:
    return fit(data, train).predict(data.x[test])


def _forest(data: Dataset, train: Mask, test: Mask) -> Floats:
    forest = RandomForestClassifier(random_state=0).fit(data.x[train], data.y[train])
    return np.asarray(forest.predict_proba(data.x[test])[:, 1])


def _isolation(data: Dataset, train: Mask, test: Mask) -> Floats:
    return -np.asarray(IsolationForest(random_state=0).fit(data.x[train]).score_samples(data.x[test]))


_COMPARED: Mapping[str, Predict] = {
    "model": _model,
    "logistic regression": _NAIVE["logistic regression"].predict,
    "random forest": _forest,
}


def _tried(data: Dataset, baselines: Mapping[str, Baseline]) -> Trial:
    return hold("threat", {data.name: Part(data, baselines)}, None, _FITNESS, now=_NOW, about={})


def _over(data: Dataset, predict: Predict, cuts: Cuts = backtest.origins) -> tuple[Floats, Floats]:
    """What is said of the tested rows of all cuts, and what was true."""
    parts = [(predict(data, train, test), data.y[test]) for train, test in cuts(data)]
    return np.concatenate([said for said, _ in parts]), np.concatenate([true for _, true in parts])


def _classified(data: Dataset, others: Mapping[str, Predict]) -> tuple[list[Series], dict[str, Ratio]]:
    trial = _tried(data, _NAIVE)
    name, numbers = data.name.partition(".")[0], trial.metrics[data.name]
    series = [Series(f"{name}, {trial.decision}: loss", "nats", (numbers["loss"],))]
    series += [Series(f"{name}, {k}: loss", "nats", (c["loss"],)) for k, c in trial.baselines[data.name].items()]
    found = {"model": (numbers["auc"], numbers["average_precision"])}
    for other, predict in others.items():
        said, true = _over(data, predict)
        found[other] = auc(said, true), average_precision(said, true)
    for who, (area, precision) in found.items():
        series.append(Series(f"{name}, {who}: area under the curve", "", (area,)))
        series.append(Series(f"{name}, {who}: average precision", "", (precision,)))
    ratios = {f"{name}_promoted": Ratio(float(trial.decision == "promoted"), 1, least=True)}
    return series, ratios | {
        f"{name}_auc_to_{other.replace(' ', '_')}": Ratio(found["model"][0] / area, 1, least=True)
        for other, (area, _) in found.items()
        if other != "model"
    }


def _split(data: Dataset) -> Iterable[tuple[Mask, Mask]]:
    """One cut of rows that were drawn to their hours: pages that look alike stay together."""
    train = data.at < np.quantile(np.unique(data.at), _TRAINED)
    yield train, ~train


def _drawn_again(what: str, draws: int, cuts: Cuts) -> tuple[list[Series], dict[str, Ratio]]:
    """Phishing in so many orders: the area under the curve and the loss of each, and how the means compare."""
    areas: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    for order in range(1, draws + 1):
        data = _labelled("phishing.csv.gz", alike_together=True, order=order)
        for who, predict in _COMPARED.items():
            said, true = _over(data, predict, cuts)
            areas.setdefault(who, []).append(auc(said, true))
            losses.setdefault(who, []).append(float(backtest.loss("probability", said, true).mean()))
    series = [Series(f"phishing, {what}, {who}: area under the curve", "", tuple(areas[who])) for who in areas]
    series += [Series(f"phishing, {what}, {who}: loss", "nats", tuple(losses[who])) for who in losses]
    won = sum(ours > theirs for ours, theirs in zip(areas["model"], areas["random forest"], strict=True))
    series.append(Series(f"phishing, {what}: the model's area is larger than the forest's", "draws", (won,)))
    key = what.replace(" ", "_")
    return series, {
        f"phishing_{key}_auc_to_forest": Ratio(fmean(areas["model"]) / fmean(areas["random forest"]), 1, least=True),
        f"phishing_{key}_loss_to_forest": Ratio(fmean(losses["model"]) / fmean(losses["random forest"]), 1),
    }


def run() -> dict[str, object]:
    """Losses, areas and average precision over all origins; 1 where the gate decided as it must."""
    phishing = _labelled("phishing.csv.gz", alike_together=True)
    shuttle = _labelled("shuttle.csv.gz", alike_together=False)
    naive: dict[str, Predict] = {name: _NAIVE[name].predict for name in ("robust z-score", "logistic regression")}
    series, ratios = _classified(phishing, {**naive, "random forest": _forest})
    more, more_ratios = _classified(shuttle, {**naive, "isolation forest": _isolation})
    for drawn, drawn_ratios in (
        _drawn_again(f"origins in {_ORDERS} orders", _ORDERS, backtest.origins),
        _drawn_again(f"{_SPLITS} splits", _SPLITS, _split),
    ):
        series += drawn
        ratios |= drawn_ratios
    water = _tried(_water(), LATENCY)
    numbers = water.baselines["water flow"]
    series += [
        *more,
        Series(f"water flow, {water.decision}: {water.reason}", "l/s", (water.metrics["water flow"]["loss"],)),
    ]
    series += [Series(f"water flow, {name}: loss", "l/s", (one["loss"],)) for name, one in numbers.items()]
    refused = water.decision == "kept" and "not better than last value" in water.reason
    return report(
        "realdata", series, {**ratios, **more_ratios, "water_flow_kept": Ratio(float(refused), 1, least=True)}
    )
