"""Windows of traffic as arrays, and the two data sets made of them: is it an attack, and how well is it met.

No account is in a window, and a window with fewer than k of them is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import text

from shared.context import Context
from shared.models.dataset import Dataset, Floats, Seconds

THREAT_FEATURES = (
    "error_ratio",
    "failure_ratio",
    "suspicious_ratio",
    "bot_ratio",
    "indicator_matches",
    "asn_entropy",
    "path_entropy",
    "rate_change",
    "suspicious_before",
    "bots_before",
)
CES_FEATURES = (
    "ces",
    "ces_day",
    "ces_week",
    "ces_weighted",
    "suspicious_ratio",
    "failure_ratio",
    "incidents",
    "rate_change",
    "suspicious_day",
    "hour_sine",
    "hour_cosine",
    "weekday_sine",
    "weekday_cosine",
)

# An answer is believed to be known a day after its window: whoever labels needs time.
LABEL_DELAY_S = 86_400
_AHEAD_S = 86_400
_LEAST_AHEAD = 20
_MEMORY = 0.1

# The operator's word goes before an incident's, and that before an indicator's; then what the window was given.
_WINDOWS = text("""
    select cast(extract(epoch from w.window_start) as double precision) as start, w.requests, w.error_ratio,
           w.failure_ratio, w.suspicious_ratio, w.bot_ratio, w.indicator_matches, w.asn_entropy, w.path_entropy,
           w.rate_change, w.rate_limited, w.blocked, w.incidents,
           coalesce((select cast(l.is_attack as integer)
                       from window_label l
                      where l.window_start = w.window_start
                        and l.width_s = w.width_s
                      order by array_position(array['operator', 'incident', 'indicator'], l.source)
                      limit 1),
                    cast(w.is_attack as integer)) as attack
      from ml_window w
     where w.width_s = :width
       and w.accounts >= :least
       and w.window_start >= :since
       and w.window_start < :until
     order by w.window_start""")
_SPAN = text("select min(window_start) as first, max(window_start) as last from ml_window where width_s = :width")
_CHUNK = 20_000  # windows, some tens of megabytes as rows


@dataclass(frozen=True)
class Windows:
    """Columns of the windows, in the order of time. `attack` is NaN where nobody has said."""

    start: Seconds
    width_s: int
    columns: dict[str, Floats]

    def __getitem__(self, name: str) -> Floats:
        return self.columns[name]

    @property
    def end(self) -> Seconds:
        return self.start + self.width_s

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]], width_s: int) -> "Windows":
        """From rows of `start` and the columns in `NAMES`' order; null becomes NaN."""
        table = np.array(rows, dtype=np.float64).reshape(len(rows), len(NAMES) + 1)
        columns = {name: table[:, n + 1] for n, name in enumerate(NAMES)}
        return cls(table[:, 0].astype(np.int64), width_s, columns)


NAMES = (
    "requests",
    "error_ratio",
    "failure_ratio",
    "suspicious_ratio",
    "bot_ratio",
    "indicator_matches",
    "asn_entropy",
    "path_entropy",
    "rate_change",
    "rate_limited",
    "blocked",
    "incidents",
    "attack",
)


def read(ctx: Context, *, width_s: int, least_accounts: int) -> Windows:
    """The windows there are."""
    parts: list[Windows] = []
    chunk = timedelta(seconds=_CHUNK * width_s)
    with ctx.read() as connection:
        span = connection.execute(_SPAN, {"width": width_s}).one()
        at: datetime | None = span.first
        while at is not None and at <= span.last:
            binds = {"width": width_s, "least": least_accounts, "since": at, "until": at + chunk}
            parts.append(Windows.of([tuple(row) for row in connection.execute(_WINDOWS, binds)], width_s))
            at += chunk
    if not parts:
        return Windows.of([], width_s)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in NAMES}
    return Windows(np.concatenate([part.start for part in parts]), width_s, columns)


def threat_features(w: Windows) -> Floats:
    """A row a window, as THREAT_FEATURES names them."""
    follows = np.concatenate(([False], np.diff(w.start) == w.width_s))
    return np.column_stack(
        [
            w["error_ratio"],
            w["failure_ratio"],
            w["suspicious_ratio"],
            w["bot_ratio"],
            np.log1p(w["indicator_matches"]),
            w["asn_entropy"],
            w["path_entropy"],
            np.log(np.maximum(np.nan_to_num(w["rate_change"], nan=1.0), 1e-3)),
            _before(w["suspicious_ratio"], follows),
            _before(w["bot_ratio"], follows),
        ]
    )


