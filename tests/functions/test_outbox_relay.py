"""outbox_relay against a Pub/Sub that fails as told: what is sent, in which order, and what every failure leaves."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest
from sqlalchemy import text

from shared import ledger
from shared.call import of_slot
from shared.database import Database
from shared.errors import Outcome
from shared.manifest import FUNCTIONS, Every, load
from shared.settings import Settings
from tests.conftest import NOW, ManualClock
from tests.killing import killer
from tests.relay.fixtures import Relay, Write
from tests.relay.pubsub_server import OK, PubSubServer, Sent

Rows = Callable[..., list[Any]]
Code = grpc.StatusCode
INSTANT = timedelta(microseconds=1)
MINUTE = of_slot(Every(5), NOW)
LATER = timedelta(hours=1)


def state(rows: Rows, event_id: str, table: str = "outbox_event") -> Any:
    """What the event's row says: attempts, last_error, next_attempt_at, published_at."""
    return rows(f"select attempts, last_error, next_attempt_at, published_at from {table} where id = :id", id=event_id)[
        0
    ]


def waiting(rows: Rows) -> int:
    return int(rows("select count(*) from outbox_event where published_at is null and attempts < 5")[0][0])


# --- what is sent


def test_nothing_to_do_is_ok_with_zero_counts(relay: Relay, pubsub: PubSubServer) -> None:
    result = relay()
    assert result.outcome is Outcome.OK, result.error
    assert set(result.counts.values()) == {0}
    assert pubsub.requests == []


def test_both_outboxes_are_published_with_their_payload_and_the_events_id(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows
) -> None:
    theirs, ours = write(3), write(2, table="groundskeeper.outbox", topic="billing-events", key="a1")
    result = relay()
    assert result.outcome is Outcome.OK, result.error
    assert dict(result.counts) == {
        "outbox_event.published": 3,
        "groundskeeper.outbox.published": 2,
        "backlog": 0,
        "oldest_s": 0,
        "dead_letters": 0,
    }
    assert sorted(pubsub.ids) == sorted(theirs + ours)
    for message in pubsub.taken:
        assert message.attributes == {"event_id": message.id, "event_type": "thing.happened"}
        assert json.loads(message.data)["id"] == message.id
    assert state(rows, ours[0], "groundskeeper.outbox").published_at == NOW
    assert state(rows, theirs[0]).published_at == NOW


@pytest.mark.parametrize(
    "data",
    ["\U0001f9f9 ümläut \u202e rtl", "\x01\x1f\x7f", {"": [None, 1e10, 0.1, -1, True]}, "\\u0000 escaped", [[]]],
)
def test_a_payload_arrives_as_it_was_written(relay: Relay, write: Write, pubsub: PubSubServer, data: object) -> None:
    write(data=data)
    assert relay().outcome is Outcome.OK
    assert json.loads(pubsub.taken[0].data)["data"] == data


def test_twice_in_a_row_the_second_sends_nothing(relay: Relay, write: Write, pubsub: PubSubServer) -> None:
    write(10)
    assert relay().counts["outbox_event.published"] == 10
    assert relay().counts.get("outbox_event.published", 0) == 0
    assert len(pubsub.taken) == 10


def test_two_at_once_send_each_event_once(relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows) -> None:
    ids = write(500, key=lambda n: f"k{n % 7}")
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(relay())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {r.outcome for r in results} <= {Outcome.OK, Outcome.SKIPPED}
    assert sorted(pubsub.ids) == sorted(ids)
    assert waiting(rows) == 0


