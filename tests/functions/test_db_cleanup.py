"""db_cleanup against the platform's retention table: what goes, what stays, and the instant between."""

import re
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared import holds
from shared.call import of_slot
from shared.database import Database
from shared.errors import Outcome
from shared.manifest import FUNCTIONS, Cron
from tests.conftest import NOW, ManualClock, RunTask

Rows = Callable[..., list[Any]]
Execute = Callable[..., None]
SMALL = {"batch_rows": 10, "idle_ms": 200, "busy_ms": 4, "lag_s": 10, "long_transaction_s": 300, "patience_s": 5}
DAY, INSTANT = timedelta(days=1), timedelta(microseconds=1)
SLOT = of_slot(Cron("0 2 * * *"), datetime(2026, 6, 15, 2, tzinfo=UTC))


@pytest.fixture
def execute(db: Database) -> Execute:
    def run(sql: str, *many: dict[str, Any]) -> None:
        with db.transaction() as connection:
            connection.execute(text(sql), list(many) or None)

    return run


@pytest.fixture(autouse=True)
def _partition(db: Database) -> None:
    """One partition for all the days of these tests, owned as the table is."""
    with db.transaction() as connection:
        owner = connection.execute(text("select tableowner from pg_tables where tablename = 'endpoints'")).scalar_one()
        connection.execute(
            text(
                "create table endpoints_2026 partition of endpoints"
                " for values from ('2026-01-01 00:00+00') to ('2027-01-01 00:00+00')"
            )
        )
        connection.execute(text(f'alter table endpoints_2026 owner to "{owner}"'))
        connection.execute(
            text("""
            insert into user_profile (account_id, firebase_uid, email, created_at, updated_at)
            values ('a1', 'f1', 'a1@example.com', :now, :now), ('a2', 'f2', 'a2@example.com', :now, :now)"""),
            {"now": NOW},
        )


ENDPOINT = (
    "insert into endpoints (id, account_id, url, last_tested)"
    " values (gen_random_uuid(), :account, 'https://x.example/', :at)"
)
AUDIT = "insert into audit_log (account_id, actor, action, created_at) values (:account, 'app', 'login', :at)"
CONSENT = (
    "insert into cookie_consent (visitor_id, choices, policy_version, created_at)"
    " values (gen_random_uuid()::text, '{}', '1', :at)"
)
EVENT = (
    "insert into outbox_event (id, topic, payload, attempts, created_at, published_at)"
    " values (gen_random_uuid(), 'app-events', '{}', :attempts, :at, :published)"
)
THREAT = (
    "insert into threat_intelligence (indicator_type, indicator, confidence, last_seen, created_at)"
    " values ('domain', :name, :confidence, :seen, :at)"
)


@pytest.mark.parametrize(
    ("insert", "table", "column", "days"),
    [
        (ENDPOINT, "endpoints", "last_tested", 30),
        (AUDIT, "audit_log", "created_at", 30),
        (CONSENT, "cookie_consent", "created_at", 30),
    ],
)
def test_rows_exactly_at_the_limit_are_kept(
    execute: Execute, rows: Rows, run_task: RunTask, insert: str, table: str, column: str, days: int
) -> None:
    limit = NOW - days * DAY
    ages = [limit - DAY, limit - INSTANT, limit, limit + INSTANT, NOW, NOW + DAY]
    execute(insert, *({"at": at, "account": "a1"} for at in ages))
    result = run_task("db_cleanup")
    assert result.outcome is Outcome.OK, result.error
    assert result.counts[f"{table}.deleted"] == 2
    assert [r[0] for r in rows(f"select {column} from {table} order by 1")] == ages[2:]


def test_published_events_go_after_thirty_days_dead_ones_after_seven_and_waiting_ones_never(
    execute: Execute, rows: Rows, run_task: RunTask
) -> None:
    old, week = NOW - 400 * DAY, NOW - 7 * DAY
    execute(
        EVENT,
        {"attempts": 1, "at": old, "published": NOW - 30 * DAY - INSTANT},  # goes
        {"attempts": 1, "at": old, "published": NOW - 30 * DAY},  # at the limit
        {"attempts": 5, "at": week - INSTANT, "published": None},  # dead: goes
        {"attempts": 5, "at": week, "published": None},  # dead, at the limit
        {"attempts": 4, "at": old, "published": None},  # still tried: never
        {"attempts": 0, "at": old, "published": None},  # never sent: never
        {"attempts": 9, "at": old, "published": NOW},
    )  # was dead, was sent after all
    counts = run_task("db_cleanup").counts
    assert (counts["outbox_event_published.deleted"], counts["outbox_event_dead.deleted"]) == (1, 1)
    assert len(rows("select 1 from outbox_event")) == 5


def test_of_a_hundred_copies_of_a_threat_the_most_trusted_stays(
    execute: Execute, rows: Rows, run_task: RunTask
) -> None:
    copies = [
        {"name": "evil.example", "confidence": n % 90, "seen": NOW - n * DAY, "at": NOW - 900 * DAY} for n in range(99)
    ]
    best = {"name": "evil.example", "confidence": 95, "seen": None, "at": NOW - 900 * DAY}
    execute(THREAT, *copies, best, {**best, "name": "alone.example"})
    assert run_task("db_cleanup").counts["threat_intelligence_duplicates.deleted"] == 99
    assert [tuple(r) for r in rows("select indicator, confidence from threat_intelligence order by 1")] == [
        ("alone.example", 95),
        ("evil.example", 95),
    ]


KEPT = ("bug_report", "threat_report", "training_run", "user_profile", "monitored_service", "status_page", "incident")


