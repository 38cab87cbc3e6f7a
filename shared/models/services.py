"""Days of services as the two data sets of the SLA model: will the target be missed, how slow will it be.

A service is a row of numbers here: neither it nor its account is a feature. Each account has the same say, however many
services it has.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from shared.models.dataset import Dataset, Floats, Mask, Seconds

FEATURES = (
    "short_day",
    "short_week",
    "short_month",
    "missed_day",
    "missed_weighted",
    "error_rate",
    "target",
    "latency_day",
    "latency_weighted",
    "latency_week",
    "weekday_sine",
    "weekday_cosine",
)
_DAY = 86_400
_MEMORY = 0.2
_TRACE = 1e-4  # of downtime, the least that is told from none on a logarithmic scale


@dataclass(frozen=True)
class Days:
    """A row a day with its features, all known when it ended, and what the day after it came to.

    `missed_next` (0 or 1) and `latency_next` (a logarithm of milliseconds) are NaN where that day is not known. A
    feature is NaN where the service has not answered yet. `week_ago` is as of the day forecast.
    """

    service: Seconds
    start: Seconds
    weight: Floats
    x: Floats
    missed_next: Floats
    latency_next: Floats
    missed_week_ago: Floats
    latency_week_ago: Floats

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: Mask | Seconds) -> "Days":
        return Days(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def of(cls, table: Floats) -> "Days":
        """From rows of service, start (seconds since 1970), uptime, error rate, average milliseconds (NaN where
        nothing answered), target (per cent) and weight, by service and then by time."""
        service, start, uptime, error_rate, average_ms, target, weight = table.T
        n = len(table)
        target = target / 100
        missed = (uptime < target).astype(np.float64)
        short = np.log(np.maximum(1 - uptime, _TRACE))
        answered = np.log(np.where(average_ms > 0, average_ms, np.nan))
        week, month, weighted, slow, slow_week = (np.full(n, np.nan) for _ in range(5))
        latency, missed_week_ago, latency_week_ago = (np.full(n, np.nan) for _ in range(3))
        edges = np.concatenate(([0], np.flatnonzero(np.diff(service)) + 1, [n])) if n else np.zeros(1, dtype=np.int64)
        for begin, end in pairwise(edges.tolist()):
            own = slice(begin, end)
            week[own], month[own] = _trailing(short[own], 7), _trailing(short[own], 28)
            weighted[own], missed_week_ago[own] = _weighted(missed[own]), _week_ago(missed[own])
            if len(known := np.flatnonzero(np.isfinite(answered[own]))):
                since = slice(begin + int(known[0]), end)  # what comes later says nothing of what was before it
                latency[since] = _filled(answered[since])
                slow[since], slow_week[since] = _weighted(latency[since]), _trailing(latency[since], 7)
                latency_week_ago[since] = _week_ago(latency[since])
        turn = 2 * np.pi * ((start // _DAY + 4) % 7) / 7  # the first of January 1970 was a Thursday
        columns = [short, week, month, missed, weighted, np.nan_to_num(error_rate), np.log(1 - target + _TRACE)]
        x = np.column_stack([*columns, latency, slow, slow_week, np.sin(turn), np.cos(turn)])
        follows = np.concatenate(((service[1:] == service[:-1]) & (np.diff(start) == _DAY), [False]))[:n]
        missed_next = np.where(follows, np.roll(missed, -1), np.nan)
        latency_next = np.where(follows, np.roll(answered, -1), np.nan)
        moments = service.astype(np.int64), start.astype(np.int64)
        return cls(*moments, weight, x, missed_next, latency_next, missed_week_ago, latency_week_ago)

    @classmethod
    def together(cls, parts: Sequence["Days"]) -> "Days":
        """The rows of all parts, by time and then by service: the same however they were shared out."""
        whole = cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))
        return whole[np.lexsort((whole.service, whole.start))]

    def save(self) -> bytes:
        """As the bytes of an .npz file."""
        stream = io.BytesIO()
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        np.savez(stream, **arrays)
        return stream.getvalue()

    @classmethod
    def load(cls, content: bytes) -> "Days":
        """From `save`'s bytes."""
        with np.load(io.BytesIO(content), allow_pickle=False) as kept:
            return cls(*(kept[field.name] for field in fields(cls)))


def breach(days: Days) -> Dataset:
    """Days with a day after them: did that one miss its target."""
    return _dataset("sla breach", "probability", days, days.missed_next, "missed", days.missed_week_ago)


def latency(days: Days) -> Dataset:
    """Days with a day after them that was answered: how slow was that one, as a logarithm."""
    return _dataset("sla latency", "quantiles", days, days.latency_next, "latency", days.latency_week_ago)


def _dataset(name: str, kind: str, days: Days, answer: Floats, of: str, week_ago: Floats) -> Dataset:
    # a service that has never answered has no latency to go by
    rows = np.flatnonzero(np.isfinite(answer) & np.isfinite(days.x).all(axis=1))
    x, at = days.x[rows], days.start[rows] + _DAY
    hints = {
        "last_value": x[:, FEATURES.index(f"{of}_day")],
        "seasonal": week_ago[rows],
        "exponentially_weighted": x[:, FEATURES.index(f"{of}_weighted")],
    }
    return Dataset(name, kind, FEATURES, x, answer[rows], at, at + _DAY, days.weight[rows], hints)


def _filled(column: Floats) -> Floats:
    """Gaps filled with what was before them; the first is known."""
    known = np.flatnonzero(np.isfinite(column))
    return column[known[np.searchsorted(known, np.arange(len(column)), side="right") - 1]]


def _week_ago(column: Floats) -> Floats:
    """Of the day forecast, the one after each: the same weekday before it, or the first there is."""
    return column[np.maximum(np.arange(len(column)) - 6, 0)]


def _trailing(column: Floats, days: int) -> Floats:
    sums = np.concatenate(([0.0], np.cumsum(column)))
    high = np.arange(1, len(column) + 1)
    low = np.maximum(high - days, 0)
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _weighted(column: Floats) -> Floats:
    found, held = np.empty_like(column), float(column[0])
    for n, one in enumerate(column.tolist()):
        held += _MEMORY * (one - held)
        found[n] = held
    return found