def test_an_event_written_between_two_ticks_goes_with_the_next(
    relay: Relay, write: Write, pubsub: PubSubServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def sleep(seconds: float) -> None:
        if clock.moment.second % 5 == 0 and clock.moment.microsecond == 0:
            seen.append(len(pubsub.taken))
            write()
        clock.advance(timedelta(seconds=seconds))

    monkeypatch.setattr(clock, "sleep", sleep)
    result = relay(MINUTE)
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["outbox_event.published"] == 11
    assert seen == list(range(11)), "each tick sends what was written since the one before"


def test_a_transaction_that_commits_late_is_not_passed_over(relay: Relay, write: Write, pubsub: PubSubServer) -> None:
    newer = write(at=NOW)
    relay()
    older = write(at=NOW - timedelta(days=3))
    relay()
    assert pubsub.ids == newer + older


def test_published_history_is_left_alone(relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows) -> None:
    write(5)
    relay()
    before = rows("select * from outbox_event order by id")
    write(1)
    relay()
    assert len(pubsub.taken) == 6
    assert [r for r in rows("select * from outbox_event order by id") if r in before] == before


def test_a_published_history_is_not_even_read(relay: Relay, write: Write, db: Database, rows: Rows) -> None:
    """After a backlog the index of what waits is large and empty: PostgreSQL takes reading the table for cheaper."""
    backlog = text("""
        insert into outbox_event (id, topic, payload, created_at)
        select gen_random_uuid(), 'app-events', '{}', cast(:at as timestamptz) from generate_series(1, 30000)""")
    published = text("update outbox_event set published_at = created_at")
    scans = text("select seq_scan from pg_stat_user_tables where relname = 'outbox_event'")
    with db.autocommit() as connection:
        connection.execute(backlog, {"at": NOW - timedelta(days=1)})
        connection.execute(published)
        connection.execute(text("vacuum outbox_event"))
    write(300)
    with db.autocommit() as connection:
        connection.execute(text("analyze outbox_event"))
        before = connection.execute(scans).scalar_one()
        assert relay().outcome is Outcome.OK
        assert connection.execute(scans).scalar_one() == before
    assert waiting(rows) == 0


# --- order


def test_each_keys_events_arrive_in_the_order_they_were_written(
    relay: Relay, write: Write, pubsub: PubSubServer
) -> None:
    ids = write(3000, key=lambda n: f"k{n % 11}")
    assert relay().counts["outbox_event.published"] == 3000
    for k in range(11):
        assert pubsub.in_order(f"k{k}") == ids[k::11]


def test_a_key_longer_than_a_request_stays_in_order(relay: Relay, write: Write, pubsub: PubSubServer) -> None:
    ids = write(2500, key="one")
    relay()
    assert pubsub.ids == ids
    assert max(map(len, pubsub.requests)) <= 1000


def test_a_failing_key_holds_only_itself(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows, clock: ManualClock
) -> None:
    ids = write(700, key=lambda n: f"k{n % 7}")
    pubsub.answer = lambda _, messages: Code.INVALID_ARGUMENT if messages[0].id == ids[3] else OK
    result = relay()
    assert result.outcome is Outcome.PARTIAL
    assert result.counts["outbox_event.published"] == 600
    assert (result.counts["outbox_event.failed"], result.counts["backlog"]) == (1, 100)
    attempts, error, due, _ = state(rows, ids[3])
    assert (attempts, error) == (1, "Pub/Sub refused the message (INVALID_ARGUMENT)")
    assert timedelta(seconds=11) < due - NOW < timedelta(seconds=19)
    pubsub.answer = lambda *_: OK
    assert relay().counts.get("outbox_event.published", 0) == 0, "the key waits as long as its head does"
    clock.moment = due
    assert relay().counts["outbox_event.published"] == 100
    assert pubsub.in_order("k3") == ids[3::7]


def test_a_poisoned_event_in_the_middle_of_a_key_lets_those_before_it_through(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows
) -> None:
    ids = write(9, key="k")
    poisoned = ids[4]
    pubsub.answer = lambda _, messages: (
        Code.INVALID_ARGUMENT if poisoned in [message.id for message in messages] else OK
    )
    result = relay()
    assert result.outcome is Outcome.PARTIAL
    assert pubsub.ids == ids[:4]
    assert [state(rows, one).attempts for one in ids] == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_a_poisoned_event_without_a_key_fails_alone(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows
) -> None:
    ids = write(100)
    poisoned = ids[50]
    pubsub.answer = lambda _, messages: (
        Code.INVALID_ARGUMENT if poisoned in [message.id for message in messages] else OK
    )
    assert relay().counts["outbox_event.published"] == 99
    assert sum(r[0] for r in rows("select attempts from outbox_event")) == 1


def test_a_row_somebody_is_at_waits_with_its_key_and_a_cancelled_one_is_never_sent(
    relay: Relay, write: Write, pubsub: PubSubServer, db: Database
) -> None:
    cancelled, kept = write(1, key="k"), write(3, key="k")
    alone, others = write(1), write(4, key="other")
    with db.transaction() as connection:
        binds = {"ids": [cancelled[0], alone[0]]}
        connection.execute(text("delete from outbox_event where id = any(cast(:ids as uuid[]))"), binds)
        assert relay().counts["outbox_event.published"] == 4
        assert pubsub.ids == others
    assert relay().counts["outbox_event.published"] == 3
    assert pubsub.ids == others + kept


# --- failing again and again


def test_an_event_due_exactly_now_is_tried_and_one_an_instant_later_is_not(
    relay: Relay, write: Write, pubsub: PubSubServer
) -> None:
    due = write(attempts=1, next_attempt_at=NOW)
    write(attempts=1, next_attempt_at=NOW + INSTANT)
    write(key="k", attempts=1, next_attempt_at=NOW + INSTANT)
    write(key="k")  # behind one that is not due
    relay()
    assert pubsub.ids == due


def test_after_five_failed_attempts_an_event_is_dead_and_its_key_goes_on(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows, clock: ManualClock
) -> None:
    head, *others = write(4, key="k")
    pubsub.answer = lambda _, messages: Code.INVALID_ARGUMENT if messages[0].id == head else OK
    waits = []
    for attempt in range(1, 6):
        result = relay()
        assert state(rows, head).attempts == attempt
        if due := state(rows, head).next_attempt_at:
            waits.append((due - clock.moment).total_seconds())
            clock.moment = due
    assert (result.outcome, result.counts["outbox_event.dead"]) == (Outcome.PARTIAL, 1)
    assert [15 * 0.75 <= waits[0] <= 15 * 1.25, 45 <= waits[1] <= 75, 180 <= waits[2] <= 300] == [True] * 3
    assert 675 <= waits[3] <= 1125
    assert len(waits) == 4
    final = relay()
    assert (final.outcome, final.counts["dead_letters"]) == (Outcome.OK, 1)
    assert pubsub.ids == others
    dead = rows("select id from outbox_event where published_at is null and attempts >= 5")
    assert [str(r[0]) for r in dead] == [head], "dead is what db_cleanup's rule says"


KEY = "k" * 1024


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"key": "k" * 1025}, "the ordering key is longer than 1024 bytes"),
        ({"key": "ü" * 513}, "the ordering key is longer than 1024 bytes"),
        ({"topic": "a/b"}, "Pub/Sub allows no topic of this name"),
        ({"topic": "google-things"}, "Pub/Sub allows no topic of this name"),
        ({"topic": ""}, "Pub/Sub allows no topic of this name"),
        ({"data": "x" * 10_000_000}, "the message with its attributes is larger than 10000000 bytes"),
    ],
)
def test_what_can_never_be_sent_is_dead_at_once_and_stops_nothing(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows, event: dict[str, Any], words: str
) -> None:
    key = event.get("key", "same")
    before, never, after = write(key=key[:3]), write(**{"key": key, **event}), write(key=key[:3])
    result = relay()
    assert result.outcome is Outcome.PARTIAL
    assert words in (result.error or "")
    assert (state(rows, never[0]).attempts, state(rows, never[0]).last_error) == (5, words)
    assert state(rows, never[0]).next_attempt_at is None
    assert pubsub.ids == before + after


