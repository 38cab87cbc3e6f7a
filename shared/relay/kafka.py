"""Kafka or Redpanda as a broker: an idempotent producer, the ordering key as the record's key, attributes as headers.

A parcel is one event, since a record fails by itself: of each key one is under way, and so nothing can overtake it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from shared.relay.event import ID_ATTRIBUTE, LONGEST, TYPE_ATTRIBUTE, Blame, Event, Failure, Parcel

_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
_ANSWER_MS = 15_000

_NEVER = {
    KafkaError.MSG_SIZE_TOO_LARGE: "the message is larger than the broker takes",
    KafkaError.RECORD_LIST_TOO_LARGE: "the message is larger than the broker takes",
}
_TOPIC_REFUSED = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the topic does not exist",
    KafkaError._UNKNOWN_TOPIC: "the topic does not exist",
    KafkaError._UNKNOWN_PARTITION: "the topic does not exist",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "publishing to the topic is not permitted",
    KafkaError.TOPIC_EXCEPTION: "the broker allows no topic of this name",
}
_UNANSWERED = {
    KafkaError._MSG_TIMED_OUT: "Kafka did not answer in time",
    KafkaError._TIMED_OUT: "Kafka did not answer in time",
    KafkaError._TRANSPORT: "Kafka was not available",
    KafkaError._ALL_BROKERS_DOWN: "Kafka was not available",
    KafkaError._AUTHENTICATION: "Kafka did not accept our credentials",
    KafkaError._PURGE_QUEUE: "the request was given up",
    KafkaError._PURGE_INFLIGHT: "the request was given up",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "Kafka did not accept our credentials",
}


class Kafka:
    """A producer, kept for as long as the run lasts."""

    name = "Kafka"
    most_events = 1
    most_bytes = LONGEST
    most_flights = 2000

    def __init__(self, connection: Mapping[str, str]) -> None:
        """`connection` is what `shared.kafka` says of it."""
        self._ended: list[tuple[Parcel, Failure | None]] = []
        self._producer = Producer(
            {
                **connection,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",  # a key lands where the clients in Java would put it
                "message.max.bytes": LONGEST,
                "message.timeout.ms": _ANSWER_MS,
                "linger.ms": 2,
                "log_level": 2,  # what goes wrong is in the delivery reports; the client would write to stderr
            }
        )

    def flaw(self, event: Event) -> str | None:
        if not _TOPIC.fullmatch(event.topic):
            return "Kafka allows no topic of this name"
        if event.body is None:
            return f"the message is larger than {LONGEST} bytes"
        return None

    def send(self, parcel: Parcel) -> None:
        event = parcel.events[0]
        headers: list[tuple[str, str | bytes | None]] = [(ID_ATTRIBUTE, event.id)]
        if event.kind is not None:
            headers.append((TYPE_ATTRIBUTE, event.kind))
        try:
            self._producer.produce(
                event.topic,
                event.body,
                key=event.key,
                headers=headers,
                on_delivery=lambda error, _: self._ended.append((parcel, failure_of(error))),
            )
        except KafkaException as refused:  # what the client sees for itself, before it asks the broker
            self._ended.append((parcel, failure_of(refused.args[0])))

    def wait(self, seconds: float) -> Sequence[tuple[Parcel, Failure | None]]:
        self._producer.poll(0 if self._ended else seconds)
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        self._producer.purge()
        self._producer.flush(0)


def failure_of(error: Any) -> Failure | None:
    """What a delivery report says about a parcel; None for success. The broker's own words may quote: not used."""
    if error is None:
        return None
    code = error.code()
    if error.fatal() or code in _UNANSWERED:
        return Failure(_UNANSWERED.get(code, "the producer lost its place and begins anew"), Blame.NOBODY)
    if code in _TOPIC_REFUSED:
        return Failure(_TOPIC_REFUSED[code], Blame.TOPIC)
    if code in _NEVER:
        return Failure(_NEVER[code], Blame.FOREVER)
    return Failure(f"Kafka refused the message ({error.name()})", Blame.EVENT)
