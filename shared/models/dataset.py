"""What a model learns from: a frozen snapshot in the order of time, and what makes it unfit to learn from."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.wording import counted

Floats = npt.NDArray[np.float64]
Seconds = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Unfit(Exception):
    """The data must not be learned from; the message says why."""


class TooLittle(Unfit):
    """There is not enough of it yet, which time mends."""


@dataclass(frozen=True)
class Fitness:
    """The least there must be: rows, days from first to last, rows of the rarer answer."""

    rows: int
    days: int
    rarer: int


@dataclass(frozen=True)
class Dataset:
    """Rows sorted by `at`. Seconds since 1970: a row's features were known at `at`, its answer at `until`.

    `hints` are what baselines predict by, known at `at` as well. `weight` gives each account the same say.
    """

    name: str
    kind: str  # probability, level (0 to 100) or quantiles
    features: tuple[str, ...]
    x: Floats  # rows by features
    y: Floats
    at: Seconds
    until: Seconds
    weight: Floats
    hints: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.y)

    def hash(self) -> str:
        """The SHA-256 of everything that training reads."""
        digest = hashlib.sha256(repr((self.name, self.kind, self.features, sorted(self.hints))).encode())
        for array in (self.x, self.y, self.at, self.until, self.weight, *(self.hints[k] for k in sorted(self.hints))):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


# A feature that orders the answers this well by itself knows them.
_TOO_GOOD = 0.9995


def check(data: Dataset, fitness: Fitness, *, now: int) -> None:
    """Raise Unfit where this must not be learned from. `now` in seconds since 1970."""
    if len(data) < fitness.rows:
        raise TooLittle(f"too little data: {counted(len(data), 'row')} of {data.name}, {fitness.rows} are needed")
    if np.any(np.diff(data.at) < 0) or np.any(data.until < data.at):
        raise Unfit(f"the rows of {data.name} are not in the order of time")
    days = (int(data.at[-1]) - int(data.at[0])) / 86400
    if days < fitness.days:
        raise TooLittle(f"too little data: {days:.1f} days of {data.name}, {fitness.days} are needed")
    if data.until.max() > now:
        raise Unfit(f"a leak: {int((data.until > now).sum())} answers of {data.name} are of the future")
    for what, array in (("features", data.x), ("answers", data.y), ("weights", data.weight), *data.hints.items()):
        if not np.isfinite(array).all():
            raise Unfit(f"{int((~np.isfinite(array)).sum())} of the {what} of {data.name} are not finite numbers")
    if np.ptp(data.y) == 0:
        raise Unfit(f"the answer of {data.name} is always {data.y[0]:g}: there is nothing to learn")
    if data.kind == "probability":
        rarer = int(min(data.y.sum(), (1 - data.y).sum()))
        if rarer < fitness.rarer:
            said = f"the rarer answer of {data.name} is there {counted(rarer, 'time')}, {fitness.rarer} are needed"
            raise TooLittle(f"too little data: {said}")
    for name, column in zip(data.features, data.x.T, strict=True):
        if _knows(column, data.y, data.kind):
            raise Unfit(f"a leak: feature {name} of {data.name} alone gives the answer away")


def _knows(column: Floats, y: Floats, kind: str) -> bool:
    if np.ptp(column) == 0:
        return False
    if kind == "probability":
        return bool(max(auc(column, y), auc(-column, y)) > _TOO_GOOD)
    return bool(abs(np.corrcoef(column, y)[0, 1]) > _TOO_GOOD)


def auc(score: Floats, y: Floats) -> float:
    """The area under the curve of operating characteristics, by ranks; ties count half."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    first = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    group = np.cumsum(first) - 1
    counts = np.bincount(group)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[group]
    positive = y[order] > 0.5
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else 0.5