def test_a_key_of_exactly_1024_bytes_and_a_request_of_exactly_ten_million_are_sent(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows
) -> None:
    from google.pubsub_v1.types import PublishRequest, PubsubMessage

    def request_bytes(data: bytes) -> int:
        attributes = {"event_id": "0" * 36, "event_type": "thing.happened"}
        message = PubsubMessage(data=data, attributes=attributes)
        request = PublishRequest(topic="projects/demo-groundskeeper/topics/app-events", messages=[message])
        return int(PublishRequest.pb(request).ByteSize())

    (probe,) = write(data="x" * 9_990_000)
    relay()
    room = 10_000_000 - request_bytes(pubsub.taken[0].data)
    assert state(rows, probe).published_at is not None
    (fits,), (over,) = write(data="x" * (9_990_000 + room)), write(data="x" * (9_990_000 + room + 1))
    (long,) = write(key="ü" * 512)
    assert relay().outcome is Outcome.PARTIAL
    assert state(rows, fits).published_at is not None
    assert state(rows, long).published_at is not None
    assert state(rows, over).attempts == 5


def test_many_large_payloads_are_claimed_few_at_a_time(relay: Relay, write: Write, pubsub: PubSubServer) -> None:
    write(12, data="y" * 3_000_000)
    assert relay().counts["outbox_event.published"] == 12
    assert max(len(request) for request in pubsub.requests) <= 3


