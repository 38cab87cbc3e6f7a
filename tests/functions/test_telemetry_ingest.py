"""telemetry_ingest: each event once, nobody's address kept, a bad one never in the way of a good one."""

import base64
import itertools
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from sqlalchemy import text

from shared.call import Call, of_message, of_slot
from shared.clock import rfc3339
from shared.database import Database
from shared.errors import Outcome
from shared.ingest.events import LARGEST_BODY, MOST_EVENTS
from shared.manifest import FUNCTIONS, Every
from shared.platform.partitions import create_ahead
from shared.result import Result
from shared.secrets import store
from shared.settings import Settings
from tests.conftest import NOW, ManualClock, RunTask
from tests.killing import killer
from tests.relay.kafka_broker import KafkaBroker, kafka_broker
from tests.relay.kafka_login import kafka_with_login

Rows = Callable[..., list[Any]]
Send = Callable[..., Result]
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


@pytest.fixture(autouse=True)
def _world(db: Database) -> None:
    with db.transaction() as connection:
        create_ahead(connection, NOW, 1, since=NOW - timedelta(days=3))
        connection.execute(
            text("""
            insert into user_profile (account_id, firebase_uid, email, created_at, updated_at)
            select 'a' || n, 'f' || n, 'a' || n || '@example.com', :now, :now from generate_series(1, 3) n"""),
            {"now": NOW},
        )


def request(**fields: Any) -> dict[str, Any]:
    """A request's event; `data` is merged, the rest replaced."""
    data = {"url": "https://one.example/a", "status_code": 200, "response_time_ms": 12.5, **fields.pop("data", {})}
    return {
        "id": str(uuid.uuid4()),
        "type": "request.completed",
        "occurred_at": rfc3339(NOW - timedelta(minutes=1)),
        "account_id": "a1",
        "data": data,
        **fields,
    }


def issue(**data: Any) -> dict[str, Any]:
    return request(type="issue.reported") | {"data": {"title": "It is empty", "body": "It stays empty.", **data}}


_messages = iter(range(1_000_000))


def envelope(*events: Any, body: bytes | None = None) -> dict[str, Any]:
    """The events as one message, in the envelope that Pub/Sub pushes."""
    document = events[0] if len(events) == 1 else list(events)
    whole = json.dumps(document).encode() if body is None else body
    message = {"messageId": f"m{next(_messages)}", "data": base64.b64encode(whole).decode()}
    return {"message": message, "subscription": "s"}


def message(*events: Any, body: bytes | None = None) -> Call:
    return of_message(envelope(*events, body=body))


@pytest.fixture
def send(run_task: RunTask) -> Send:
    """Push the events as one message."""
    return lambda *events, **more: run_task("telemetry_ingest", message(*events, **more))


def test_a_request_is_normalised_anonymised_and_told_what_made_it(send: Send, rows: Rows) -> None:
    said = request(
        data={
            "url": "HTTPS://Ann:pw@One.Example:443/x/../caf%C3%A9/%7euser/ann@example.com?token=abc#top",
            "ip": "203.0.113.77",
            "user_agent": FIREFOX,
            "method": "GET",
            "referrer": "https://news.example/?q=ann",
            "password": "hunter2",
        }
    )
    result = send(said)
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["requests"] == 1
    [row] = rows("select * from endpoints")
    assert row.url == "https://one.example/caf%C3%A9/~user/<e-mail>"
    assert str(row.ip_address) == "203.0.113.0/24"
    assert (row.device_type, row.os_name, row.browser_name, row.is_bot) == ("desktop", "Linux", "Firefox", False)
    assert (row.status_code, row.response_time, row.account_id, row.service_id) == (200, 12.5, "a1", None)
    assert (str(row.id), row.last_tested) == (said["id"], NOW - timedelta(minutes=1))
    assert row.telemetry_context == {"type": "request.completed", "method": "GET", "referrer": "news.example"}


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.9", "198.51.100.0/24"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", None),
        (7, None),
    ],
)
def test_no_address_of_a_person_is_kept(send: Send, rows: Rows, address: Any, kept: str | None) -> None:
    assert send(request(data={"ip": address})).outcome is Outcome.OK
    assert [row[0] and str(row[0]) for row in rows("select ip_address from endpoints")] == [kept]


