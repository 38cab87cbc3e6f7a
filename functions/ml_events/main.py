"""Keeps what is said of windows of traffic, for models to learn from.

A label is a window's, never a person's. It never lets a flood grow a table: the latest word of each source on each
window is one row. What is no label is put aside with its reason.
"""

from collections import Counter
from dataclasses import dataclass

from shared.ingest.events import Raw
from shared.ingest.kafka import drain
from shared.ingest.labels import Labels, Windows
from shared.ingest.taking import complain, take
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class KafkaParams:
    servers: str
    topics: tuple[str, ...]
    batch: int


@dataclass(frozen=True)
class Params:
    windows: Windows
    kafka: KafkaParams


def run(ctx: Context, params: Params) -> dict[str, int]:
    for name in ("events", "labels", "duplicates", "ignored", "dead_lettered"):
        ctx.count(name, 0)
    labels = Labels(ctx, params.windows)
    dead: Counter[str] = Counter()
    if ctx.message is not None:
        dead = take(ctx, [Raw(ctx.message.message_id, ctx.message.data)], labels)
    elif params.kafka.servers:
        dead = drain(ctx, params.kafka.servers, params.kafka.topics, labels, batch=params.kafka.batch)
    complain(dead)
    return ctx.counts


main = entrypoint(__file__, run)