def test_a_missing_topic_counts_against_its_events_alone(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows
) -> None:
    lost, fine = write(3, topic="no-such-topic", key="k"), write(3, key="k")
    pubsub.answer = lambda topic, _: Code.NOT_FOUND if topic == "no-such-topic" else OK
    result = relay()
    assert result.outcome is Outcome.PARTIAL
    assert "no-such-topic: the topic does not exist" in (result.error or "")
    assert pubsub.ids == fine
    assert {state(rows, one).attempts for one in lost} == {1}


# --- the broker goes away


def test_an_outage_counts_against_no_event_and_all_go_when_it_is_over(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows
) -> None:
    ids = write(300, key=lambda n: f"k{n % 3}" if n % 2 else None, at=NOW - LATER)
    down = relay(PUBSUB_EMULATOR_HOST="127.0.0.1:1")
    assert down.outcome is Outcome.RETRY
    assert "300 events waiting" in (down.error or "")
    assert (down.counts["backlog"], down.counts["oldest_s"]) == (300, 3600)
    assert rows("select 1 from outbox_event where attempts > 0 or last_error is not null") == []
    assert relay().counts["outbox_event.published"] == 300
    assert sorted(pubsub.ids) == sorted(ids)


def test_a_broker_gone_in_the_middle_of_a_batch_loses_nothing_and_blames_nobody(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows
) -> None:
    ids = write(400, key=lambda n: f"k{n % 40}")
    pubsub.answer = lambda *_: OK if len(pubsub.taken) < 100 else Code.UNAVAILABLE
    gone = relay()
    assert gone.outcome is Outcome.RETRY
    sent = gone.counts["outbox_event.published"]
    assert 100 <= sent < 400
    assert waiting(rows) == 400 - sent
    pubsub.answer = lambda *_: OK
    assert relay().counts["outbox_event.published"] == 400 - sent
    for k in range(40):
        assert pubsub.in_order(f"k{k}") == ids[k::40]


@pytest.mark.full
def test_a_key_that_alone_gets_no_answer_again_is_to_blame_when_later_ones_get_through(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows, clock: ManualClock
) -> None:
    (stuck,) = write(key="stuck")
    write(20, key=lambda n: f"k{n}")
    pubsub.answer = lambda _, messages: Code.UNAVAILABLE if messages[0].key == "stuck" else OK
    clock.sleep = lambda seconds: (clock.advance(timedelta(seconds=seconds)), write(1))  # type: ignore[method-assign]
    result = relay(MINUTE)
    assert result.outcome is Outcome.PARTIAL
    assert result.counts["outbox_event.published"] >= 20
    assert state(rows, stuck).attempts == 2
    assert state(rows, stuck).last_error == "Pub/Sub was not available"