def test_bots_are_known_by_their_user_agent(send: Send, rows: Rows) -> None:
    for agent in ("curl/8.5.0", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"):
        send(request(data={"user_agent": agent}))
    assert [tuple(r) for r in rows("select is_bot, device_type from endpoints")] == [(True, "bot")] * 2


def test_an_issue_becomes_a_report(send: Send, rows: Rows) -> None:
    assert send(issue(url="https://one.example/x?q=1", ip="192.0.2.9", reporter_email="ann@example.com")).counts[
        "reports"
    ]
    [row] = rows("select account_id, title, url, host(network(ip_address)) as net, reporter_email from bug_report")
    assert tuple(row) == ("a1", "It is empty", "https://one.example/x", "192.0.2.0", "ann@example.com")


def test_the_same_event_again_changes_nothing(send: Send, rows: Rows) -> None:
    one, two = request(), issue()
    assert send(one, two, one).counts["duplicates"] == 1
    again = send(one, two)
    assert (again.outcome, again.counts["duplicates"], again.counts["requests"]) == (Outcome.OK, 2, 0)
    assert rows("select count(*) from endpoints")[0][0] == rows("select count(*) from bug_report")[0][0] == 1


def test_the_same_message_delivered_twice_is_one_run(run_task: RunTask, rows: Rows) -> None:
    call = message(request())
    assert run_task("telemetry_ingest", call).outcome is Outcome.OK
    assert run_task("telemetry_ingest", call).outcome is Outcome.SKIPPED
    assert rows("select count(*) from endpoints")[0][0] == 1


def test_two_messages_with_the_same_event_at_once_write_it_once(run_task: RunTask, rows: Rows) -> None:
    shared, outcomes = request(), []

    def one() -> None:
        outcomes.append(run_task("telemetry_ingest", message(shared)).outcome)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {Outcome.OK, Outcome.RETRY}
    assert rows("select count(*) from endpoints")[0][0] == 1


POISON = {
    "id is not a UUID": request(id="7"),
    "occurred_at is not RFC 3339 with an offset": request(occurred_at="2026-06-15T12:00:00"),
    "type is not a text of 1 to 100 characters": request(type=""),
    "data is not an object": request() | {"data": [1]},
    "the event is not an object": 7,
    "there is no such account": request(account_id="nobody"),
    "account_id is missing": request(account_id=None),
    "it happened in the future": request(occurred_at=rfc3339(NOW + timedelta(seconds=301))),
    "it happened longer ago than raw telemetry is kept": request(
        occurred_at=rfc3339(NOW - timedelta(days=30, seconds=1))
    ),
    "its day has no partition of endpoints": request(occurred_at=rfc3339(NOW - timedelta(days=5))),
    "data.url is not http or https": request(data={"url": "javascript:alert(1)"}),
    "data.url has no readable host": request(data={"url": "https:///x"}),
    "data.status_code is neither null nor a whole number from 100 to 599": request(data={"status_code": 99}),
    "data.response_time_ms is neither null nor a number from 0 to 86400000": request(data={"response_time_ms": -1}),
    "data.title is not a text": issue(title=None),
}


def test_each_bad_event_is_put_aside_with_its_reason_and_the_others_are_kept(send: Send, rows: Rows) -> None:
    good = [request() for _ in range(5)]
    result = send(
        *[one for pair in zip(good, list(POISON.values())[:5], strict=True) for one in pair], *POISON.values()
    )
    assert result.outcome is Outcome.REFUSED
    assert result.counts["requests"] == 5
    assert result.counts["dead_lettered"] == len(POISON) + 5
    assert {row.reason for row in rows("select reason from groundskeeper.dead_letter")} == set(POISON)
    assert rows("select count(*) from endpoints")[0][0] == 5


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"id": NaN}', b"1" * 5000, b"null", b'"\\ud800"']
)
def test_what_is_no_event_is_put_aside_and_not_delivered_again(send: Send, rows: Rows, body: bytes) -> None:
    result = send(body=body)
    assert result.outcome is Outcome.REFUSED, "2xx: trying again cannot help"
    assert rows("select bytes from groundskeeper.dead_letter")[0][0] == len(body) or body in (b"null", b'"\\ud800"')


