"""Ways to relay the same events: swept each minute, every few seconds, rung for, or by a worker that always runs."""

from dataclasses import dataclass

from shared.costs.estimate import Size
from shared.costs.prices import LIST, MONTH_S, Compute, Prices

# The fleet that the plane replaces: outbox relay, telemetry, ML and security worker, as (vCPU, GiB).
WORKERS = {"relay": (1.0, 0.5), "telemetry": (1.0, 1.0), "ml": (2.0, 4.0), "security": (1.0, 1.0)}

# One relay function, large enough for a minute's events; what it publishes in a second is measured by `bench outbox`.
_RELAY_VCPU, _RELAY_GIB = 0.333, 0.5
_SWEEP_S, _EVENTS_A_SECOND = 2.0, 10_000
_MINUTES = MONTH_S / 60


@dataclass(frozen=True)
class Way:
    """One way, its dollars a month after the free tier of its own kind of compute, and what it does all month."""

    name: str
    dollars: float
    what: str


def ways(size: Size, prices: Prices = LIST) -> tuple[Way, ...]:
    """The four ways of relaying `size`'s events, the last with the three other workers it came with."""

    def relay(seconds: float) -> float:
        return _after_free(prices.functions, seconds * _RELAY_VCPU, seconds * _RELAY_GIB, _MINUTES)

    publishing = size.events_per_day * MONTH_S / 86400 / _EVENTS_A_SECOND
    awake = relay(MONTH_S)
    vcpu, gib = (sum(w[i] for w in WORKERS.values()) for i in (0, 1))
    always = _after_free(prices.instances, MONTH_S * vcpu, MONTH_S * gib, 0)
    return (
        Way("minute", relay(_SWEEP_S * _MINUTES + publishing), "a sweep each minute (every_s: 60)"),
        Way("tick", awake, "a sweep every 5 s: one instance is awake all month"),
        Way("doorbell", awake, "rung at each commit and heard at once by that instance; a connection more"),
        Way("workers", always, f"{len(WORKERS)} always-on workers, {vcpu:g} vCPU and {gib:g} GiB"),
    )


def _after_free(rate: Compute, vcpu_s: float, gib_s: float, requests: float) -> float:
    return (
        max(0.0, vcpu_s - rate.free_vcpu_s) * rate.vcpu_s
        + max(0.0, gib_s - rate.free_gib_s) * rate.gib_s
        + max(0.0, requests - rate.free_requests) / 1e6 * rate.million_requests
    )