def threat(w: Windows, *, now: int) -> Dataset:
    """Windows whose answer is known: was it an attack."""
    x = threat_features(w)
    known = np.isfinite(w["attack"]) & (w.end + LABEL_DELAY_S <= now)
    rules = w["suspicious_ratio"] + 0.5 * w["bot_ratio"] + w["indicator_matches"] / np.maximum(w["requests"], 1)
    return Dataset(
        "threat",
        "probability",
        THREAT_FEATURES,
        x[known],
        w["attack"][known],
        w.end[known],
        w.end[known] + LABEL_DELAY_S,
        np.ones(int(known.sum())),
        {"rule_score": rules[known]},
    )


def effectiveness(w: Windows) -> Floats:
    """The Countermeasure Effectiveness Score of each window, 0 to 100, by the formula of docs/models.md."""
    suspicious = w["suspicious_ratio"] * w["requests"]
    met = np.where(suspicious < 1, 1.0, np.minimum(1.0, (w["rate_limited"] + w["blocked"]) / np.maximum(suspicious, 1)))
    through = np.minimum(1.0, w["suspicious_ratio"] * (1 - met) / 0.05)
    failed = np.minimum(1.0, w["failure_ratio"] / 0.05)
    return np.asarray(100 * (0.5 * met + 0.3 * (1 - through) + 0.1 * (1 - failed) + 0.1 / (1 + w["incidents"])))


def ces_features(w: Windows) -> Floats:
    """A row a window, as CES_FEATURES names them."""
    score = effectiveness(w)
    day, week = (2 * np.pi * (w.start % span) / span for span in (86_400, 7 * 86_400))
    return np.column_stack(
        [
            score,
            _mean_before(w.start, score, _AHEAD_S),
            _mean_before(w.start, score, 7 * _AHEAD_S),
            _weighted(score),
            w["suspicious_ratio"],
            w["failure_ratio"],
            w["incidents"],
            np.log(np.maximum(np.nan_to_num(w["rate_change"], nan=1.0), 1e-3)),
            _mean_before(w.start, w["suspicious_ratio"], _AHEAD_S),
            np.sin(day),
            np.cos(day),
            np.sin(week),
            np.cos(week),
        ]
    )


def ces(w: Windows, *, now: int) -> Dataset:
    """Windows with a whole day after them: what was the mean score of that day."""
    x, score = ces_features(w), effectiveness(w)
    sums = np.concatenate(([0.0], np.cumsum(score)))
    low, high = np.searchsorted(w.start, w.end), np.searchsorted(w.start, w.end + _AHEAD_S)
    ahead = high - low
    whole = (ahead >= _LEAST_AHEAD) & (w.end + _AHEAD_S <= now)
    y = (sums[high] - sums[low]) / np.maximum(ahead, 1)
    named = {"last_value": "ces", "seasonal": "ces_day", "exponentially_weighted": "ces_weighted"}
    return Dataset(
        "ces",
        "level",
        CES_FEATURES,
        x[whole],
        y[whole],
        w.end[whole],
        w.end[whole] + _AHEAD_S,
        np.ones(int(whole.sum())),
        {hint: x[whole][:, CES_FEATURES.index(feature)] for hint, feature in named.items()},
    )


def _before(column: Floats, follows: np.typing.NDArray[np.bool_]) -> Floats:
    """The value of the window just before; this one's own where that is missing."""
    shifted = np.concatenate((column[:1], column[:-1]))
    return np.where(follows, shifted, column)


def _mean_before(start: Seconds, column: Floats, span_s: int) -> Floats:
    """The mean over the span that ends with each window."""
    sums = np.concatenate(([0.0], np.cumsum(column)))
    high = np.arange(1, len(column) + 1)
    low = np.searchsorted(start, start - span_s, side="right")
    return np.asarray((sums[high] - sums[low]) / np.maximum(high - low, 1))


def _weighted(column: Floats) -> Floats:
    """The exponentially weighted mean up to each window."""
    found, held = np.empty_like(column), float(column[0]) if len(column) else 0.0
    for n, one in enumerate(column.tolist()):
        held += _MEMORY * (one - held)
        found[n] = held
    return found