def test_a_dead_letter_holds_no_address_and_no_secret(send: Send, rows: Rows) -> None:
    send(request(account_id="nobody", data={"ip": "203.0.113.77", "who": "ann@example.com", "v6": "2001:db8::7"}))
    [row] = rows("select payload, event_id from groundskeeper.dead_letter")
    for gone in ("203.0.113.77", "ann@example.com", "2001:db8::7"):
        assert gone not in row.payload
    assert "<address>" in row.payload


def test_an_event_that_was_put_aside_is_handled_when_it_comes_mended(send: Send, rows: Rows) -> None:
    bad = request(data={"status_code": 99})
    assert send(bad).outcome is Outcome.REFUSED
    assert send(bad | {"data": {**bad["data"], "status_code": 200}}).counts["requests"] == 1


def test_halves_of_characters_and_nul_are_written_as_what_a_database_takes(send: Send, rows: Rows) -> None:
    result = send(issue(title="a\ud800b\0c", body="tab\tline\nback\\slash"))
    assert result.outcome is Outcome.OK, result.error
    assert [tuple(r) for r in rows("select title, body from bug_report")] == [("a?b\ufffdc", "tab\tline\nback\\slash")]


def test_events_exactly_at_the_edges_of_the_range_are_kept(send: Send, db: Database) -> None:
    with db.transaction() as connection:
        create_ahead(connection, NOW, 1, since=NOW - timedelta(days=30))
    edges = [rfc3339(NOW - timedelta(days=30)), rfc3339(NOW + timedelta(seconds=300))]
    assert send(*[request(occurred_at=at) for at in edges]).counts["requests"] == 2


def test_events_of_other_kinds_are_somebody_elses(send: Send, rows: Rows) -> None:
    result = send(request(type="tier.changed"))
    assert (result.outcome, result.counts["ignored"]) == (Outcome.OK, 1)
    assert not rows("select 1 from endpoints union all select 1 from groundskeeper.dead_letter")


def test_a_listed_address_network_or_referrer_is_flagged(send: Send, rows: Rows, db: Database) -> None:
    with db.transaction() as connection:
        connection.execute(
            text("""
            insert into threat_intelligence
                   (canonical_key, indicator_type, indicator, confidence, expires_at, created_at)
            values ('ipv4:203.0.113.7', 'ipv4', '203.0.113.7', 90, null, :now),
                   ('cidr:198.51.100.0/25', 'cidr', '198.51.100.0/25', null, :later, :now),
                   ('domain:bad.example', 'domain', 'bad.example', 90, null, :now),
                   ('ipv4:203.0.113.8', 'ipv4', '203.0.113.8', 49, null, :now),
                   ('ipv4:203.0.113.9', 'ipv4', '203.0.113.9', 90, :now, :now)"""),
            {"now": NOW, "later": NOW + timedelta(seconds=1)},
        )
    flagged = {
        "203.0.113.7": True,
        "198.51.100.126": True,
        "198.51.100.129": False,
        "203.0.113.8": False,
        "203.0.113.9": False,
        "2001:db8::1": False,
    }
    for address in flagged:
        send(request(data={"url": f"https://x.example/{address.replace(':', '-')}", "ip": address}))
    found = {row.url.rsplit("/", 1)[1].replace("-", ":"): row.is_threat for row in rows("select * from endpoints")}
    assert found == flagged
    assert send(request(data={"referrer": "https://deep.bad.example/x"})).counts["threats"] == 1


