"""What is reported of a backtest beside its loss: what the probabilities, levels and quantiles are worth."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from shared.models.backtest import Backtest
from shared.models.dataset import Floats, auc
from shared.models.net import QUANTILES

THRESHOLDS = (0.5, 0.8, 0.95)
_BINS = 10


def measures(kind: str, tested: Backtest) -> dict[str, Any]:
    """Flat numbers, and `calibration` as rows of predicted, seen, share of the tested rows."""
    if kind == "probability":
        return _of_probability(tested.predicted, tested.y)
    if kind == "level":
        off = tested.predicted - tested.y
        return {"mae": float(np.abs(off).mean()), "bias": float(off.mean()), "calibration": _bins(tested)}
    below = tested.y[:, None] <= tested.predicted
    covered = {f"below_q{round(100 * q)}": float(share) for q, share in zip(QUANTILES, below.mean(axis=0), strict=True)}
    rows = [[q, share, 1.0] for q, share in zip(QUANTILES, below.mean(axis=0).tolist(), strict=True)]
    return {**covered, "calibration": rows}


def _of_probability(p: Floats, y: Floats) -> dict[str, Any]:
    truth = y > 0.5
    found: dict[str, Any] = {
        "auc": auc(p, y),
        "average_precision": average_precision(p, y),
        "brier": float(((p - y) ** 2).mean()),
        "recall_at_1_percent_false": _recall_at(p, truth, 0.01),
        "positives": int(truth.sum()),
        "rows": len(y),
    }
    for threshold in THRESHOLDS:
        said = p >= threshold
        found[f"false_positive_rate_at_{threshold:g}"] = float(said[~truth].mean()) if (~truth).any() else 0.0
        found[f"recall_at_{threshold:g}"] = float(said[truth].mean()) if truth.any() else 0.0
    edges = np.minimum((p * _BINS).astype(int), _BINS - 1)
    found["calibration"] = [
        [float(p[edges == n].mean()), float(y[edges == n].mean()), float((edges == n).mean())]
        for n in range(_BINS)
        if (edges == n).any()
    ]
    return found


def average_precision(p: Floats, y: Floats) -> float:
    """The mean precision at each true row, from the most probable down."""
    truth = y[np.argsort(-p, kind="stable")] > 0.5
    if not truth.any():
        return 0.0
    precision = np.cumsum(truth) / np.arange(1, len(truth) + 1)
    return float(precision[truth].mean())


def _recall_at(p: Floats, truth: np.typing.NDArray[np.bool_], false: float) -> float:
    if not truth.any() or truth.all():
        return 0.0
    return float((p[truth] > np.quantile(p[~truth], 1 - false)).mean())


def _bins(tested: Backtest) -> list[list[float]]:
    edges = np.array_split(np.argsort(tested.predicted, kind="stable"), _BINS)
    n = len(tested.y)
    return [[float(tested.predicted[e].mean()), float(tested.y[e].mean()), len(e) / n] for e in edges if len(e)]


def flat(tested: Backtest, more: Mapping[str, Any]) -> dict[str, Any]:
    """A part's numbers as training_run keeps them."""
    return {"loss": tested.loss, **more, "by_origin": [dict(one) for one in tested.by_origin]}
