"""ping_services against real servers and a real database: states, incidents, events, and what it never does."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import certifi
import pytest
from sqlalchemy import text

from shared.call import of_slot
from shared.clock import rfc3339
from shared.database import Database
from shared.errors import Outcome
from shared.manifest import FUNCTIONS, Every
from shared.platform.partitions import create_ahead
from shared.result import Result
from tests.conftest import NOW, ManualClock, RunTask, as_role
from tests.killing import killer
from tests.telemetry.servers import Authority, Web, free_port, web

Rows = Callable[..., list[Any]]
Ping = Callable[..., Result]
Add = Callable[..., int]
HALF_MINUTE = timedelta(seconds=30)
LIMITS = {
    "dns_s": 1,
    "connect_s": 1,
    "tls_s": 1,
    "first_byte_s": 1,
    "total_s": 3,
    "body_bytes": 65536,
    "redirects": 5,
}


@pytest.fixture(scope="module")
def site() -> Iterator[Web]:
    with web() as started:
        yield started


@pytest.fixture(autouse=True)
def _clean(site: Web) -> None:
    site.status = 200
    site.hits.clear()
    site.before.clear()


@pytest.fixture(autouse=True)
def _world(db: Database) -> None:
    with db.transaction() as connection:
        create_ahead(connection, NOW, 1)
        connection.execute(
            text("""
            insert into user_profile (account_id, firebase_uid, email, created_at, updated_at)
            values ('a1', 'f1', 'a1@example.com', :now, :now), ('a2', 'f2', 'a2@example.com', :now, :now)"""),
            {"now": NOW},
        )


@pytest.fixture
def add(db: Database, site: Web) -> Add:
    """Add a service; its id. `path` is on the test's server."""

    def insert(path: str = "/ok", **columns: Any) -> int:
        values = {
            "account_id": "a1",
            "name": "shop",
            "kind": "http",
            "url": f"http://127.0.0.1:{site.port}{path}",
            "state": "up",
            "state_since": NOW - timedelta(days=1),
            "streak": 3,
            "last_checked_at": NOW - HALF_MINUTE,
            "maintenance": "[]",
            "created_at": NOW,
            **columns,
        }
        names = ", ".join(values)
        binds = ", ".join(f"cast(:{n} as jsonb)" if n == "maintenance" else f":{n}" for n in values)
        with db.transaction() as connection:
            added = connection.execute(
                text(f"insert into monitored_service ({names}) values ({binds}) returning id"), values
            )
            return int(added.scalar_one())

    return insert


def params(site: Web, **changed: Any) -> dict[str, Any]:
    return {
        "canaries": [f"http://127.0.0.1:{site.port}/canary"],
        "allow_networks": ["127.0.0.1/32"],
        "limits": LIMITS,
        **changed,
    }


@pytest.fixture
def ping(run_task: RunTask, site: Web, clock: ManualClock) -> Ping:
    """One round by hand, then half a minute goes by."""

    def run(**changed: Any) -> Result:
        result = run_task("ping_services", params=params(site, **changed))
        clock.advance(HALF_MINUTE)
        return result

    return run


def state(rows: Rows, service: int) -> tuple[str, int]:
    (found,) = rows("select state, streak from monitored_service where id = :id", id=service)
    return found.state, found.streak


def events(rows: Rows) -> list[tuple[str, int]]:
    found = rows("select payload from groundskeeper.outbox order by created_at, payload ->> 'type'")
    return [(r.payload["type"], r.payload["data"]["service_id"]) for r in found]


# --- what it keeps


def test_an_answer_is_a_row_and_a_state(ping: Ping, add: Add, rows: Rows) -> None:
    service = add(state="unknown", streak=0, state_since=None)
    result = ping()
    assert result.outcome is Outcome.OK, result.error
    assert (result.counts["services"], result.counts["up"], result.counts["stored"]) == (1, 1, 1)
    (row,) = rows("select * from endpoints")
    assert (row.account_id, row.service_id, row.status_code, row.is_active) == ("a1", service, 200, True)
    assert (row.last_tested, row.error) == (NOW, None)
    assert row.response_time > 0
    assert set(row.telemetry_context["ms"]) == {"connect", "first_byte"}
    assert state(rows, service) == ("up", 1)
    assert events(rows) == [("service.state_changed", service)]


