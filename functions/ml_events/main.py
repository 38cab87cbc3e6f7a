"""Keeps what is said of windows of traffic, for models to learn from.

A label is a window's, never a person's. It never lets a flood grow a table: the latest word of each source on each
window is one row. What is no label is put aside with its reason.
"""

from dataclasses import dataclass

from shared.ingest.labels import Labels, Windows
from shared.ingest.receiving import Drain, receive
from shared.kafka import KafkaParams
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    windows: Windows
    kafka: KafkaParams
    drain: Drain


def run(ctx: Context, params: Params) -> dict[str, int]:
    for name in ("events", "labels", "duplicates", "ignored", "dead_lettered"):
        ctx.count(name, 0)
    receive(ctx, params.kafka, params.drain, Labels(ctx, params.windows))
    return ctx.counts


main = entrypoint(__file__, run)