def test_places_come_from_files_of_the_reference_bucket(send: Send, rows: Rows, settings: Settings) -> None:
    folder = Path(settings.bucket("reference")) / "geo"
    folder.mkdir(parents=True)
    for name, record in (
        ("city.mmdb", {"city": {"names": {"en": "Berlin"}}, "country": {"iso_code": "DE"}}),
        ("asn.mmdb", {"autonomous_system_number": 64496, "autonomous_system_organization": "Example Telekom"}),
    ):
        writer = MMDBWriter(ip_version=6, ipv4_compatible=True)
        writer.insert_network(IPSet(["203.0.113.0/24"]), record)
        writer.to_db_file(str(folder / name))
    send(request(data={"ip": "203.0.113.7"}), request(data={"ip": "192.0.2.1"}))
    found = {str(row.ip_address): (row.location, row.asn, row.isp) for row in rows("select * from endpoints")}
    assert found == {"203.0.113.0/24": ("Berlin, DE", 64496, "Example Telekom"), "192.0.2.0/24": (None, None, None)}


def test_a_whole_batch_goes_in_at_once_and_one_more_is_refused(send: Send) -> None:
    many = [request(data={"ip": f"10.0.{n // 250}.{n % 250}"}) for n in range(MOST_EVENTS)]
    assert send(*many).counts["requests"] == MOST_EVENTS
    assert send(*many, request()).outcome is Outcome.REFUSED


def test_ten_megabytes_are_taken_and_a_byte_more_is_put_aside_all_but_its_beginning(send: Send, rows: Rows) -> None:
    whole = json.dumps(request(data={"user_agent": FIREFOX})).encode()
    assert send(body=whole.ljust(LARGEST_BODY)).counts["requests"] == 1
    assert send(body=whole.ljust(LARGEST_BODY + 1)).outcome is Outcome.REFUSED
    [row] = rows("select reason, bytes, length(payload) as kept from groundskeeper.dead_letter")
    assert row.reason == f"the message is larger than {LARGEST_BODY} bytes"
    assert row.bytes == LARGEST_BODY + 1
    assert row.kept <= 16_384


def _kept(rows: Rows) -> list[Any]:
    return [
        tuple(row)
        for row in rows("""
        select 'request', cast(id as text) as what from endpoints
        union all select 'report', title from bug_report
        union all select 'dead', reason from groundskeeper.dead_letter
         order by 1, 2""")
    ]


def _stale(rows: Rows) -> None:
    """Let the lease of a run that was killed be over."""
    rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.full)])
def test_killed_at_any_step_a_message_delivered_again_writes_each_event_once(
    rows: Rows, settings: Settings, stride: int
) -> None:
    now, wanted = rfc3339(NOW), []
    with killer(settings.environ, FUNCTIONS / "telemetry_ingest") as kill:
        for step in range(1, 100, stride):
            events = [request(), issue(title=f"step {step}"), request(id="7"), request(type="tier.changed")]
            wanted += [("request", events[0]["id"]), ("report", f"step {step}"), ("dead", "id is not a UUID")]
            pushed = envelope(*events)
            life = kill.run(message=pushed, step=step, now=now)
            if not life.killed:
                break
            _stale(rows)
            again = kill.run(message=pushed, now=now)
            assert again.outcome in ("refused", "skipped"), (step, again)
            assert _kept(rows) == sorted(wanted), step
    assert life.outcome == "refused", life.error
    assert step > 10
    assert _kept(rows) == sorted(wanted)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("url", "status_code", "response_time_ms", "error", "ip", "user_agent", "referrer", "method", "title", "body")


