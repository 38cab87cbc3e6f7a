"""outbox_relay to a broker that speaks Kafka's protocol."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import Outcome
from shared.relay import kafka as client
from shared.secrets import store
from shared.settings import Settings
from tests.relay.fixtures import Relay, Write
from tests.relay.kafka_broker import KafkaBroker, kafka_broker
from tests.relay.kafka_login import Login, kafka_with_login

Rows = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as started:
        yield started


_topics = iter(range(1_000_000))


@pytest.fixture
def topic(shared_broker: KafkaBroker) -> str:
    """A topic of this test's own."""
    name = f"app-events-{next(_topics)}"
    shared_broker.create(name)
    return name


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    with kafka_with_login(tmp_path_factory.mktemp("login")) as started:
        yield started


@pytest.fixture
def kafka(relay: Relay, shared_broker: KafkaBroker) -> Relay:
    def run(*arguments: Any, **variables: str) -> Any:
        return relay(*arguments, OUTBOX_TARGET="kafka", **{"KAFKA_SERVERS": shared_broker.servers, **variables})

    return run


def test_events_arrive_with_key_headers_and_payload_in_the_order_of_their_keys(
    kafka: Relay, write: Write, shared_broker: KafkaBroker, topic: str
) -> None:
    ids = write(600, key=lambda n: f"schlüssel-{n % 7}" if n % 8 else None, topic=topic)
    result = kafka()
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["outbox_event.published"] == 600
    records = shared_broker.records(topic)
    assert sorted(record.id for record in records) == sorted(ids)
    for record in records:
        assert record.type == "thing.happened"
        assert json.loads(record.value)["id"] == record.id
    for k in range(7):
        mine = [record for record in records if record.key == f"schlüssel-{k}"]
        assert [record.id for record in mine] == [one for n, one in enumerate(ids) if n % 7 == k and n % 8]
        assert len({record.partition for record in mine}) == 1, "a key keeps its partition"


def test_twice_in_a_row_the_second_sends_nothing(
    kafka: Relay, write: Write, shared_broker: KafkaBroker, topic: str
) -> None:
    write(10, topic=topic)
    assert kafka().outcome is Outcome.OK
    assert kafka().counts.get("outbox_event.published", 0) == 0
    assert len(shared_broker.records(topic)) == 10


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 250, "ümlaut"])
def test_a_topic_kafka_allows_nowhere_is_dead_at_once_and_stops_nothing(
    kafka: Relay, write: Write, shared_broker: KafkaBroker, topic: str, rows: Rows, name: str
) -> None:
    never, fine = write(topic=name, key="k"), write(topic=topic, key="k")
    assert kafka().outcome is Outcome.PARTIAL
    assert [record.id for record in shared_broker.records(topic)] == fine
    assert rows("select attempts from outbox_event where id = :id", id=never[0])[0][0] == 5


