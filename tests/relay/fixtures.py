"""Fixtures of the relay's tests: a Pub/Sub that fails as told, events in an outbox, one run of the task."""

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared.call import Call
from shared.database import Database
from shared.result import Result
from shared.settings import Settings
from tests.conftest import NOW, RunTask
from tests.relay.pubsub_server import PubSubServer, pubsub_server

Write = Callable[..., list[str]]
Relay = Callable[..., Result]

MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture
def pubsub() -> Iterator[PubSubServer]:
    with pubsub_server() as started:
        yield started


@pytest.fixture
def write(db: Database) -> Write:
    """Write `number` events to an outbox, a millisecond apart; their ids in order."""
    newest = NOW - timedelta(hours=1)

    def write(
        number: int = 1,
        *,
        key: str | Callable[[int], str] | None = None,
        topic: str = "app-events",
        table: str = "outbox_event",
        data: Any = None,
        at: datetime | None = None,
        **columns: Any,
    ) -> list[str]:
        nonlocal newest
        events = []
        for n in range(number):
            newest += MILLISECOND
            event_id = str(uuid.uuid4())
            payload = {"id": event_id, "type": "thing.happened", "data": {"n": n} if data is None else data}
            event = {
                "id": event_id,
                "topic": topic,
                "key": key(n) if callable(key) else key,
                "payload": json.dumps(payload),
                "at": at or newest,
                "attempts": 0,
                "next_attempt_at": None,
                **columns,
            }
            events.append(event)
        with db.transaction() as connection:
            connection.execute(
                text(f"""
                insert into {table} (id, topic, ordering_key, payload, created_at, attempts, next_attempt_at)
                values (:id, :topic, :key, cast(:payload as jsonb), :at, :attempts, :next_attempt_at)"""),
                events,
            )
        return [event["id"] for event in events]

    return write


@pytest.fixture
def relay(run_task: RunTask, settings: Settings, pubsub: PubSubServer) -> Relay:
    """Run outbox_relay once, by hand unless a call is given, against `pubsub` unless `variables` say otherwise."""

    def relay(call: Call | None = None, **variables: str) -> Result:
        environ = {**settings.environ, "PUBSUB_EMULATOR_HOST": pubsub.host, **variables}
        return run_task("outbox_relay", call, using=replace(settings, environ=environ))

    return relay