# --- killed, taken over


def test_killed_at_any_step_every_event_arrives_in_order_and_repeats_bear_the_same_id(
    write: Write, pubsub: PubSubServer, rows: Rows, settings: Settings, clock: ManualClock
) -> None:
    environment = {**settings.environ, "PUBSUB_EMULATOR_HOST": pubsub.host}
    slot, now = "2026-06-15T11:00:00Z", "2026-06-15T12:00:00Z"
    written: list[str] = []
    with killer(environment, FUNCTIONS / "outbox_relay") as kill:
        for step in range(1, 200):
            minute = f"2026-06-15T{step // 60:02}:{step % 60:02}:00Z"
            written += write(20, key=lambda n: f"k{n % 4}" if n % 5 else None)
            life = kill.run(slot=minute, step=step, now=now)
            rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")
            if not life.killed:
                break
        assert life.outcome == "ok", life.error
        last = kill.run(slot=slot, now=now)
        assert last.outcome == "ok", last.error
    assert step > 15
    assert waiting(rows) == 0
    assert set(pubsub.ids) == set(written)
    order = {one: n for n, one in enumerate(written)}
    for k in range(4):
        arrived = [order[one] for one in pubsub.in_order(f"k{k}")]
        assert arrived == sorted(arrived)
    assert len(rows("select id from outbox_event where published_at is not null")) == len(written)


def test_a_zombie_whose_lease_was_taken_marks_nothing(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows, db: Database
) -> None:
    ids = write(50)

    def take_over(_topic: str, _messages: Sequence[Sent]) -> grpc.StatusCode:
        run_id = rows("select run_id from groundskeeper.task_attempt where ended_at is null")[0][0]
        with db.transaction() as connection:
            ledger.cancel(connection, run_id, by="another relay", now=NOW)
        return OK

    pubsub.answer = take_over
    assert relay().outcome is Outcome.STOPPED
    assert waiting(rows) == 50
    pubsub.answer = lambda *_: OK
    assert relay().counts["outbox_event.published"] == 50
    assert Counter(pubsub.ids) == dict.fromkeys(ids, 2)


def test_a_pause_stops_the_relay_between_batches(
    relay: Relay, write: Write, pubsub: PubSubServer, rows: Rows, db: Database
) -> None:
    from shared import pauses

    write(1000)

    def pause(_topic: str, _messages: Sequence[Sent]) -> grpc.StatusCode:
        with db.transaction() as connection:
            pauses.pause(connection, "outbox_relay", reason="a test", by="tester", now=NOW, until=None)
        return OK

    pubsub.answer = pause
    assert relay().outcome is Outcome.STOPPED
    assert waiting(rows) > 0


# --- the declaration


def test_the_deadline_leaves_the_next_minute_its_lease() -> None:
    """A drain that fills the minute ends before the next minute's run stops waiting for the lease (5 s)."""
    timeout = load(FUNCTIONS / "outbox_relay").run.timeout_s
    assert 60 < timeout * 0.9 < 65


def test_the_oldest_unpublished_events_age_and_the_backlog_are_counted(
    relay: Relay, write: Write, pubsub: PubSubServer, db: Database
) -> None:
    write(2, at=NOW - timedelta(seconds=90), attempts=2, next_attempt_at=NOW + LATER)
    write(1, attempts=5)
    counts = relay().counts
    assert (counts["backlog"], counts["oldest_s"], counts["dead_letters"]) == (2, 90, 1)
    with db.transaction() as connection:
        kept = connection.execute(text("select counts from groundskeeper.task_run")).scalar_one()
    assert kept == dict(counts), "the ledger says what the run said"