def test_three_failures_open_one_incident_from_the_first_of_them(ping: Ping, add: Add, rows: Rows) -> None:
    service, other = add("/status/503"), add()
    for _ in range(5):
        assert ping().outcome is Outcome.OK
    assert state(rows, service) == ("down", -5)
    assert state(rows, other) == ("up", 8)
    (incident,) = rows("select * from incident")
    assert (incident.service_id, incident.account_id) == (service, "a1")
    assert (incident.severity, incident.cause) == ("major", "http: status 503")
    assert (incident.started_at, incident.resolved_at) == (NOW, None)
    assert events(rows) == [("incident.opened", service), ("service.state_changed", service)]
    (since,) = rows("select state_since from monitored_service where id = :id", id=service)
    assert since.state_since == NOW + 2 * HALF_MINUTE
    assert [r.is_active for r in rows("select is_active from endpoints where service_id = :id", id=service)] == [
        False
    ] * 5


def test_two_answers_close_it_and_a_failure_between_them_does_not(ping: Ping, add: Add, rows: Rows, site: Web) -> None:
    service = add("/ok")
    for status in (500, 500, 500, 200, 500, 200, 200):
        site.status = 200
        site.before["/ok"] = lambda s=status: setattr(site, "status", s)
        site.before["/canary"] = lambda: setattr(site, "status", 200)
        ping()
    assert state(rows, service) == ("up", 2)
    (incident,) = rows("select * from incident")
    assert (incident.started_at, incident.resolved_at) == (NOW, NOW + 6 * HALF_MINUTE)
    assert [kind for kind, _ in events(rows)] == [
        "incident.opened",
        "service.state_changed",
        "incident.closed",
        "service.state_changed",
    ]


def test_events_of_a_service_keep_their_order_and_bear_its_account(ping: Ping, add: Add, rows: Rows) -> None:
    service = add("/status/500")
    for _ in range(3):
        ping()
    found = rows("select topic, ordering_key, payload from groundskeeper.outbox")
    assert {(r.topic, r.ordering_key, r.payload["account_id"]) for r in found} == {
        ("service-events", f"service-{service}", "a1")
    }
    changed = next(r.payload["data"] for r in found if r.payload["type"] == "service.state_changed")
    assert (changed["from"], changed["to"], changed["cause"]) == ("up", "down", "http: status 500")


def test_a_flapping_service_changes_nothing(ping: Ping, add: Add, rows: Rows, site: Web) -> None:
    service = add("/ok")
    for status in (500, 500, 200, 500, 500, 200):
        site.before["/ok"] = lambda s=status: setattr(site, "status", s)
        site.before["/canary"] = lambda: setattr(site, "status", 200)
        ping()
    assert state(rows, service)[0] == "up"
    assert rows("select 1 from incident") == []
    assert events(rows) == []


# --- our own trouble


def test_without_a_canary_nothing_is_probed_and_nothing_is_called_down(
    ping: Ping, add: Add, rows: Rows, site: Web
) -> None:
    service = add("/status/500")
    dead = f"http://127.0.0.1:{free_port()}/"
    for _ in range(4):
        result = ping(canaries=[dead, f"tcp://127.0.0.1:{free_port()}"])
        assert result.outcome is Outcome.UNAVAILABLE
        assert "no canary" in (result.error or "")
        assert result.counts["unknown"] == 1
    assert site.hits["/status/500"] == 0
    assert state(rows, service) == ("up", 3)
    assert rows("select 1 from endpoints union all select 1 from incident") == []