def test_systems_of_record_and_tenant_configuration_are_never_touched(
    execute: Execute, rows: Rows, run_task: RunTask
) -> None:
    old = NOW - 3650 * DAY
    execute(
        """insert into bug_report (account_id, title, body, status, created_at)
               values ('a1', 't', 'b', 'open', :at)""",
        {"at": old},
    )
    execute(
        """insert into threat_report (account_id, indicator_type, indicator, description, status, created_at)
               values ('a1', 'domain', 'x', 'd', 'open', :at)""",
        {"at": old},
    )
    execute("update user_profile set created_at = :at, updated_at = :at", {"at": old})
    before = {t: rows(f"select * from {t}") for t in KEPT}
    assert run_task("db_cleanup").outcome is Outcome.OK
    assert {t: rows(f"select * from {t}") for t in KEPT} == before


def test_nothing_to_do_is_ok_with_zero_counts(run_task: RunTask) -> None:
    result = run_task("db_cleanup")
    assert result.outcome is Outcome.OK
    assert set(result.counts.values()) == {0}


def test_twice_in_a_row_the_second_finds_nothing(execute: Execute, run_task: RunTask) -> None:
    execute(AUDIT, *({"at": NOW - 31 * DAY, "account": None} for _ in range(3)))
    assert run_task("db_cleanup").counts["audit_log.deleted"] == 3
    assert run_task("db_cleanup").counts["audit_log.deleted"] == 0


def test_many_batches_delete_as_one_would(execute: Execute, rows: Rows, run_task: RunTask) -> None:
    execute(AUDIT, *({"at": NOW - 31 * DAY, "account": None} for _ in range(25)), {"at": NOW, "account": None})
    assert run_task("db_cleanup", params={"pace": SMALL}).counts["audit_log.deleted"] == 25
    assert len(rows("select 1 from audit_log")) == 1


def test_two_at_once_delete_each_row_once(execute: Execute, rows: Rows, run_task: RunTask) -> None:
    execute(AUDIT, *({"at": NOW - 31 * DAY, "account": None} for _ in range(200)))
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(run_task("db_cleanup", params={"pace": SMALL})))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {r.outcome for r in results} <= {Outcome.OK, Outcome.SKIPPED}
    assert sum(r.counts.get("audit_log.deleted", 0) for r in results) == 200
    assert rows("select 1 from audit_log") == []


def test_the_plan_equals_the_act(execute: Execute, rows: Rows, run_task: RunTask) -> None:
    execute(AUDIT, *({"at": NOW - n * DAY, "account": None} for n in range(25, 40)))
    execute(EVENT, {"attempts": 5, "at": NOW - 8 * DAY, "published": None})
    planned = run_task("db_cleanup", planning=True)
    assert planned.outcome is Outcome.PLANNED
    assert len(rows("select 1 from audit_log")) == 15
    assert planned.plan is not None
    expected = {f"{item['what']}.deleted": item["count"] for item in planned.plan["items"]}
    assert expected["audit_log.deleted"] == 9
    assert run_task("db_cleanup").counts == expected


def test_above_the_cap_nothing_is_deleted(execute: Execute, rows: Rows, run_task: RunTask, tmp_path: Path) -> None:
    shutil.copytree(FUNCTIONS / "db_cleanup", tmp_path / "db_cleanup")
    declared = tmp_path / "db_cleanup" / "task.yaml"
    declared.write_text(re.sub(r"caps: .*", "caps: {rows: 2}", declared.read_text()))
    execute(AUDIT, *({"at": NOW - 31 * DAY, "account": None} for _ in range(3)))
    result = run_task("db_cleanup", functions=tmp_path)
    assert result.outcome is Outcome.REFUSED
    assert "3 rows (at most 2)" in (result.error or "")
    assert len(rows("select 1 from audit_log")) == 3


def test_held_rows_stay_and_the_plan_says_so(
    execute: Execute, rows: Rows, run_task: RunTask, db: Database, clock: ManualClock
) -> None:
    execute(AUDIT, *({"at": NOW - 31 * DAY, "account": a} for a in ("a1", "a2", None)))
    execute(CONSENT, {"at": NOW - 31 * DAY})
    with db.transaction() as connection:
        holds.add(connection, reason="case 12", by="ann", now=clock.now(), account="a1")
        holds.add(connection, reason="case 13", by="ann", now=clock.now(), table="cookie_consent")
    counts = run_task("db_cleanup").counts
    assert (counts["audit_log.deleted"], counts["cookie_consent.deleted"]) == (2, 0)
    assert [r.account_id for r in rows("select account_id from audit_log")] == ["a1"]
    planned = run_task("db_cleanup", planning=True)
    assert planned.plan is not None
    assert "under a legal hold" in {item["why"] for item in planned.plan["items"]}


def test_the_retention_constant_comes_from_the_environment(
    execute: Execute, rows: Rows, run_task: RunTask, settings: Any
) -> None:
    from dataclasses import replace

    execute(ENDPOINT, *({"at": NOW - n * DAY, "account": "a1"} for n in (5, 15, 25)))
    ten_days = replace(settings, environ={**settings.environ, "RAW_TELEMETRY_RETENTION_DAYS": "10"})
    assert run_task("db_cleanup", using=ten_days).counts["endpoints.deleted"] == 2


def test_its_role_may_not_touch_what_it_does_not_declare(db: Database, settings: Any) -> None:
    from sqlalchemy.exc import ProgrammingError

    from tests.conftest import as_role

    role = Database(as_role(settings, "db-cleanup"), "test")
    for statement in (
        "select 1 from user_profile",
        "delete from bug_report",
        "select 1 from integration_credential",
        "delete from groundskeeper.operator_audit",
        "update groundskeeper.legal_hold set reason = ''",
    ):
        with pytest.raises(ProgrammingError, match="42501"), role.transaction() as connection:
            connection.execute(text(statement))
    role.close()