KINDS = st.sampled_from(["request.completed", "issue.reported"])
MANY = st.lists(st.tuples(KINDS, st.dictionaries(st.sampled_from(FIELDS), JSON)), min_size=20, max_size=20)
PATIENT = hypothesis_settings(deadline=None, suppress_health_check=list(HealthCheck))


def _hostile(run_task: RunTask, many: list[tuple[str, dict[str, Any]]]) -> None:
    result = run_task("telemetry_ingest", message(*(request(type=kind) | {"data": data} for kind, data in many)))
    assert result.outcome in (Outcome.OK, Outcome.REFUSED), result.error
    assert sum(result.counts[what] for what in ("requests", "reports", "dead_lettered")) == len(many)


@hypothesis_settings(PATIENT, max_examples=10)
@given(MANY)
def test_no_value_of_a_field_makes_a_defect(run_task: RunTask, many: list[tuple[str, dict[str, Any]]]) -> None:
    _hostile(run_task, many)


@pytest.mark.full
@hypothesis_settings(PATIENT, max_examples=200)
@given(MANY)
def test_no_value_of_thousands_makes_a_defect(run_task: RunTask, many: list[tuple[str, dict[str, Any]]]) -> None:
    _hostile(run_task, many)


# --- Kafka


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as started:
        started.create("app-events", "user-issues")
        yield started


_minutes = iter(range(1_000_000))


@pytest.fixture
def drain(run_task: RunTask, settings: Settings, clock: ManualClock) -> Callable[..., Result]:
    """One minute's run with KAFKA_SERVERS set."""

    def run(servers: str, **variables: str) -> Result:
        using = replace(settings, environ={**settings.environ, **variables, "KAFKA_SERVERS": servers})
        slot = datetime(2026, 6, 15, 12, 0, tzinfo=UTC) - timedelta(minutes=next(_minutes) + 1)
        return run_task("telemetry_ingest", of_slot(Every(60), slot), using=using)

    return run


def produce(broker: KafkaBroker, topic: str, *bodies: bytes) -> None:
    producer = Producer(broker.settings)
    for n, body in enumerate(bodies):
        producer.produce(topic, body, key=str(n % 7))
    assert producer.flush(10) == 0


def test_a_minute_drains_kafka_and_the_next_goes_on_where_it_ended(
    broker: KafkaBroker, drain: Callable[..., Result], rows: Rows
) -> None:
    events = [json.dumps(request()).encode() for _ in range(300)]
    produce(broker, "app-events", *events, b"poison")
    produce(broker, "user-issues", json.dumps(issue()).encode())
    first = drain(broker.servers)
    assert first.outcome is Outcome.REFUSED, first.error
    assert (first.counts["requests"], first.counts["reports"], first.counts["dead_lettered"]) == (300, 1, 1)
    produce(broker, "app-events", *[json.dumps(request()).encode() for _ in range(5)])
    second = drain(broker.servers)
    assert (second.outcome, second.counts["events"], second.counts["requests"]) == (Outcome.OK, 5, 5)
    assert drain(broker.servers).counts["events"] == 0
    assert rows("select sum(next_offset) from groundskeeper.stream_offset")[0][0] >= 307


def test_a_drain_whose_database_refuses_moves_no_offset(
    broker: KafkaBroker, drain: Callable[..., Result], db: Database, rows: Rows
) -> None:
    drain(broker.servers)  # what other tests left
    before = rows("select topic, partition, next_offset from groundskeeper.stream_offset order by 1, 2")
    produce(broker, "app-events", *[json.dumps(request()).encode() for _ in range(3)])
    with db.transaction() as connection:
        connection.execute(text('revoke insert on endpoints from "telemetry-ingest"'))
    assert drain(broker.servers).outcome is not Outcome.OK
    assert rows("select topic, partition, next_offset from groundskeeper.stream_offset order by 1, 2") == before
    with db.transaction() as connection:
        connection.execute(text('grant insert on endpoints to "telemetry-ingest"'))
    assert drain(broker.servers).counts["requests"] == 3


