"""ml_events: the latest word of each source on each window, a flood bounded, what is no label put aside."""

import base64
import itertools
import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from shared.call import of_message, of_slot
from shared.clock import rfc3339
from shared.errors import Outcome
from shared.manifest import Every
from shared.result import Result
from shared.settings import Settings
from tests.conftest import NOW, RunTask
from tests.relay.kafka_broker import kafka_broker

Rows = Callable[..., list[Any]]
Send = Callable[..., Result]
HOUR = timedelta(hours=1)

_messages = itertools.count()


def label(at: datetime = NOW - HOUR, said: datetime = NOW, **data: Any) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "type": "window.labelled",
        "occurred_at": rfc3339(said),
        "account_id": None,
        "data": {"window_start": rfc3339(at), "width_s": 3600, "is_attack": True, "source": "operator", **data},
    }


@pytest.fixture
def send(run_task: RunTask) -> Send:
    def push(*events: Any) -> Result:
        body = base64.b64encode(json.dumps(list(events)).encode()).decode()
        return run_task("ml_events", of_message({"message": {"messageId": f"l{next(_messages)}", "data": body}}))

    return push


def test_a_label_is_kept_and_the_same_event_again_changes_nothing(send: Send, rows: Rows) -> None:
    one = label()
    assert send(one).counts["labels"] == 1
    again = send(one)
    assert (again.outcome, again.counts["duplicates"], again.counts["labels"]) == (Outcome.OK, 1, 0)
    found = rows("select window_start, width_s, source, is_attack from window_label")
    assert [tuple(row) for row in found] == [(NOW - HOUR, 3600, "operator", True)]


def test_the_latest_word_of_a_source_counts_in_whatever_order_they_come(send: Send, rows: Rows) -> None:
    earlier, later = label(said=NOW - HOUR, is_attack=True), label(said=NOW, is_attack=False)
    send(later)
    send(earlier)
    send(label(source="incident"))
    found = rows("select source, is_attack from window_label order by source")
    assert [tuple(row) for row in found] == [("incident", True), ("operator", False)]


def test_a_flood_changes_rows_and_adds_none(send: Send, rows: Rows) -> None:
    flood = [label(said=NOW - timedelta(seconds=n), is_attack=bool(n % 2)) for n in range(1000)]
    assert send(*flood).outcome is Outcome.OK
    assert [tuple(row) for row in rows("select count(*), bool_or(is_attack) from window_label")] == [(1, False)]


BAD = {
    "data.window_start is not RFC 3339 with an offset": {"window_start": "today"},
    "the window is none of 3600 seconds that begins on its multiple": {"width_s": 60},
    "the window is in the future, or older than what models learn from": {
        "window_start": rfc3339(NOW - timedelta(days=401))
    },
    "data.source is not one of operator, incident, indicator": {"source": "anybody"},
    "data.is_attack is neither true nor false": {"is_attack": 1},
}


def test_what_is_no_label_is_put_aside_with_its_reason_and_the_others_are_kept(send: Send, rows: Rows) -> None:
    result = send(label(), *(label(**data) for data in BAD.values()), label(said=NOW + HOUR), label(at=NOW + HOUR))
    assert (result.outcome, result.counts["labels"]) == (Outcome.REFUSED, 1)
    reasons = {row.reason for row in rows("select reason from groundskeeper.dead_letter")}
    assert reasons == {*BAD, "it was said in the future"}


def test_windows_exactly_at_the_edges_count(send: Send, rows: Rows) -> None:
    assert send(label(at=NOW), label(at=NOW - timedelta(days=400))).counts["labels"] == 2


def test_a_minute_drains_a_flood_from_kafka_into_as_many_rows_as_there_are_windows(
    run_task: RunTask, settings: Settings, rows: Rows, tmp_path: Path
) -> None:
    """And the next goes on where it ended: what was said twice is still one row, what is no label is put aside."""
    flood = [label(at=NOW - HOUR * (n % 3), said=NOW - timedelta(seconds=n)) for n in range(1500)]
    with kafka_broker(tmp_path) as broker:
        producer = Producer({"bootstrap.servers": broker.servers})
        for body in (*map(json.dumps, flood), "poison"):
            producer.produce("ml-training-events", body.encode())
        assert producer.flush(30) == 0
        using = replace(settings, environ={**settings.environ, "KAFKA_SERVERS": broker.servers})
        minutes = [run_task("ml_events", of_slot(Every(60), NOW + timedelta(minutes=n)), using=using) for n in range(2)]
    assert (minutes[0].outcome, minutes[0].counts["events"]) == (Outcome.REFUSED, 1501)
    assert (minutes[1].outcome, minutes[1].counts["events"]) == (Outcome.OK, 0)
    assert rows("select count(*) from window_label")[0][0] == 3
    assert [row.reason for row in rows("select reason from groundskeeper.dead_letter")] == ["the message is not JSON"]


def test_without_kafka_the_minute_has_nothing_to_do(run_task: RunTask) -> None:
    assert run_task("ml_events", of_slot(Every(60), NOW)).outcome is Outcome.OK
