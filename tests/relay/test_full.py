"""The full-size proof: a hundred thousand events under random kills of the relay, on Google's emulator and on Kafka."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.cloud import pubsub_v1
from sqlalchemy import text

from shared.database import Database
from shared.laptop.bus import EmulatorBus, find_emulator
from shared.manifest import ROOT
from shared.settings import Settings
from tests.parts import missing
from tests.relay.kafka_broker import kafka_broker

EVENTS, KEYS = 100_000, 200
KILLS = 8
Rows = Callable[..., list[Any]]

# One run by hand of the task in a process of its own, which can be killed as a whole.
_RUN = """
import uuid
from datetime import UTC, datetime
from shared import plans, settings
from shared.call import by_hand
from shared.clock import SystemClock
from shared.manifest import FUNCTIONS
from shared.task import load
runner = load(FUNCTIONS / "outbox_relay").runner(settings.read(), SystemClock())
with runner.database().transaction() as connection:
    request = plans.request_run(connection, task="outbox_relay", actor="t", why="t", now=datetime.now(UTC))
print(runner.execute(by_hand(request)).outcome.value)
"""


def _write(db: Database) -> list[str]:
    """The events' ids in their order; event n has the key n modulo KEYS."""
    with db.transaction() as connection:
        connection.execute(
            text("""
            insert into outbox_event (id, topic, ordering_key, payload, created_at)
            select gen_random_uuid(), 'app-events', 'k' || mod(n, :keys),
                   jsonb_build_object('type', 'thing.happened', 'n', n),
                   timestamptz '2026-01-01 00:00Z' + make_interval(secs => n / 1000.0)
              from generate_series(0, :events - 1) n"""),
            {"keys": KEYS, "events": EVENTS},
        )
        return [str(one) for one in connection.scalars(text("select id from outbox_event order by created_at"))]


def _relay_under_kills(rows: Rows, environment: dict[str, str]) -> int:
    """Run the relay until nothing waits, killing it at random moments; how many times it was killed in its work."""
    rng, killed = random.Random(20261123), 0
    waiting = "select count(*) from outbox_event where published_at is null"
    left = rows(waiting)[0][0]
    while left:
        process = subprocess.Popen([sys.executable, "-c", _RUN], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        if killed < KILLS:
            began = time.monotonic()
            while process.poll() is None and rows(waiting)[0][0] == left and time.monotonic() - began < 60:
                time.sleep(0.02)  # until it is at work
            time.sleep(rng.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        process.communicate()
        rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")
        left = rows(waiting)[0][0]
    return killed


def _environment(settings: Settings, **variables: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **settings.environ, **variables}


def _holds(arrived: list[tuple[str | None, str]], written: list[str]) -> None:
    """Every id came, and of each key the first arrivals are in the order in which they were written."""
    assert {event_id for _, event_id in arrived} == set(written)
    order = {event_id: n for n, event_id in enumerate(written)}
    for k in range(KEYS):
        mine = list(dict.fromkeys(order[event_id] for key, event_id in arrived if key == f"k{k}"))
        assert mine == sorted(mine), f"key k{k} is out of order"


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[EmulatorBus]:
    found = find_emulator()
    if found is None:
        missing("the Pub/Sub emulator", "gcloud components install pubsub-emulator, and Java")
    bus = EmulatorBus(found, tmp_path / "bus")
    yield bus
    bus.stop()


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_hundred_thousand_events_under_random_kills_all_reach_pubsub_in_the_order_of_their_keys(
    settings: Settings, db: Database, rows: Rows, emulator: EmulatorBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = f"127.0.0.1:{emulator.port}"
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
    publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
    topic = publisher.topic_path("demo-groundskeeper", "app-events")
    subscription = subscriber.subscription_path("demo-groundskeeper", "all")
    publisher.create_topic(name=topic)
    request = {"name": subscription, "topic": topic, "enable_message_ordering": True, "ack_deadline_seconds": 600}
    subscriber.create_subscription(request=request)
    written = _write(db)
    assert _relay_under_kills(rows, _environment(settings, PUBSUB_EMULATOR_HOST=host)) >= 3
    arrived: list[tuple[str | None, str]] = []
    with subscriber:
        while len({event_id for _, event_id in arrived}) < EVENTS:
            pulled = subscriber.pull(subscription=subscription, max_messages=1000, timeout=30).received_messages
            arrived += [(one.message.ordering_key, one.message.attributes["event_id"]) for one in pulled]
            acks = [one.ack_id for one in pulled]
            if acks:
                subscriber.acknowledge(subscription=subscription, ack_ids=acks)
    publisher.stop()
    publisher.transport.close()
    _holds(arrived, written)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_hundred_thousand_events_under_random_kills_all_reach_kafka_in_the_order_of_their_keys(
    settings: Settings, db: Database, rows: Rows, tmp_path: Path
) -> None:
    with kafka_broker(tmp_path / "kafka") as broker:
        broker.create("app-events")
        written = _write(db)
        variables = {"OUTBOX_TARGET": "kafka", "KAFKA_SERVERS": broker.servers}
        assert _relay_under_kills(rows, _environment(settings, **variables)) >= 3
        _holds([(record.key, record.id) for record in broker.records("app-events")], written)
