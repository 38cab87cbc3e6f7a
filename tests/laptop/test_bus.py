"""One contract for both buses: what Google's own client sees is the same, whichever stands behind the port."""

import base64
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import AlreadyExists, DeadlineExceeded, InvalidArgument, NotFound
from google.cloud import pubsub_v1
from google.protobuf import duration_pb2

from shared.clock import SystemClock
from shared.laptop.bus import Bus, EmulatorBus, declare, find_emulator
from shared.laptop.bus_postgres import PostgresBus
from shared.laptop.postgres import Postgres
from shared.manifest import Run, Task, Topic
from tests.parts import missing

PROJECT = "demo-groundskeeper"
WAIT_S = 20.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres.temporary() as server:
        yield server


@pytest.fixture(scope="module", params=["emulator", "postgres"])
def bus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    if request.param == "postgres":
        started: Bus = PostgresBus(request.getfixturevalue("postgres").create_database("bus"))
    else:
        started = _emulator(tmp_path_factory.mktemp("bus"))
    yield started
    started.stop()


def _emulator(folder: Path) -> EmulatorBus:
    found = find_emulator()
    if found is None:
        missing("the Pub/Sub emulator", "gcloud components install pubsub-emulator, and Java")
    return EmulatorBus(found, folder)


class Endpoint:
    """An HTTP endpoint that records what is pushed to it and answers as told."""

    def __init__(self, answer: Callable[[dict[str, Any]], int]) -> None:
        self.got: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.changed = threading.Condition()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = answer(body)
                with endpoint.changed:
                    endpoint.got.append(body)
                    endpoint.headers.append(dict(self.headers))
                    endpoint.changed.notify_all()
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def data(self) -> list[str]:
        return [base64.b64decode(body["message"].get("data", "")).decode() for body in self.got]

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= count, timeout=WAIT_S), self.data()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Callable[..., Endpoint]]:
    opened: list[Endpoint] = []

    def start(answer: Callable[[dict[str, Any]], int] = lambda _: 204) -> Endpoint:
        opened.append(Endpoint(answer))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


class Client:
    """Google's client, and a topic with a subscription of this test's own."""

    def __init__(self) -> None:
        options = pubsub_v1.types.PublisherOptions(enable_message_ordering=True)
        self.publisher = pubsub_v1.PublisherClient(publisher_options=options)
        self.subscriber = pubsub_v1.SubscriberClient()
        self.name = f"t-{uuid.uuid4().hex}"
        self.topic = self.publisher.topic_path(PROJECT, self.name)
        self.subscription = self.subscriber.subscription_path(PROJECT, self.name)
        self.publisher.create_topic(name=self.topic)

    def subscribe(self, push: Endpoint | None = None, **more: Any) -> None:
        config = {"push_config": {"push_endpoint": push.url}} if push else {}
        retry = {"minimum_backoff": duration_pb2.Duration(nanos=100_000_000), "maximum_backoff": _seconds(1)}
        self.subscriber.create_subscription(
            request={"name": self.subscription, "topic": self.topic, "retry_policy": retry, **config, **more}
        )

    def publish(self, *texts: str, key: str = "", **attributes: str) -> list[str]:
        sent = [self.publisher.publish(self.topic, text.encode(), ordering_key=key, **attributes) for text in texts]
        return [future.result(timeout=WAIT_S) for future in sent]

    def pull(self, count: int, subscription: str | None = None) -> list[Any]:
        found: list[Any] = []
        clock = SystemClock()
        limit = clock.monotonic() + WAIT_S
        while len(found) < count and clock.monotonic() < limit:
            try:
                answer = self.subscriber.pull(
                    subscription=subscription or self.subscription, max_messages=count, timeout=5
                )
            except DeadlineExceeded:
                continue
            found += answer.received_messages
        return found


def _seconds(count: int) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=count)