def test_without_a_broker_nothing_is_blamed_and_all_go_when_it_is_back(
    kafka: Relay, write: Write, shared_broker: KafkaBroker, topic: str, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_ANSWER_MS", 3000)
    ids = write(50, key=lambda n: f"k{n % 5}", topic=topic)
    gone = kafka(KAFKA_SERVERS="127.0.0.1:1")
    assert gone.outcome is Outcome.RETRY
    assert "50 events waiting" in (gone.error or "")
    assert rows("select 1 from outbox_event where attempts > 0") == []
    assert kafka().counts["outbox_event.published"] == 50
    assert sorted(record.id for record in shared_broker.records(topic)) == sorted(ids)


def test_no_servers_named_is_unavailable_in_words(kafka: Relay, write: Write) -> None:
    write()
    result = kafka(KAFKA_SERVERS="")
    assert result.outcome is Outcome.UNAVAILABLE
    assert "KAFKA_SERVERS" in (result.error or "")


def test_a_login_without_its_password_is_unavailable_in_words(kafka: Relay, write: Write, topic: str) -> None:
    write(1, topic=topic)
    result = kafka(KAFKA_USER="relay")
    assert result.outcome is Outcome.UNAVAILABLE
    assert "kafka-password" in (result.error or "")


def test_a_broker_that_will_not_speak_tls_gets_neither_events_nor_the_password(
    kafka: Relay, write: Write, rows: Rows, topic: str, shared_broker: KafkaBroker, settings: Settings,
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    write(1, topic=topic)
    assert settings.secrets_folder
    value = Path(settings.secrets_folder) / "kafka-password" / "1"
    value.parent.mkdir(parents=True)
    value.write_text("a password nobody shall read")
    monkeypatch.setattr(client, "_ANSWER_MS", 2000)
    result = kafka(KAFKA_USER="relay")
    assert rows("select attempts, published_at from outbox_event") == [(0, None)], "nobody is blamed"
    assert shared_broker.records(topic) == []
    assert "nobody shall read" not in f"{capfd.readouterr()} {result.error}"


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_behind_a_login_events_arrive_over_tls_by_the_mechanism_named(
    relay: Relay, write: Write, login: Login, settings: Settings, mechanism: str
) -> None:
    topic = f"behind-{mechanism.lower()}"
    login.broker.create(topic)
    ids = write(100, key=lambda n: f"k{n % 5}", topic=topic)
    store(settings).add("kafka-password", login.password)
    login.accepted.clear()
    result = relay(KAFKA_MECHANISM=mechanism, **login.variables)
    assert (result.outcome, result.counts["outbox_event.published"]) == (Outcome.OK, 100), result.error
    assert set(login.accepted) == {mechanism}
    assert sorted(record.id for record in login.broker.records(topic)) == sorted(ids)


@pytest.mark.parametrize(
    ("password", "changed", "heard"), [("a password nobody gave", {}, True), (None, {"KAFKA_CA": ""}, False)]
)
def test_a_login_that_fails_sends_nothing_blames_nobody_and_the_next_sends_all(
    relay: Relay, write: Write, login: Login, settings: Settings, rows: Rows, monkeypatch: pytest.MonkeyPatch,
    password: str | None, changed: dict[str, str], heard: bool,
) -> None:  # fmt: skip
    """The password is wrong; or the certificate is of an authority nobody told us to trust, and gets no password."""
    topic = f"wrong-{heard}".lower()
    login.broker.create(topic)
    ids = write(5, topic=topic)
    monkeypatch.setattr(client, "_ANSWER_MS", 1500)
    store(settings).add("kafka-password", password or login.password)
    login.accepted.clear()
    login.refused.clear()
    failed = relay(**{**login.variables, **changed})
    assert failed.outcome is Outcome.RETRY
    assert (login.accepted, bool(login.refused)) == ([], heard)
    assert rows("select distinct attempts, published_at from outbox_event") == [(0, None)]
    store(settings).add("kafka-password", login.password)
    assert relay(**login.variables).outcome is Outcome.OK
    assert sorted(record.id for record in login.broker.records(topic)) == sorted(ids)


@pytest.mark.full
def test_a_broker_that_dies_in_the_middle_loses_nothing(
    relay: Relay, write: Write, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had is gone with its memory; what it did not acknowledge is not marked and goes to its successor."""
    monkeypatch.setattr(client, "_ANSWER_MS", 3000)
    dying = KafkaBroker(tmp_path)
    dying.create("app-events")
    ids = write(3000, key=lambda n: f"k{n % 3}")
    send, left = client.Kafka.send, iter(range(1500))

    def send_and_die(self: client.Kafka, parcel: Any) -> None:
        if next(left, None) == 1499:
            dying.close()
        send(self, parcel)

    monkeypatch.setattr(client.Kafka, "send", send_and_die)
    result = relay(OUTBOX_TARGET="kafka", KAFKA_SERVERS=dying.servers)
    assert result.outcome is Outcome.RETRY
    marked = {str(r[0]) for r in rows("select id from outbox_event where published_at is not null")}
    assert 0 < len(marked) < 3000
    with kafka_broker(tmp_path / "successor") as successor:
        successor.create("app-events")
        assert relay(OUTBOX_TARGET="kafka", KAFKA_SERVERS=successor.servers).outcome is Outcome.OK
        arrived = {record.id for record in successor.records("app-events")}
    assert arrived == set(ids) - marked
