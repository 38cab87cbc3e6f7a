"""Days of services as the two data sets of the SLA model: will the target be missed, how slow will it be.

A service is a row of numbers here: neither it nor its account is a feature. Each account has the same say, however many
services it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
from sqlalchemy import text

from shared.context import Context
from shared.models.dataset import Dataset, Floats, Seconds

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

_DAYS = text("""
    select a.service_id, a.account_id, extract(epoch from a.bucket_start) as start, a.uptime, a.error_rate,
           a.average_ms, s.sla_target,
           1.0 / count(*) over (partition by a.account_id, a.bucket_start) as weight
      from aggregated_analytics a join monitored_service s on s.id = a.service_id
     where a.granularity = 'day'
       and a.bucket_start >= :since
       and a.bucket_start < :until
       and a.uptime is not null
     order by a.service_id, a.bucket_start""")


@dataclass(frozen=True)
class Days:
    """Days of services, by service and then by time; `average_ms` is NaN where nothing answered."""

    service: Seconds
    accounts: Sequence[str]  # for writing forecasts, never for learning
    start: Seconds
    uptime: Floats
    error_rate: Floats
    average_ms: Floats
    target: Floats
    weight: Floats


def read(ctx: Context, *, days: int) -> Days:
    """The whole days until today, at most so many."""
    today = ctx.now.replace(hour=0, minute=0, second=0, microsecond=0)
    with ctx.read() as connection:
        binds: dict[str, datetime] = {"since": today - timedelta(days=days), "until": today}
        return of(connection.execute(_DAYS, binds).all())


def of(rows: Sequence[Any]) -> Days:
    """From rows of service_id, account_id, start, uptime, error_rate, average_ms, sla_target (per cent), weight."""
    numbers = np.array([(r[0], *r[2:]) for r in rows], dtype=np.float64).reshape(len(rows), 7)
    whole = numbers.T
    return Days(
        whole[0].astype(np.int64),
        [r[1] for r in rows],
        whole[1].astype(np.int64),
        whole[2],
        np.nan_to_num(whole[3]),
        whole[4],
        whole[5] / 100,
        whole[6],
    )


@dataclass(frozen=True)
class Made:
    """Features of every day, and what follows it where the next day is known."""

    x: Floats
    missed: Floats
    follows: np.typing.NDArray[np.bool_]  # the row below is the next day of the same service
    latency: Floats  # natural logarithm of milliseconds, the last known one where a day has none
    seasonal_missed: Floats
    seasonal_latency: Floats


def features(d: Days) -> Made:
    """Each row from days up to its own."""
    n = len(d.service)
    missed = (d.uptime < d.target).astype(np.float64)
    short = np.log(np.maximum(1 - d.uptime, _TRACE))
    latency = np.log(np.maximum(d.average_ms, 0.01))
    week, month, weighted = np.empty(n), np.empty(n), np.empty(n)
    slow, slow_week = np.empty(n), np.empty(n)
    seasonal_missed, seasonal_latency = np.zeros(n), np.empty(n)
    edges = np.concatenate(([0], np.flatnonzero(np.diff(d.service)) + 1, [n])) if n else np.zeros(1, dtype=np.int64)
    for begin, end in pairwise(edges.tolist()):
        own = slice(begin, end)
        latency[own] = _filled(latency[own])
        week[own], month[own] = _trailing(short[own], 7), _trailing(short[own], 28)
        weighted[own], slow[own] = _weighted(missed[own], float(missed[own][0])), _weighted(latency[own], None)
        slow_week[own] = _trailing(latency[own], 7)
        back = np.maximum(np.arange(end - begin) - 6, 0)
        seasonal_missed[own], seasonal_latency[own] = missed[own][back], latency[own][back]
    turn = 2 * np.pi * ((d.start // _DAY + 4) % 7) / 7  # the first of January 1970 was a Thursday
    columns = [short, week, month, missed, weighted, d.error_rate, np.log(1 - d.target + _TRACE), latency, slow]
    x = np.column_stack([*columns, slow_week, np.sin(turn), np.cos(turn)])
    follows = np.zeros(n, dtype=bool)
    follows[:-1] = (d.service[1:] == d.service[:-1]) & (np.diff(d.start) == _DAY)
    return Made(x, missed, follows, latency, seasonal_missed, seasonal_latency)


def breach(d: Days, made: Made) -> Dataset:
    """Days with a day after them: did that one miss its target."""
    rows = np.flatnonzero(made.follows)
    hints = {
        "last_value": made.missed,
        "seasonal": made.seasonal_missed,
        "exponentially_weighted": made.x[:, FEATURES.index("missed_weighted")],
    }
    return _dataset("sla breach", "probability", d, made, rows, made.missed, hints)


def latency(d: Days, made: Made) -> Dataset:
    """Days with a day after them that was answered: how slow was that one, as a logarithm."""
    answered = np.isfinite(d.average_ms) & (d.average_ms > 0)
    rows = np.flatnonzero(made.follows & np.concatenate((answered[1:], [False])) & np.isfinite(made.latency))
    hints = {
        "last_value": made.latency,
        "seasonal": made.seasonal_latency,
        "exponentially_weighted": made.x[:, FEATURES.index("latency_weighted")],
    }
    return _dataset("sla latency", "quantiles", d, made, rows, np.log(np.maximum(d.average_ms, 0.01)), hints)


def _dataset(
    name: str,
    kind: str,
    d: Days,
    made: Made,
    rows: np.typing.NDArray[np.int64],
    answer: Floats,
    hints: dict[str, Floats],
) -> Dataset:
    rows = rows[np.isfinite(made.x[rows]).all(axis=1)]  # a service that has never answered has no latency to go by
    rows = rows[np.argsort(d.start[rows], kind="stable")]
    at = d.start[rows] + _DAY
    kept = {hint: column[rows] for hint, column in hints.items()}
    return Dataset(name, kind, FEATURES, made.x[rows], answer[rows + 1], at, at + _DAY, d.weight[rows], kept)


def _filled(column: Floats) -> Floats:
    """Gaps filled with what was before them, and those at the start with the first that is known."""
    known = np.flatnonzero(np.isfinite(column))
    if not len(known):
        return column
    return column[known[np.maximum(np.searchsorted(known, np.arange(len(column)), side="right") - 1, 0)]]


def _trailing(column: Floats, days: int) -> Floats:
    sums = np.concatenate(([0.0], np.cumsum(column)))
    high = np.arange(1, len(column) + 1)
    low = np.maximum(high - days, 0)
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _weighted(column: Floats, start: float | None) -> Floats:
    found, held = np.empty_like(column), float(column[0]) if start is None else start
    for n, one in enumerate(column.tolist()):
        held += _MEMORY * (one - held)
        found[n] = held
    return found
