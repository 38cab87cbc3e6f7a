"""Where a run's messages come from: the one that was pushed, or what Kafka's topics hold."""

from collections import Counter
from dataclasses import dataclass

from shared.context import Context
from shared.ingest.events import Raw
from shared.ingest.taking import Project, complain, take
from shared.kafka import KafkaParams, connection


@dataclass(frozen=True)
class Drain:
    """What a minute reads where there is a Kafka: these topics, at most `batch` messages a transaction."""

    topics: tuple[str, ...]
    batch: int


def receive(ctx: Context, kafka: KafkaParams, reading: Drain, project: Project) -> None:
    """Handle the run's messages, counting them. Raises Refused when some were dead-lettered, and what `drain` does."""
    dead: Counter[str] = Counter()
    if ctx.message is not None:
        dead = take(ctx, [Raw(ctx.message.message_id, ctx.message.data)], project)
    elif kafka.servers:
        from shared.ingest.kafka import drain  # a pushed message need not wait for Kafka's client to load

        dead = drain(ctx, connection(ctx, kafka), reading.topics, project, batch=reading.batch)
    complain(dead)
