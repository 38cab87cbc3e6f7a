"""Trains three small models each day and promotes only what is better than naive forecasts and the current one.

No account, address, URL or user is in what it learns from or writes about models. It never promotes without an
interval that says better, never trains on what was not known yet, and never learns from data that give the answer away.
"""

from dataclasses import dataclass

from shared.errors import Refused, Unavailable
from shared.models import services, shares, traffic
from shared.models.baselines import BREACH, CES, LATENCY, THREAT
from shared.models.dataset import Fitness
from shared.models.deciding import Decision, decide
from shared.models.registry import MODELS, Registry
from shared.models.scoring import forecast, score
from shared.models.training import torch_here
from shared.models.trial import Part
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    width_s: int
    least_accounts: int
    days: int
    most_rows: int
    fitness: dict[str, Fitness]


def run(ctx: Context, params: Params) -> dict[str, int]:
    for name in ("services", "promoted", "kept", "refused", "forecasts", "scores"):
        ctx.count(name, 0)
    place = ctx.objects("models")
    days = shares.gathered(ctx, place, days=params.days, most_rows=params.most_rows)
    if days is None:
        return ctx.counts  # another index has the last word
    registry = Registry(place)
    windows = traffic.read(ctx, width_s=params.width_s, least_accounts=params.least_accounts)
    missing: Unavailable | None = None
    decisions: list[Decision] = []
    try:
        torch_here()
        decisions = _train(ctx, registry, windows, days, params)
    except Unavailable as unavailable:  # what is current goes on scoring
        missing = unavailable
    current = {model: registry.champion(model) for model in MODELS}
    if (sla := current["sla"]) is not None:
        forecast(ctx, sla, days, shares.yesterday(ctx))
    score(ctx, current, windows)
    shares.clear(ctx, place)
    if missing is not None:
        raise missing
    if unfit := [f"{one.model}: {one.unfit}" for one in decisions if one.unfit]:
        raise Refused("; ".join(unfit))
    return ctx.counts


def _train(
    ctx: Context, registry: Registry, windows: traffic.Windows, days: services.Days, params: Params
) -> list[Decision]:
    now = int(ctx.now.timestamp())
    parts = {
        "sla": {
            "breach": Part(services.breach(days), BREACH),
            "latency": Part(services.latency(days), LATENCY),
        },
        "threat": {"threat": Part(traffic.threat(windows, now=now), THREAT)},
        "ces": {"ces": Part(traffic.ces(windows, now=now), CES)},
    }
    decisions = []
    for done, model in enumerate(MODELS):
        decisions.append(decide(ctx, registry, model, parts[model], params.fitness[model]))
        ctx.progress(done + 1, len(MODELS))
    return decisions


main = entrypoint(__file__, run)
