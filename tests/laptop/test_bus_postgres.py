"""What our own bus promises beyond the emulator: a restart loses nothing, and dead letters keep their order moving."""

import socket
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import grpc
import pytest
from google.api_core.exceptions import InvalidArgument, MethodNotImplemented
from google.protobuf import duration_pb2
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from google.pubsub_v1.types import PubsubMessage, Subscription

from shared.clock import SystemClock
from shared.laptop.bus_postgres import PostgresBus, backoff, envelope
from shared.laptop.bus_store import Taken
from shared.laptop.postgres import Postgres

PROJECT = "demo-groundskeeper"
TOPIC, DEAD = f"projects/{PROJECT}/topics/orders", f"projects/{PROJECT}/topics/orders-dead"
SUBSCRIPTION, PARKED = f"projects/{PROJECT}/subscriptions/orders", f"projects/{PROJECT}/subscriptions/parked"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres.temporary() as server:
        yield server


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    name = f"bus_{uuid.uuid4().hex}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


class Running:
    """A bus and raw clients of it."""

    def __init__(self, url: str) -> None:
        self.bus = PostgresBus(url)
        self.channels = [grpc.insecure_channel(f"127.0.0.1:{self.bus.port}") for _ in range(2)]
        self.publisher = PublisherClient(transport=PublisherGrpcTransport(channel=self.channels[0]))
        self.subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=self.channels[1]))

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self.channels:
            channel.close()
        self.bus.stop()

    def topics(self, **more: object) -> None:
        self.publisher.create_topic(name=TOPIC)
        self.publisher.create_topic(name=DEAD)
        self.subscriber.create_subscription(name=PARKED, topic=DEAD)
        self.subscriber.create_subscription(request={"name": SUBSCRIPTION, "topic": TOPIC, **more})

    def publish(self, *texts: str, key: str = "") -> None:
        messages = [PubsubMessage(data=text.encode(), ordering_key=key) for text in texts]
        self.publisher.publish(topic=TOPIC, messages=messages)

    def pull(self, subscription: str = SUBSCRIPTION, most: int = 10) -> list[tuple[str, str, int]]:
        answer = self.subscriber.pull(subscription=subscription, max_messages=most)
        return [(r.message.data.decode(), r.ack_id, r.delivery_attempt) for r in answer.received_messages]


def test_what_is_owed_survives_a_restart_and_what_was_in_hand_is_owed_again(url: str) -> None:
    with Running(url) as first:
        first.topics()
        first.publish("in hand", "waiting", "done")
        taken = {text: ack for text, ack, _ in first.pull()}
        first.subscriber.acknowledge(subscription=SUBSCRIPTION, ack_ids=[taken["done"]])
    with Running(url) as second:
        assert [text for text, _, _ in second.pull()] == ["in hand", "waiting"]


def test_a_lease_that_ran_out_is_worth_nothing(url: str) -> None:
    with Running(url) as at:
        at.topics()
        at.publish("one")
        (_, old, _), = at.pull()  # fmt: skip
        at.subscriber.modify_ack_deadline(subscription=SUBSCRIPTION, ack_ids=[old], ack_deadline_seconds=0)
        (_, new, _), = at.pull()  # fmt: skip
        at.subscriber.acknowledge(subscription=SUBSCRIPTION, ack_ids=[old])
        at.subscriber.modify_ack_deadline(subscription=SUBSCRIPTION, ack_ids=[new], ack_deadline_seconds=0)
        assert [text for text, _, _ in at.pull()] == ["one"]


def test_an_ordered_key_goes_on_when_its_head_is_dead_lettered(url: str) -> None:
    with Running(url) as at:
        policy = {"dead_letter_topic": DEAD, "max_delivery_attempts": 5}
        at.topics(enable_message_ordering=True, dead_letter_policy=policy)
        at.publish("poison", "next", key="a1")
        at.publish("other", key="a2")
        for attempt in range(1, 6):
            taken = {text: (ack, count) for text, ack, count in at.pull()}
            assert taken["poison"][1] == attempt
            assert "next" not in taken
            for text, (ack, _) in taken.items():
                if text == "other":
                    at.subscriber.acknowledge(subscription=SUBSCRIPTION, ack_ids=[ack])
            at.subscriber.modify_ack_deadline(
                subscription=SUBSCRIPTION, ack_ids=[taken["poison"][0]], ack_deadline_seconds=0
            )
        assert [text for text, _, _ in at.pull()] == ["next"]
        assert [text for text, _, _ in at.pull(PARKED)] == ["poison"]


def test_what_the_cloud_refuses_is_refused(url: str) -> None:
    with Running(url) as at:
        at.topics()
        mixed = [PubsubMessage(data=b"x", ordering_key="a"), PubsubMessage(data=b"y", ordering_key="b")]
        for messages in (
            mixed, [], [PubsubMessage()], [PubsubMessage(data=b"x", ordering_key="k" * 1025)],
            [PubsubMessage(data=b"x" * 3_000_000)] * 4,
        ):  # fmt: skip
            with pytest.raises(InvalidArgument):
                at.publisher.publish(topic=TOPIC, messages=messages)
        assert at.bus.store.next_due([SUBSCRIPTION]) is None


def test_what_the_bus_cannot_do_is_refused_in_words(url: str) -> None:
    with Running(url) as at:
        at.topics()
        request = {"name": f"{SUBSCRIPTION}-2", "topic": TOPIC, "filter": 'attributes.a = "b"'}
        with pytest.raises(MethodNotImplemented, match="no filter"):
            at.subscriber.create_subscription(request=request)
        with pytest.raises(MethodNotImplemented):
            at.publisher.detach_subscription(request={"subscription": SUBSCRIPTION})


def test_a_push_names_its_ordering_key_and_its_attempt_under_a_dead_letter_policy() -> None:
    message = PubsubMessage(data=b"x", message_id="7", ordering_key="a1", publish_time=datetime.now(UTC))
    plain = Subscription(name=SUBSCRIPTION)
    counted = Subscription(
        name=SUBSCRIPTION, dead_letter_policy={"dead_letter_topic": DEAD, "max_delivery_attempts": 5}
    )
    assert envelope(plain, Taken(uuid.uuid4(), 2, message))["message"]["orderingKey"] == "a1"
    assert "deliveryAttempt" not in envelope(plain, Taken(uuid.uuid4(), 2, message))
    assert envelope(counted, Taken(uuid.uuid4(), 2, message))["deliveryAttempt"] == 2


def test_backoff_doubles_from_its_minimum_to_its_maximum() -> None:
    policy = {
        "minimum_backoff": duration_pb2.Duration(seconds=10),
        "maximum_backoff": duration_pb2.Duration(seconds=600),
    }
    subscription = Subscription(name=SUBSCRIPTION, retry_policy=policy)
    waits = [backoff(subscription, attempt).total_seconds() for attempt in (1, 2, 3, 7, 5000)]
    assert waits == [10, 20, 40, 600, 600]


def test_two_buses_never_share_a_port(url: str) -> None:
    with Running(url) as one:
        other = PostgresBus(url, port=one.bus.port)
        assert other.port != one.bus.port
        other.stop()


def test_stopping_waits_for_no_endpoint_that_hangs(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        at = Running(url)
        at.topics(
            push_config={"push_endpoint": f"http://127.0.0.1:{hanging.getsockname()[1]}/"}, ack_deadline_seconds=60
        )
        at.publish("one")
        hanging.settimeout(20)
        connection, _ = hanging.accept()
        clock = SystemClock()
        began = clock.monotonic()
        at.__exit__()
        assert clock.monotonic() - began < 10
        connection.close()
