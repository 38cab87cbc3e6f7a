"""Rolling-origin backtests, and whether one forecast is better than another: with a confidence interval.

Each origin trains on what was known before it and is tested on what came after, until the next origin. Losses are
compared row by row; days are drawn again with all their rows together (a paired block bootstrap), since the rows of a
day are not independent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from shared.models.baselines import Baseline
from shared.models.dataset import Dataset, Floats, Mask, Unfit
from shared.models.net import QUANTILES, Net
from shared.models.training import fit

ORIGINS = 4
TESTED = 0.4  # of the span, its last part
_DRAWS = 2000
_MOST_BLOCKS = 500
_LEVEL = 0.95
_SEED = 7
_LEAST = 1e-6


class Comparison(NamedTuple):
    """The model's loss less another's: negative is better. The interval holds it with 95 % confidence."""

    other: str
    other_loss: float
    difference: float
    low: float
    high: float

    @property
    def better(self) -> bool:
        return self.high < 0


@dataclass(frozen=True)
class Backtest:
    """What came of all origins together; `predicted`, `y` and `weight` are the tested rows in the order of time."""

    loss: float
    by_origin: tuple[Mapping[str, float], ...]  # "model" and each other's name
    comparisons: tuple[Comparison, ...]
    predicted: Floats = field(repr=False)
    y: Floats = field(repr=False)
    weight: Floats = field(repr=False)


def origins(data: Dataset) -> Iterator[tuple[Mask, Mask]]:
    """Training and tested rows of each origin: an answer known after the origin is not trained on."""
    first, last = int(data.at[0]), int(data.at[-1]) + 1
    cuts = np.linspace(last - TESTED * (last - first), last, ORIGINS + 1).astype(np.int64)
    for start, end in pairwise(cuts):
        train, test = data.until <= start, (data.at >= start) & (data.at < end)
        if train.any() and test.any():
            yield train, test


def run(data: Dataset, baselines: Mapping[str, Baseline], champion: Net | None) -> Backtest:
    """Backtest a model of this shape against its baselines and the champion.

    The champion has seen what it is tested on here, which speaks for it: a challenger that beats it is the better.
    Raises Unfit where no origin has rows on both sides.
    """
    losses: dict[str, list[Floats]] = {"model": []}
    tested: list[Mask] = []
    predictions: list[Floats] = []
    for train, test in origins(data):
        if np.ptp(data.y[train]) == 0:
            continue
        predicted = fit(data, train).predict(data.x[test])
        predictions.append(predicted)
        tested.append(test)
        losses["model"].append(loss(data.kind, predicted, data.y[test]))
        for name, baseline in baselines.items():
            losses.setdefault(name, []).append(loss(data.kind, baseline.predict(data, train, test), data.y[test]))
        if champion is not None and champion.features == data.features:
            said = champion.predict(data.x[test])
            losses.setdefault("champion", []).append(loss(data.kind, said, data.y[test]))
    if not tested:
        raise Unfit(f"no origin of {data.name} has rows to learn from before it and rows to test after it")
    rows = np.concatenate([np.flatnonzero(test) for test in tested])
    weight, whole = data.weight[rows], {name: np.concatenate(parts) for name, parts in losses.items()}
    mean = {name: float(np.average(one, weights=weight)) for name, one in whole.items()}
    day = data.at[rows] // 86400
    compared = tuple(
        _compare(name, mean[name], whole["model"] - whole[name], weight, day) for name in whole if name != "model"
    )
    by_origin = tuple(
        {name: float(np.average(parts[n], weights=data.weight[test])) for name, parts in losses.items()}
        for n, test in enumerate(tested)
    )
    return Backtest(mean["model"], by_origin, compared, np.concatenate(predictions), data.y[rows], weight)


def loss(kind: str, predicted: Floats, y: Floats) -> Floats:
    """A row's loss: of the logarithm for probabilities, absolute for levels, of the pinball for quantiles."""
    if kind == "probability":
        p = np.clip(predicted, _LEAST, 1 - _LEAST)
        return np.asarray(-(y * np.log(p) + (1 - y) * np.log(1 - p)))
    if kind == "level":
        return np.asarray(np.abs(predicted - y))
    off = y[:, None] - predicted
    at = np.array(QUANTILES)
    return np.asarray(np.maximum(at * off, (at - 1) * off).sum(axis=1))


def _compare(name: str, other: float, difference: Floats, weight: Floats, day: Floats) -> Comparison:
    _, block = np.unique(day, return_inverse=True)
    block //= -(-(int(block.max()) + 1) // _MOST_BLOCKS)  # several days together where there are years of them
    sums, weights = np.bincount(block, difference * weight), np.bincount(block, weight)
    drawn = np.random.default_rng(_SEED).integers(len(sums), size=(_DRAWS, len(sums)))
    means = sums[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Comparison(name, other, float(sums.sum() / weights.sum()), float(low), float(high))
