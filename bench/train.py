"""train_all_models: a million windows of traffic tried whole (checks, four origins, baselines, cards), then scored.

The windows are made up: attacks of every strength, rates by the hour, limits that catch most. 114 years of hours, which
is what a platform with windows of a minute has in two.
"""

import resource
import time

import numpy as np

from bench.measure import Ratio, Series, report
from shared.models.baselines import CES, THREAT
from shared.models.dataset import Dataset, Fitness
from shared.models.net import Net
from shared.models.traffic import NAMES, Windows, ces, threat
from shared.models.trial import Part, hold

_WINDOWS = 1_000_000
_WIDTH_S = 3600
_NOW = 4_000_000_000
_FITNESS = Fitness(500, 28, 20)


def _windows() -> Windows:
    rng = np.random.default_rng(1)
    n = _WINDOWS
    attack = rng.random(n) < 0.05
    force = np.where(attack, rng.beta(2, 3, n), rng.beta(1, 40, n))
    suspicious = np.minimum(1, force * rng.uniform(0.3, 0.9, n) + rng.beta(1, 80, n))
    requests = np.floor(rng.gamma(20, 20, n) * (1 + 2 * force)) + 20
    caught = requests * suspicious * rng.beta(5, 2, n)
    columns = {
        "requests": requests,
        "error_ratio": rng.beta(1, 120, n) + 0.3 * suspicious,
        "failure_ratio": rng.beta(1, 150, n) + 0.1 * force,
        "suspicious_ratio": suspicious,
        "bot_ratio": np.minimum(1, rng.beta(2, 40, n) + 0.6 * force),
        "indicator_matches": np.floor(requests * suspicious * rng.random(n) * 0.5),
        "asn_entropy": np.maximum(0, rng.normal(2.1 - 0.8 * force, 0.15)),
        "path_entropy": np.maximum(0, rng.normal(2.6 + 0.9 * force, 0.2)),
        "rate_change": np.exp(rng.normal(0, 0.2, n)),
        "rate_limited": np.floor(caught * 0.4),
        "blocked": np.floor(caught * 0.6),
        "incidents": rng.poisson(0.02, n).astype(np.float64),
        "attack": attack.astype(np.float64),
    }
    start = _NOW - _WIDTH_S * np.arange(n + 48, 48, -1, dtype=np.int64)
    return Windows(start, _WIDTH_S, {name: columns[name] for name in NAMES})


def _timed(model: str, data: Dataset) -> tuple[float, Net]:
    baselines = THREAT if model == "threat" else CES
    began = time.perf_counter()
    trial = hold(model, {model: Part(data, baselines)}, None, _FITNESS, now=_NOW, about={})
    return time.perf_counter() - began, Net.load(trial.files[f"{model}.npz"])


def run() -> dict[str, object]:
    """Seconds and peak memory of two models on a million windows; windows scored a second on one core."""
    windows = _windows()
    data = threat(windows, now=_NOW)
    threat_s, net = _timed("threat", data)
    ces_s, _ = _timed("ces", ces(windows, now=_NOW))
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    rates = []
    for _ in range(5):
        began = time.process_time()
        for first in range(0, len(data), 20_000):
            net.predict(data.x[first : first + 20_000])
        rates.append(len(data) / (time.process_time() - began))
    series = [
        Series("threat, a million windows", "s", (threat_s,)),
        Series("ces, a million windows", "s", (ces_s,)),
        Series("peak memory", "GB", (peak_gb,)),
        Series("windows scored a second of CPU", "1/s", tuple(rates)),
    ]
    return report(
        "train",
        series,
        {
            "minutes": Ratio((threat_s + ces_s) / 60, 10),
            "memory_gb": Ratio(peak_gb, 2),
            "scored_a_second": Ratio(series[-1].median, 200_000, least=True),
        },
    )
