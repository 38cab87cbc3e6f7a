"""Projects telemetry events into raw telemetry and bug reports, each once.

It keeps nothing of an erased account, and no address of a person: IPv4 is cut to /24, IPv6 to /64, URLs to their path.
It never lets a bad event hold up the others: what can never be kept is put aside with its reason, and the run ends
refused to say so.
"""

from dataclasses import dataclass

from shared.ingest.places import places
from shared.ingest.receiving import Drain, receive
from shared.ingest.telemetry import Range, Telemetry
from shared.kafka import KafkaParams
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    range: Range
    least_confidence: int
    kafka: KafkaParams
    drain: Drain


def run(ctx: Context, params: Params) -> dict[str, int]:
    for name in ("events", "requests", "reports", "duplicates", "ignored", "erased", "dead_lettered", "threats"):
        ctx.count(name, 0)
    found = places(lambda: ctx.objects("reference"))
    telemetry = Telemetry(ctx, found, params.range, least_confidence=params.least_confidence)
    receive(ctx, params.kafka, params.drain, telemetry)
    return ctx.counts


main = entrypoint(__file__, run)
