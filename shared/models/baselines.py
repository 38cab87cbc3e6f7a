"""What a model must beat: the naive forecasts anybody would make, each fitted on the training rows alone."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from shared.models.dataset import Dataset, Floats, Mask
from shared.models.net import QUANTILES
from shared.models.training import scale_of

Predict = Callable[[Dataset, Mask, Mask], Floats]
"""Predictions for the rows of the second mask, having seen those of the first."""

_RIDGE = 1.0
_ROUNDS = 25
_SMALL = 1e-8


class Baseline(NamedTuple):
    """A named forecast, and what it does in a few words for the model's card."""

    what: str
    predict: Predict


def rate() -> Baseline:
    """The share of the rows so far."""

    def predict(data: Dataset, train: Mask, test: Mask) -> Floats:
        return np.full(int(test.sum()), _share(data.y[train], data.weight[train]))

    return Baseline("the share so far, for every row", predict)


def logistic(*names: str) -> Baseline:
    """Logistic regression on some features (all, where none is named)."""

    def predict(data: Dataset, train: Mask, test: Mask) -> Floats:
        columns = [data.features.index(name) for name in names or data.features]
        center, scale = scale_of(data.x[train][:, columns])
        z = np.clip((data.x[:, columns] - center) / scale, -8, 8)
        return _logistic(z[train], data.y[train], data.weight[train], z[test])

    return Baseline(f"logistic regression on {', '.join(names) if names else 'every feature'}", predict)


def by_hint(name: str) -> Baseline:
    """Logistic regression on one hint: the hint, calibrated."""

    def predict(data: Dataset, train: Mask, test: Mask) -> Floats:
        column = data.hints[name][:, None]
        return _logistic(column[train], data.y[train], data.weight[train], column[test])

    return Baseline(f"{name.replace('_', ' ')}, calibrated", predict)


def robust_z() -> Baseline:
    """How far the furthest feature is from its median, calibrated."""

    def predict(data: Dataset, train: Mask, test: Mask) -> Floats:
        center, scale = scale_of(data.x[train])
        z = np.abs(np.clip((data.x - center) / scale, -8, 8)).max(axis=1)[:, None]
        return _logistic(z[train], data.y[train], data.weight[train], z[test])

    return Baseline("the largest robust z-score of a feature, calibrated", predict)


def value(name: str) -> Baseline:
    """A hint as it is."""
    return Baseline(f"{name.replace('_', ' ')}", lambda data, _, test: data.hints[name][test])


def value_with_spread(name: str) -> Baseline:
    """A hint, with the quantiles of how it has missed so far."""

    def predict(data: Dataset, train: Mask, test: Mask) -> Floats:
        missed = np.quantile((data.y - data.hints[name])[train], QUANTILES)
        return np.asarray(data.hints[name][test][:, None] + missed)

    return Baseline(f"{name.replace('_', ' ')}, with the quantiles of its errors", predict)


THREAT: Mapping[str, Baseline] = {
    "rate": rate(),
    "rules": by_hint("rule_score"),
    "robust z-score": robust_z(),
    "logistic regression": logistic(),
}
CES: Mapping[str, Baseline] = {
    "last value": value("last_value"),
    "seasonal": value("seasonal"),
    "exponentially weighted": value("exponentially_weighted"),
}
BREACH: Mapping[str, Baseline] = {
    "rate": rate(),
    "last value": by_hint("last_value"),
    "seasonal": by_hint("seasonal"),
    "exponentially weighted": by_hint("exponentially_weighted"),
}
LATENCY: Mapping[str, Baseline] = {
    "last value": value_with_spread("last_value"),
    "seasonal": value_with_spread("seasonal"),
    "exponentially weighted": value_with_spread("exponentially_weighted"),
}


def _share(y: Floats, weight: Floats) -> float:
    return float(np.clip(np.average(y, weights=weight), 1e-4, 1 - 1e-4))


def _logistic(z: Floats, y: Floats, weight: Floats, asked: Floats) -> Floats:
    """Ridge logistic regression by Newton's method, each step halved until it lowers the loss (Armijo, 1966).

    Whole steps may go back and forth for ever where few answers are yes, and nothing is easier to beat than that.
    """
    design = np.column_stack([np.ones(len(z)), z])
    weight = weight / weight.mean()
    share = _share(y, weight)
    beta = np.zeros(design.shape[1])
    beta[0] = np.log(share / (1 - share))
    penalty = np.full(design.shape[1], _RIDGE)
    penalty[0] = 0.0

    def loss(beta: Floats) -> float:
        raw = design @ beta
        return float(weight @ (np.logaddexp(0, raw) - y * raw) + penalty @ beta**2 / 2)

    for _ in range(_ROUNDS):
        p = _sigmoid(design @ beta)
        curve = weight * np.maximum(p * (1 - p), 1e-9)
        gradient = design.T @ (weight * (y - p)) - penalty * beta
        hessian = (design * curve[:, None]).T @ design + np.diag(penalty + 1e-9)
        step, before = np.linalg.solve(hessian, gradient), loss(beta)
        while np.abs(step).max() > _SMALL and loss(beta + step) > before - 1e-4 * float(gradient @ step):
            step /= 2
        if np.abs(step).max() <= _SMALL:
            break
        beta += step
    return _sigmoid(np.column_stack([np.ones(len(asked)), asked]) @ beta)


def _sigmoid(raw: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(raw, -30, 30))))