def test_failures_are_not_believed_when_the_canary_is_gone_afterwards(
    ping: Ping, add: Add, rows: Rows, site: Web
) -> None:
    failing, answering = add("/status/500"), add("/ok")
    for n in range(4):
        result = ping(canaries=[f"http://127.0.0.1:{site.port}/once/{n}"])
        assert (result.counts["unknown"], result.counts["up"]) == (1, 1)
    assert state(rows, failing) == ("up", 3)
    assert state(rows, answering) == ("up", 7)
    assert {r.service_id for r in rows("select service_id from endpoints")} == {answering}


def test_one_canary_of_two_is_enough(ping: Ping, add: Add, site: Web) -> None:
    add()
    canaries = [f"http://127.0.0.1:{free_port()}/", f"http://127.0.0.1:{site.port}/canary"]
    assert ping(canaries=canaries).counts["up"] == 1


def test_when_nothing_is_learned_for_long_the_state_is_unknown(
    ping: Ping, add: Add, rows: Rows, clock: ManualClock
) -> None:
    service = add(last_checked_at=NOW)
    clock.advance(timedelta(seconds=301))
    ping(canaries=[f"http://127.0.0.1:{free_port()}/"])
    assert state(rows, service) == ("unknown", 0)
    ping()
    assert state(rows, service) == ("up", 1)


# --- maintenance


def test_under_maintenance_nothing_is_probed_and_afterwards_it_starts_anew(
    ping: Ping, add: Add, rows: Rows, site: Web, clock: ManualClock
) -> None:
    window = [{"start": "14:00", "end": "14:01", "zone": "Europe/Berlin", "repeat": "daily"}]  # 12:00 UTC in June
    service = add("/ok", maintenance=json.dumps(window))
    for _ in range(2):
        assert ping().counts["maintenance"] == 1
    assert site.hits["/ok"] == 0
    assert state(rows, service) == ("maintenance", 0)
    assert clock.now() == NOW + timedelta(minutes=1)  # the end is not part of it
    ping()
    assert state(rows, service) == ("up", 1)
    assert rows("select 1 from incident") == []


def test_a_window_or_url_nobody_can_read_holds_nobody_else_up(ping: Ping, add: Add, rows: Rows) -> None:
    odd = [
        add(maintenance='[{"start": "yesterday"}]', last_checked_at=None),
        add(url="http://user:pass@example.com/", last_checked_at=None),
        add(url="file:///etc/passwd", last_checked_at=None),
        add(url="http://0x7f000001/", last_checked_at=None),
    ]
    good = add()
    result = ping()
    assert result.outcome is Outcome.OK
    assert (result.counts["unusable"], result.counts["up"]) == (4, 1)
    assert {r.service_id for r in rows("select service_id from endpoints")} == {good}
    assert {state(rows, n)[0] for n in odd} == {"unknown"}


# --- where it never goes


def test_by_default_only_public_addresses_are_reached(ping: Ping, add: Add, rows: Rows, site: Web) -> None:
    inside = [
        add("/secret"),
        add(url=f"http://[::ffff:127.0.0.1]:{site.port}/secret"),
        add(url="http://169.254.169.254/computeMetadata/v1/"),
        add(url=f"tcp://127.0.0.1:{site.port}", kind="tcp"),
        add(url=f"tls://10.0.0.1:{site.port}", kind="tls"),
    ]
    result = ping(allow_networks=[])
    assert result.outcome is Outcome.UNAVAILABLE  # the test's canary is inside too
    assert site.hits["connections"] == 0
    result = ping(allow_networks=["127.0.0.1/32"], refuse_networks=[])
    assert result.counts["unknown"] == 3
    assert rows("select 1 from endpoints where service_id = any(:ids)", ids=inside[1:3] + inside[4:]) == []


def test_the_task_as_declared_allows_no_network() -> None:
    from shared.manifest import load

    declared = load(FUNCTIONS / "ping_services").params
    assert declared["allow_networks"] == []
    assert len(declared["canaries"]) >= 2


# --- certificates


