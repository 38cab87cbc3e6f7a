"""How findings become a service's state: a pure decision, with hysteresis both ways and no guessing.

`streak` is signed: +3 is three answers in a row, -2 two failures. What was our own trouble, or was not probed, moves
neither the streak nor, for a while, the state; when nothing was learned for long the state becomes unknown.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from shared.telemetry.probes import Verdict

_FAR = 1_000_000  # a streak is counted no further: it is an integer column


@dataclass(frozen=True)
class Hysteresis:
    """Results in a row before a service is called up or down, and seconds without any before it is unknown."""

    up_after: int
    down_after: int
    unknown_after_s: int


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a service: the columns of monitored_service that a round may change."""

    state: str
    since: datetime | None
    streak: int
    checked_at: datetime | None


def after(now: State, verdict: Verdict | None, at: datetime, rule: Hysteresis) -> State:
    """The state after one finding made at `at`; None: a maintenance window is on and nothing was probed.

    A finding that is not newer than the last one changes nothing. A service that was unknown or in maintenance is up
    with the first answer: there is nothing it could be flapping from.
    """
    if now.checked_at is not None and at <= now.checked_at and verdict in (Verdict.UP, Verdict.DOWN):
        return now
    if verdict is None:
        return now if now.state == "maintenance" else State("maintenance", at, 0, now.checked_at)
    if verdict is Verdict.UNKNOWN:
        return _without_news(now, at, rule)
    up = verdict is Verdict.UP
    same_way = (now.streak > 0) == up and now.streak != 0
    streak = (now.streak if same_way else 0) + (1 if up else -1)
    streak = max(-_FAR, min(_FAR, streak))
    known = now.state in ("up", "down")
    if up and now.state != "up" and streak >= (rule.up_after if known else 1):
        return State("up", at, streak, at)
    if not up and now.state != "down" and -streak >= rule.down_after:
        return State("down", at, streak, at)
    if now.state == "maintenance":  # the window is over, and it is not clear yet what came after
        return State("unknown", at, streak, at)
    return replace(now, streak=streak, checked_at=at)


def _without_news(now: State, at: datetime, rule: Hysteresis) -> State:
    if now.state == "maintenance":
        return State("unknown", at, 0, now.checked_at)
    last = now.checked_at or now.since
    stale = last is None or at - last > timedelta(seconds=rule.unknown_after_s)
    return State("unknown", at, 0, now.checked_at) if stale and now.state != "unknown" else now
