"""A drain of Kafka's topics: from the offsets in the database to the end of each partition, exactly once.

The offsets are written with the work, so a run killed anywhere goes on where its last transaction ended. There is no
consumer group: the run's lease is what makes it the only reader.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from sqlalchemy import Connection, text

from shared.context import Context
from shared.errors import Retry, Unavailable
from shared.ingest.events import LARGEST_BODY, Raw
from shared.ingest.taking import Project, take

_ANSWER_S = 10.0
_WAIT_S = 1.0

_KNOWN = text("""
    select topic, partition, next_offset
      from groundskeeper.stream_offset
     where consumer = :consumer""")

_ADVANCE = text("""
    insert into groundskeeper.stream_offset as o (consumer, topic, partition, next_offset, updated_at)
    values (:consumer, :topic, :partition, :next, :now)
        on conflict (consumer, topic, partition) do update
       set next_offset = excluded.next_offset, updated_at = excluded.updated_at
     where o.next_offset < excluded.next_offset""")


def drain(
    ctx: Context, connection: Mapping[str, str], topics: Sequence[str], project: Project, *, batch: int
) -> Counter[str]:
    """Handle what the topics hold now, at most `batch` messages a transaction; the reasons of dead letters.
    `connection` is what `shared.kafka` says of it.

    Raises Unavailable when no server answers, Retry when one stops answering.
    """
    reasons: Counter[str] = Counter()
    with _consumer(connection) as consumer:
        open_ends = _assign(ctx, consumer, topics)
        while open_ends and not ctx.stopping:
            messages = consumer.consume(batch, timeout=_WAIT_S)
            records = []
            for message in messages:
                if (error := message.error()) is None:
                    records.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_ends.discard((message.topic(), message.partition()))
                else:
                    raise Retry(f"Kafka stopped answering ({error.name()})")
            if records:
                reasons += _handle(ctx, records, project)
    return reasons


@contextmanager
def _consumer(connection: Mapping[str, str]) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            **connection,
            "group.id": "groundskeeper",  # asked for, never joined: partitions are assigned by hand
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "fetch.message.max.bytes": LARGEST_BODY,
            "queued.max.messages.kbytes": 65536,
            "log_level": 2,
        }
    )
    try:
        yield consumer
    except KafkaException as error:
        raise Unavailable(
            f"Kafka does not answer ({error.args[0].name()}): look at KAFKA_SERVERS, KAFKA_USER, KAFKA_CA and the"
            " secret kafka-password"
        ) from error
    finally:
        consumer.close()


def _assign(ctx: Context, consumer: Consumer, topics: Sequence[str]) -> set[tuple[str, int]]:
    """Begin each partition where the last run ended; those that hold something to read."""
    with ctx.read() as connection:
        found = connection.execute(_KNOWN, {"consumer": ctx.task.name})
        known = {(row.topic, row.partition): row.next_offset for row in found}
    metadata = consumer.list_topics(timeout=_ANSWER_S).topics
    starts = []
    for topic in topics:
        if topic not in metadata or metadata[topic].error is not None:
            continue  # a topic nobody has written to yet
        for partition in metadata[topic].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_ANSWER_S)
            at = known.get((topic, partition), low)
            if at < low:
                ctx.count("lost", low - at)
                ctx.log.error("the broker dropped what was not read yet", topic=topic, partition=partition)
                at = low
            if at < high:
                starts.append(TopicPartition(topic, partition, at))
    consumer.assign(starts)
    return {(start.topic, start.partition) for start in starts}


def _handle(ctx: Context, records: Sequence[Any], project: Project) -> Counter[str]:
    ends: dict[tuple[str, int], int] = {}
    for record in records:
        ends[record.topic(), record.partition()] = record.offset() + 1

    def advance(connection: Connection) -> None:
        connection.execute(
            _ADVANCE,
            [
                {"consumer": ctx.task.name, "topic": t, "partition": p, "next": at, "now": ctx.clock.now()}
                for (t, p), at in ends.items()
            ],
        )

    raws = [Raw(f"{r.topic()}/{r.partition()}/{r.offset()}", r.value() or b"") for r in records]
    return take(ctx, raws, project, also=advance)