def test_a_certificate_that_ends_is_told_once_at_each_limit(
    ping: Ping,
    add: Add,
    rows: Rows,
    db: Database,
    clock: ManualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setattr(certifi, "where", lambda: str(authority.file))
    ends = NOW + timedelta(days=3650)
    with web({"": authority.context("127.0.0.1", end=ends)}) as secure:
        service = add(kind="tls", url=f"tls://127.0.0.1:{secure.port}")
        said: list[list[int]] = []
        told = "select payload -> 'data' ->> 'days' as days from groundskeeper.outbox order by created_at"
        for days_before in (15, 13.99, 13.9, 7, 0.9, 0.8):
            clock.moment = ends - timedelta(days=days_before)
            with db.transaction() as connection:
                create_ahead(connection, clock.now(), 0)
            ping()
            said.append([int(r.days) for r in rows(told)])
    assert said == [[], [14], [14], [14, 7], [14, 7, 1], [14, 7, 1]]
    (row,) = rows("select tls_expires_at from monitored_service where id = :id", id=service)
    assert row.tls_expires_at == ends


# --- the database under it


def test_without_a_partition_the_states_are_kept_and_the_loss_is_said(
    ping: Ping, add: Add, rows: Rows, clock: ManualClock
) -> None:
    service = add("/status/500")
    clock.moment = NOW + timedelta(days=9)
    for _ in range(3):
        result = ping()
        assert result.outcome is Outcome.PARTIAL
        assert "1 result without a partition of endpoints" in (result.error or "")
    assert state(rows, service) == ("down", -3)
    (incident,) = rows("select started_at from incident")
    assert incident.started_at == NOW + timedelta(days=9) + 2 * HALF_MINUTE


def test_what_changes_during_the_round_is_passed_over(
    ping: Ping, add: Add, rows: Rows, db: Database, site: Web
) -> None:
    service, gone, off, fine = add("/edit"), add("/b"), add("/c"), add("/d")

    def edit() -> None:
        with db.transaction() as connection:
            connection.execute(text("update monitored_service set url = url || 'x' where id = :id"), {"id": service})
            connection.execute(text("delete from monitored_service where id = :id"), {"id": gone})
            connection.execute(text("update monitored_service set is_active = false where id = :id"), {"id": off})

    site.before["/edit"] = edit
    result = ping()
    assert result.outcome is Outcome.OK, result.error
    assert (result.counts["passed_over"], result.counts["stored"]) == (3, 1)
    assert state(rows, service) == ("up", 3)
    assert state(rows, fine) == ("up", 4)


def test_a_service_that_is_being_edited_holds_nobody_up(ping: Ping, add: Add, rows: Rows, db: Database) -> None:
    edited, other = add("/a"), add("/b")
    with db.transaction() as connection:
        connection.execute(text("select 1 from monitored_service where id = :id for update"), {"id": edited})
        result = ping()
    assert (result.outcome, result.counts["passed_over"]) == (Outcome.OK, 1)
    assert (state(rows, edited)[1], state(rows, other)[1]) == (3, 4)


# --- runs


def test_nothing_to_do_is_ok_with_zero_counts(ping: Ping) -> None:
    result = ping()
    assert result.outcome is Outcome.OK, result.error
    assert set(result.counts.values()) == {0}


def test_a_minute_has_two_rounds_half_a_minute_apart(
    run_task: RunTask, add: Add, rows: Rows, clock: ManualClock, tmp_path: Path, site: Web
) -> None:
    add()
    folder = _task(tmp_path, site)
    result = run_task("ping_services", of_slot(Every(30), NOW), functions=folder)
    assert (result.outcome, result.counts["stored"]) == (Outcome.OK, 2)
    assert [r.last_tested for r in rows("select last_tested from endpoints order by 1")] == [NOW, NOW + HALF_MINUTE]
    again = run_task("ping_services", of_slot(Every(30), NOW), functions=folder)
    assert again.outcome is Outcome.SKIPPED
    assert len(rows("select 1 from endpoints")) == 2


def _task(folder: Path, site: Web) -> Path:
    """The task as it stands, with its canary and its reach in the test's server."""
    shutil.copytree(FUNCTIONS / "ping_services", folder / "ping_services")
    declared = folder / "ping_services" / "task.yaml"
    lines = declared.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  canaries:"):
            lines[number] = f'  canaries: ["http://127.0.0.1:{site.port}/canary"]'
        if line.startswith("  allow_networks:"):
            lines[number] = '  allow_networks: ["127.0.0.1/32"]'
    declared.write_text("\n".join(lines) + "\n")
    return folder


def test_a_plan_probes_nothing_and_writes_nothing(run_task: RunTask, add: Add, rows: Rows, site: Web) -> None:
    service = add()
    result = run_task("ping_services", params=params(site), planning=True)
    assert result.outcome is Outcome.PLANNED
    assert result.counts["services"] == 1
    assert site.hits["connections"] == 0
    assert state(rows, service) == ("up", 3)


def test_two_at_once_probe_once(run_task: RunTask, add: Add, rows: Rows, site: Web) -> None:
    for _ in range(10):
        add("/slow")
    results: list[Result] = []
    threads = [
        threading.Thread(target=lambda: results.append(run_task("ping_services", params=params(site))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.outcome for r in results) == [Outcome.OK, Outcome.SKIPPED]
    assert len(rows("select 1 from endpoints")) == 10
    assert site.hits["/slow"] == 10


@pytest.mark.parametrize("stride", [6, pytest.param(1, marks=pytest.mark.full)])
def test_killed_at_any_step_the_next_run_says_everything_once(
    stride: int, settings: Any, add: Add, rows: Rows, db: Database, tmp_path: Path, site: Web
) -> None:
    folder = _task(tmp_path, site) / "ping_services"
    environment = dict(as_role(settings, "ping-services").environ)
    environment["DATABASE_URL"] = as_role(settings, "ping-services").database()
    failing, recovering = add("/status/500"), add("/ok")

    def arrange() -> None:
        with db.transaction() as connection:
            connection.execute(text("truncate groundskeeper.task_run, groundskeeper.outbox, incident cascade"))
            connection.execute(text("truncate endpoints"))
            for service, was, streak in ((failing, "up", -2), (recovering, "down", 1)):
                connection.execute(
                    text("""
                    update monitored_service set state = :was, streak = :streak, last_checked_at = :before
                     where id = :id"""),
                    {"was": was, "streak": streak, "before": NOW - HALF_MINUTE, "id": service},
                )
            connection.execute(
                text("""
                insert into incident (account_id, service_id, severity, cause, started_at)
                values ('a1', :id, 'major', 'http: status 500', :at)"""),
                {"id": recovering, "at": NOW - timedelta(hours=1)},
            )

    slot, late = rfc3339(NOW), rfc3339(NOW + timedelta(seconds=45))
    with killer(environment, folder) as kill:
        arrange()
        undisturbed = kill.run(slot=slot, now=late)
        assert (undisturbed.outcome, undisturbed.killed) == ("ok", False), undisturbed.error
        for step in range(undisturbed.steps, 0, -stride):
            arrange()
            assert kill.run(slot=slot, step=step, now=late).killed, step
            rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")
            again = kill.run(slot=slot, now=late)
            assert again.outcome in ("ok", "skipped"), (step, again)
            assert sorted(events(rows)) == [
                ("incident.closed", recovering),
                ("incident.opened", failing),
                ("service.state_changed", failing),
                ("service.state_changed", recovering),
            ], step
            assert len(rows("select 1 from endpoints")) == 2, step
            (opened,) = rows("select service_id from incident where resolved_at is null")
            assert opened.service_id == failing, step
            (run,) = rows("select outcome, counts from groundskeeper.task_run")
            assert (run.outcome, run.counts["stored"], run.counts["incidents_opened"]) == ("ok", 2, 1), step