@pytest.fixture
def client(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{bus.port}")
    made = Client()
    yield made
    # a push that is still owed must not go on in the next test
    for subscription in made.subscriber.list_subscriptions(project=f"projects/{PROJECT}"):
        made.subscriber.delete_subscription(subscription=subscription.name)
    made.publisher.stop()
    made.publisher.transport.close()
    made.subscriber.close()


def test_topics_and_subscriptions_are_made_found_listed_and_deleted(client: Client) -> None:
    client.subscribe()
    assert client.publisher.get_topic(topic=client.topic).name == client.topic
    assert client.topic in [t.name for t in client.publisher.list_topics(project=f"projects/{PROJECT}")]
    found = client.subscriber.get_subscription(subscription=client.subscription)
    assert (found.topic, found.ack_deadline_seconds) == (client.topic, 10)
    with pytest.raises(AlreadyExists):
        client.publisher.create_topic(name=client.topic)
    with pytest.raises(AlreadyExists):
        client.subscribe()
    client.publisher.delete_topic(topic=client.topic)
    assert client.subscriber.get_subscription(subscription=client.subscription).topic == "_deleted-topic_"
    client.subscriber.delete_subscription(subscription=client.subscription)
    with pytest.raises(NotFound):
        client.subscriber.get_subscription(subscription=client.subscription)
    with pytest.raises(NotFound):
        client.publisher.get_topic(topic=client.topic)


def test_publishing_to_no_topic_and_to_a_bad_name_is_refused(client: Client) -> None:
    with pytest.raises(NotFound):
        client.publisher.publish(client.publisher.topic_path(PROJECT, "nobody"), b"x").result(timeout=WAIT_S)
    with pytest.raises(InvalidArgument):
        client.publisher.create_topic(name=client.publisher.topic_path(PROJECT, "t"))


def test_what_is_published_is_pulled_with_everything_it_had(client: Client) -> None:
    client.subscribe()
    (message_id,) = client.publish("grüße", source="test")
    (received,) = client.pull(1)
    assert received.message.message_id == message_id
    assert received.message.data.decode() == "grüße"
    assert dict(received.message.attributes) == {"source": "test"}
    assert received.message.publish_time.year >= 2026
    client.subscriber.acknowledge(subscription=client.subscription, ack_ids=[received.ack_id])


def test_what_was_published_before_the_subscription_is_not_owed_to_it(client: Client) -> None:
    client.publish("before")
    client.subscribe()
    client.publish("after")
    assert [r.message.data for r in client.pull(1)] == [b"after"]


def test_a_message_given_back_comes_again_and_an_acknowledged_one_does_not(client: Client) -> None:
    client.subscribe()
    client.publish("once more")
    (first,) = client.pull(1)
    client.subscriber.modify_ack_deadline(
        subscription=client.subscription, ack_ids=[first.ack_id], ack_deadline_seconds=0
    )
    (second,) = client.pull(1)
    assert second.message.message_id == first.message.message_id
    client.subscriber.acknowledge(subscription=client.subscription, ack_ids=[second.ack_id])
    client.publish("marker")
    assert [r.message.data for r in client.pull(1)] == [b"marker"]


def test_a_push_is_the_documented_envelope(client: Client, endpoint: Callable[..., Endpoint]) -> None:
    to = endpoint()
    client.subscribe(to)
    (message_id,) = client.publish("hello", source="test")
    to.wait_for(1)
    body = to.got[0]
    assert body["subscription"] == client.subscription
    message = body["message"]
    assert message["messageId"] == message["message_id"] == message_id
    assert base64.b64decode(message["data"]) == b"hello"
    assert message["attributes"] == {"source": "test"}
    assert message["publishTime"] == message["publish_time"]
    assert to.headers[0]["Content-Type"].startswith("application/json")


def test_a_refused_push_comes_again_until_it_is_accepted(client: Client, endpoint: Callable[..., Endpoint]) -> None:
    answers = iter([500, 503, 204])
    to = endpoint(lambda _: next(answers))
    client.subscribe(to)
    client.publish("again")
    to.wait_for(3)
    assert len({body["message"]["messageId"] for body in to.got}) == 1


def test_messages_of_a_key_are_pushed_in_order_though_the_first_fails(
    client: Client, endpoint: Callable[..., Endpoint]
) -> None:
    failures = iter([500, 500])
    to = endpoint(lambda body: next(failures, 204) if base64.b64decode(body["message"]["data"]) == b"0" else 204)
    client.subscribe(to, enable_message_ordering=True)
    client.publish(*[str(i) for i in range(10)], key="account-1")
    to.wait_for(12)
    assert to.data() == ["0", "0", *[str(i) for i in range(10)]]


def test_many_messages_arrive_each_at_least_once(client: Client, endpoint: Callable[..., Endpoint]) -> None:
    to = endpoint()
    client.subscribe(to)
    sent = client.publish(*[str(i) for i in range(300)])
    to.wait_for(300)
    assert set(Counter(body["message"]["messageId"] for body in to.got)) == set(sent)


def test_a_poison_message_is_parked_with_where_it_came_from(client: Client, endpoint: Callable[..., Endpoint]) -> None:
    dead = client.publisher.topic_path(PROJECT, f"{client.name}-dead")
    parked = client.subscriber.subscription_path(PROJECT, f"{client.name}-dead")
    client.publisher.create_topic(name=dead)
    client.subscriber.create_subscription(name=parked, topic=dead)
    to = endpoint(lambda _: 500)
    client.subscribe(to, dead_letter_policy={"dead_letter_topic": dead, "max_delivery_attempts": 5})
    client.publish("poison")
    (received,) = client.pull(1, parked)
    assert received.message.data == b"poison"
    assert len(to.got) >= 5
    attributes = dict(received.message.attributes)
    assert attributes["CloudPubSubDeadLetterSourceSubscription"] == client.name
    assert attributes["CloudPubSubDeadLetterSourceSubscriptionProject"] == PROJECT
    assert int(attributes["CloudPubSubDeadLetterSourceDeliveryCount"]) >= 5


def test_a_push_endpoint_can_move(client: Client, endpoint: Callable[..., Endpoint]) -> None:
    old, new = endpoint(lambda _: 500), endpoint()
    client.subscribe(old)
    client.publish("follow")
    old.wait_for(1)
    client.subscriber.modify_push_config(subscription=client.subscription, push_config={"push_endpoint": new.url})
    new.wait_for(1)
    assert new.data() == ["follow"]


def test_declaring_twice_makes_topics_and_subscriptions_once(client: Client, bus: Bus) -> None:
    task = Task(
        name="mailer", folder=Path(), summary="", owner="", triggers=(Topic("user-deleted"),),
        run=Run("function", 256, 1, 60), uses=(), requires=(), must_succeed_within_s=None, tables={}, params={},
        publishes=("mail-sent",), subscribes=("user-deleted", "dead-mail"),
    )  # fmt: skip
    for port in (1111, 2222):
        declare(bus.port, PROJECT, {"mailer": task}, lambda task, at=port: f"http://127.0.0.1:{at}/{task.slug}")  # type: ignore[misc]
    subscription = client.subscriber.get_subscription(
        subscription=client.subscriber.subscription_path(PROJECT, "mailer.user-deleted")
    )
    assert subscription.push_config.push_endpoint == "http://127.0.0.1:2222/mailer"
    assert subscription.ack_deadline_seconds == 60
    assert subscription.dead_letter_policy.dead_letter_topic.endswith("/topics/mailer.user-deleted.dead")
    assert subscription.dead_letter_policy.max_delivery_attempts == 10
    drained = client.subscriber.get_subscription(
        subscription=client.subscriber.subscription_path(PROJECT, "mailer.dead-mail")
    )
    assert not drained.push_config.push_endpoint
    names = {t.name.rsplit("/", 1)[1] for t in client.publisher.list_topics(project=f"projects/{PROJECT}")}
    assert {"user-deleted", "mail-sent", "mailer.user-deleted.dead"} <= names
