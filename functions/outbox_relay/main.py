"""Publishes the outbox's events to Pub/Sub or Kafka, in the order of their keys, each at least once.

It sweeps both outboxes every five seconds; as a doorbell it also does when a writer rings. It never changes or deletes
an event, never skips one, and never lets one that fails hold up another key.
"""

from dataclasses import dataclass
from typing import Literal

from shared.errors import Unavailable
from shared.kafka import KafkaParams, connection
from shared.relay.doorbell import Doorbell
from shared.relay.event import Broker
from shared.relay.relay import Relay
from shared.relay.sweep import Backoff
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class PubSubParams:
    project: str
    endpoint: str
    emulator: str


@dataclass(frozen=True)
class Params:
    mode: Literal["tick", "doorbell"]
    target: Literal["pubsub", "kafka"]
    tables: tuple[str, ...]
    backoff: Backoff
    pubsub: PubSubParams
    kafka: KafkaParams


def run(ctx: Context, params: Params) -> dict[str, int]:
    with Relay(ctx, params.tables, lambda: _broker(ctx, params), params.backoff) as relay:
        if params.mode == "doorbell":
            _listen(ctx, relay)
        else:
            _tick(ctx, relay)
        return relay.report()


def _tick(ctx: Context, relay: Relay) -> None:
    """Sweep every five seconds."""
    while ctx.tick():
        relay.sweep()


def _listen(ctx: Context, relay: Relay) -> None:
    """Sweep every five seconds, and whenever a writer rings in between."""
    with Doorbell(ctx) as bell:
        while ctx.tick(bell.rung):
            relay.sweep()


def _broker(ctx: Context, params: Params) -> Broker:
    # each brings a client that takes a fifth of a second to load, and only one is used
    if params.target == "kafka":
        from shared.relay.kafka import Kafka

        if not params.kafka.servers:
            raise Unavailable("no Kafka is configured: set KAFKA_SERVERS to host:port,host:port")
        return Kafka(connection(ctx, params.kafka))
    from shared.relay.pubsub import PubSub

    return PubSub(project=params.pubsub.project, endpoint=params.pubsub.endpoint, emulator=params.pubsub.emulator)


main = entrypoint(__file__, run)
