"""The demo's hours of platform-wide traffic, 180 days of them, for models to learn from.

Days and weeks have their rhythm. Attacks are of several kinds that leave different traces and come in all strengths;
campaigns, crawlers and bad releases leave some of the same and are none. So no single ratio tells them apart, and some
cannot be told at all. What was an attack is said a day later; of the last day nobody has said.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from shared.platform.demo_world import World
from shared.platform.learning import ml_window
from shared.platform.load import copy_rows

_DAYS = 180
_HOUR = timedelta(hours=1)
_SAID_AFTER = timedelta(days=1)

_COLUMNS = (
    "window_start width_s accounts requests error_ratio failure_ratio suspicious_ratio bot_ratio indicator_matches"
    " asn_entropy path_entropy rate_change rate_limited blocked incidents is_attack created_at"
)


@dataclass(frozen=True)
class _Trace:
    """What something does to an hour at full strength: factors of requests, shares of them, bits of entropy."""

    requests: float = 0.0
    errors: float = 0.0
    failures: float = 0.0
    suspicious: float = 0.0
    bots: float = 0.0
    matched: float = 0.0  # of the suspicious ones
    networks: float = 0.0
    paths: float = 0.0


# A login tried from everywhere; a scan of paths from one place; a flood; a patient scraper that few rules know.
_ATTACKS = (
    _Trace(requests=0.8, failures=0.05, suspicious=0.30, bots=0.15, matched=0.1, networks=0.7, paths=-0.9),
    _Trace(requests=0.1, suspicious=0.25, bots=0.35, matched=0.6, networks=-0.6, paths=1.0),
    _Trace(requests=4.0, errors=0.15, failures=0.20, suspicious=0.20, bots=0.20, matched=0.2, networks=0.8, paths=-0.7),
    _Trace(requests=0.4, suspicious=0.04, bots=0.60, matched=0.1, networks=-0.5, paths=0.6),
)
# A campaign brings people; a search engine crawls; a release breaks something.
_HARMLESS = (
    _Trace(requests=2.5, networks=0.5, paths=-0.6),
    _Trace(requests=0.3, suspicious=0.05, bots=0.50, networks=-0.4, paths=0.8),
    _Trace(errors=0.20, failures=0.15),
)
_NOTHING = _Trace()


def load(connection: Connection, world: World) -> dict[str, int]:
    """A window an hour, the newest of the hour before this one."""
    return {"ml_window": copy_rows(connection, ml_window, _COLUMNS, _windows(world))}


def _windows(world: World) -> Iterator[tuple[object, ...]]:
    rng, attacked = world.rng, set(world.attacks)
    until = world.now.replace(minute=0, second=0, microsecond=0)
    attack = harmless = _NOTHING
    force, before = 0.0, 0
    for number in range(_DAYS * 24, 0, -1):
        start = until - _HOUR * number
        if start not in attacked:
            attack = _NOTHING
        elif attack is _NOTHING:  # an attack stays of its kind while it lasts
            attack, force = rng.choice(_ATTACKS), rng.betavariate(2, 1.5)
        if rng.random() < 0.35:  # what is harmless lasts some three hours
            harmless = rng.choice(_HARMLESS) if rng.random() < 0.12 else _NOTHING
        weight = force * rng.uniform(0.6, 1.0) if attack is not _NOTHING else 0.0
        row, before = _window(world, start, before, (attack, weight), (harmless, rng.betavariate(2, 2)))
        said = start < until - _SAID_AFTER
        yield (*row, start in attacked if said else None, start + _HOUR)


def _window(
    world: World, start: datetime, before: int, *traces: tuple[_Trace, float]
) -> tuple[tuple[object, ...], int]:
    rng = world.rng

    def of(what: str) -> float:
        return sum(float(getattr(trace, what)) * weight for trace, weight in traces)

    rhythm = (120 + 70 * math.sin((start.hour - 8) / 24 * math.tau)) * (0.6 if start.weekday() >= 5 else 1.0)
    requests = max(20, int(rng.gauss(rhythm, 10) * (1 + of("requests"))))
    suspicious = min(1.0, of("suspicious") * rng.uniform(0.7, 1.3) + rng.betavariate(1, 200))
    caught = requests * suspicious * rng.betavariate(5, 2)
    row = (
        start,
        3600,
        rng.randint(22, len(world.accounts)),
        requests,
        round(min(1.0, rng.betavariate(1, 120) + of("errors") * rng.uniform(0.5, 1)), 5),
        round(min(1.0, rng.betavariate(1, 150) + of("failures") * rng.uniform(0.5, 1)), 5),
        round(suspicious, 5),
        round(min(1.0, rng.betavariate(2, 40) + of("bots") * rng.uniform(0.7, 1.3)), 5),
        int(requests * suspicious * (rng.uniform(0, 0.15) + of("matched") * rng.random())),
        round(max(0.0, rng.gauss(2.3 + of("networks"), 0.15)), 4),
        round(max(0.0, rng.gauss(2.75 + of("paths"), 0.2)), 4),
        round(requests / before, 4) if before else None,
        round(caught * 0.4),
        round(caught * 0.6),
        sum(o.start <= start < (o.end or world.now) for s in world.services for o in s.outages),
    )
    return row, requests