@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.full)])
def test_killed_at_any_step_the_next_minute_drains_what_is_left_each_event_once(
    tmp_path: Path, rows: Rows, settings: Settings, stride: int
) -> None:
    now, wanted = rfc3339(NOW), []
    slots = (rfc3339(NOW + timedelta(minutes=n)) for n in itertools.count())
    with kafka_broker(tmp_path / "kafka") as own:
        own.create("app-events")
        with killer({**settings.environ, "KAFKA_SERVERS": own.servers}, FUNCTIONS / "telemetry_ingest") as kill:
            for step in range(1, 100, stride):
                events = [request() for _ in range(8)]
                wanted += [("request", one["id"]) for one in events] + [("dead", "the message is not JSON")]
                produce(own, "app-events", *[json.dumps(one).encode() for one in events], b"poison")
                life = kill.run(slot=next(slots), step=step, now=now)
                if not life.killed:
                    break
                _stale(rows)
    assert life.outcome == "refused", life.error
    assert step > 10
    assert _kept(rows) == sorted(wanted)


def test_without_a_broker_the_drain_is_unavailable(
    drain: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.ingest.kafka._ANSWER_S", 0.5)
    result = drain("127.0.0.1:9")
    assert result.outcome is Outcome.UNAVAILABLE
    assert "KAFKA_SERVERS" in (result.error or "")


def test_a_login_without_its_password_is_unavailable_in_words(
    broker: KafkaBroker, drain: Callable[..., Result]
) -> None:
    result = drain(broker.servers, KAFKA_USER="ingest")
    assert result.outcome is Outcome.UNAVAILABLE
    assert "kafka-password" in (result.error or "")


def test_a_broker_that_will_not_speak_tls_never_hears_the_password(
    broker: KafkaBroker, drain: Callable[..., Result], settings: Settings, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert settings.secrets_folder
    value = Path(settings.secrets_folder) / "kafka-password" / "1"
    value.parent.mkdir(parents=True)
    value.write_text("a password nobody shall read")
    monkeypatch.setattr("shared.ingest.kafka._ANSWER_S", 1.0)
    result = drain(broker.servers, KAFKA_USER="ingest")
    assert result.outcome is Outcome.UNAVAILABLE
    assert "nobody shall read" not in f"{capfd.readouterr()} {result.error}"


def test_behind_a_login_the_drain_reads_over_tls_and_a_wrong_password_reads_nothing(
    drain: Callable[..., Result], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kafka_with_login(tmp_path) as login:
        login.broker.create("app-events")
        produce(login.broker, "app-events", *[json.dumps(request()).encode() for _ in range(20)])
        login.accepted.clear()
        servers = login.variables["KAFKA_SERVERS"]
        with monkeypatch.context() as hurried:
            hurried.setattr("shared.ingest.kafka._ANSWER_S", 1.0)
            store(settings).add("kafka-password", "a password nobody gave")
            wrong = drain(servers, **login.variables)
        assert (wrong.outcome, login.accepted, set(login.refused)) == (Outcome.UNAVAILABLE, [], {"SCRAM-SHA-256"})
        assert "KAFKA_USER" in (wrong.error or "")
        store(settings).add("kafka-password", login.password)
        right = drain(servers, **login.variables)
        assert (right.outcome, right.counts["requests"]) == (Outcome.OK, 20), right.error
        assert set(login.accepted) == {"SCRAM-SHA-256"}


def test_without_kafka_the_minute_has_nothing_to_do(run_task: RunTask) -> None:
    result = run_task("telemetry_ingest", of_slot(Every(60), NOW))
    assert (result.outcome, result.counts["events"]) == (Outcome.OK, 0)
