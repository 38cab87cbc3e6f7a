"""Ways to do the same work: ring when there is something, tick every few seconds, or keep workers running."""

from dataclasses import dataclass

from shared.costs.estimate import Size, busy
from shared.costs.prices import LIST, MONTH_S, Compute, Prices

# The fleet that the plane replaces: outbox relay, telemetry, ML and security worker, as (vCPU, GiB).
WORKERS = {"relay": (1.0, 0.5), "telemetry": (1.0, 1.0), "ml": (2.0, 4.0), "security": (1.0, 1.0)}

# One relay function, large enough for a minute's events.
_RELAY_VCPU, _RELAY_GIB = 0.333, 0.5
_SWEEP_S, _RING_S = 2.0, 0.2
_MINUTES = MONTH_S / 60


@dataclass(frozen=True)
class Way:
    """One way, its dollars a month after the free tier of its own kind of compute, and what it does all month."""

    name: str
    dollars: float
    what: str


def ways(size: Size, prices: Prices = LIST) -> tuple[Way, ...]:
    """The three ways of relaying events, the last with the three other workers it came with."""
    # a writer rings once a transaction: rings that come while one is at work find nothing left to do
    rings = size.events_per_day * 30.4
    ringing = min(busy(rings, _RING_S, 80), MONTH_S)
    doorbell = _after_free(
        prices.functions,
        (_SWEEP_S * _MINUTES + ringing) * _RELAY_VCPU,
        (_SWEEP_S * _MINUTES + ringing) * _RELAY_GIB,
        _MINUTES + rings,
    )
    ticking = _after_free(prices.functions, MONTH_S * _RELAY_VCPU, MONTH_S * _RELAY_GIB, _MINUTES)
    vcpu, gib = (sum(w[i] for w in WORKERS.values()) for i in (0, 1))
    always = _after_free(prices.instances, MONTH_S * vcpu, MONTH_S * gib, 0)
    return (
        Way("doorbell", doorbell, f"rung after each of {size.events_per_day:,} commits a day, and a sweep each minute"),
        Way("tick", ticking, "every 5 s, one instance busy all month"),
        Way("workers", always, f"{len(WORKERS)} always-on workers, {vcpu:g} vCPU and {gib:g} GiB"),
    )


def _after_free(rate: Compute, vcpu_s: float, gib_s: float, requests: float) -> float:
    return (
        max(0.0, vcpu_s - rate.free_vcpu_s) * rate.vcpu_s
        + max(0.0, gib_s - rate.free_gib_s) * rate.gib_s
        + max(0.0, requests - rate.free_requests) / 1e6 * rate.million_requests
    )
