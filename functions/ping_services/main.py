"""Probes every active service each half minute and keeps what it finds.

Raw results go to endpoints; a state that changes opens or closes an incident and is told through the outbox, all in
one transaction. It never connects to an address that is not public, never calls a service down for our own trouble,
and never probes one under maintenance.
"""

from dataclasses import dataclass

import certifi

from shared.addresses import Reach
from shared.errors import Partial, Unavailable
from shared.task import Context, entrypoint
from shared.telemetry.prober import Prober
from shared.telemetry.probes import Limits, Manners
from shared.telemetry.resolver import Resolver
from shared.telemetry.rounds import Round, Rules, canaries, play
from shared.telemetry.state import Hysteresis
from shared.wording import counted


@dataclass(frozen=True)
class Params:
    canaries: tuple[str, ...]
    allow_networks: tuple[str, ...]
    refuse_networks: tuple[str, ...]
    round_s: float
    limits: Limits
    manners: Manners
    hysteresis: Hysteresis
    certificate_days: tuple[int, ...]


def run(ctx: Context, params: Params) -> dict[str, int]:
    watch = canaries(params.canaries)
    reach = Reach.of(allow=params.allow_networks, refuse=params.refuse_networks)
    rules = Rules(params.hysteresis, params.certificate_days, params.round_s)
    rounds: list[Round] = []
    with (
        Resolver(reach, timeout_s=params.limits.dns_s) as resolver,
        Prober(
            limits=params.limits,
            manners=params.manners,
            reach=reach,
            resolver=resolver,
            clock=ctx.clock,
            ca_file=certifi.where(),
        ) as prober,
    ):
        while ctx.tick():
            rounds.append(play(ctx, prober, watch, rules))
    if lost := sum(r.lost for r in rounds):
        raise Partial(
            [f"{counted(lost, 'result')} without a partition of endpoints to go to: make the day's"], ctx.counts
        )
    if rounds and all(r.blind for r in rounds):
        raise Unavailable("no canary answers from here: no service was called down; check our way to the internet")
    return ctx.counts


main = entrypoint(__file__, run)
