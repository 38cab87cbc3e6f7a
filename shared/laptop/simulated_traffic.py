"""The demo's traffic while a month is simulated, and what must be true of its rows in the end."""

import json
import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from shared import holds
from shared.database import Database
from shared.laptop.simulated import Invariant
from shared.manifest import Task
from shared.migrations import run as migrations
from shared.params import resolve
from shared.platform import demo
from shared.platform.partitions import create_ahead
from shared.settings import Settings
from shared.wording import counted

# Rows an hour.
_REQUESTS, _DEEDS, _CONSENTS, _EVENTS = 40, 8, 3, 6

# Tables whose rows are counted in and out, with the rows an hour.
_HOURLY = {"audit_log": _DEEDS, "cookie_consent": _CONSENTS}
COUNTED = tuple(_HOURLY)


def prepare(database: Database, settings: Settings, now: datetime, objects: Path) -> None:
    """A migrated, stamped database with the demo's data, as of `now`."""
    for branch in ("groundskeeper", "platform"):
        migrations.upgrade(database.engine, branch)
    migrations.stamp_environment(database.engine, settings.project, settings.livemode, now)
    # as many visitors before the month as in it: each night dumps, restores and compares all of it
    demo.seed(database.engine, now, objects_dir=objects, rows_a_day=_REQUESTS * 24)


def hour(database: Database, start: datetime, chance: random.Random) -> None:
    """What customers do in the hour after `start`."""
    moments = [start + timedelta(seconds=chance.randrange(3600)) for _ in range(_REQUESTS)]
    with database.transaction() as connection:
        create_ahead(connection, start, 2)
        services = connection.execute(
            text("select id, account_id, url from monitored_service order by id limit 20")
        ).all()
        requests = [
            {"at": at, "service": s.id, "account": s.account_id, "url": s.url, "ms": chance.uniform(20, 400),
             "status": 500 if chance.random() < 0.02 else 200}
            for at in moments
            for s in (chance.choice(services),)
        ]  # fmt: skip
        connection.execute(
            text("""
            insert into endpoints (last_tested, id, account_id, service_id, url, status_code, response_time, is_active)
            values (:at, gen_random_uuid(), :account, :service, :url, :status, :ms, true)"""),
            requests,
        )
        connection.execute(
            text("insert into audit_log (actor, action, created_at) values ('user', 'login', :at)"),
            [{"at": at} for at in moments[:_DEEDS]],
        )
        connection.execute(
            text("""
            insert into cookie_consent (visitor_id, choices, policy_version, created_at)
            values (gen_random_uuid(), '{}', '1', :at)"""),
            [{"at": at} for at in moments[:_CONSENTS]],
        )
        connection.execute(
            text("""
            insert into outbox_event (id, topic, payload, created_at)
            values (gen_random_uuid(), 'app-events', cast(:payload as jsonb), :at)"""),
            [{"at": at, "payload": _payload(n)} for n, at in enumerate(moments[:_EVENTS])],
        )


def _payload(number: int) -> str:
    return json.dumps({"type": "simulated", "data": {"n": number}, "account_id": None})


def totals(database: Database) -> dict[str, int]:
    """How many rows the counted tables hold."""
    with database.transaction(read_only=True) as connection:
        return {
            table: connection.execute(text(f"select count(*) from {table}")).scalar_one()  # noqa: S608 - our names
            for table in COUNTED
        }


def invariants(
    database: Database,
    before: Mapping[str, int],
    tasks: Mapping[str, Task],
    environ: Mapping[str, str],
    *,
    hours: int,
    now: datetime,
) -> list[Invariant]:
    """What was promised of the rows, and what was found."""
    found = [_nothing_left_running(database)]
    if "db_cleanup" in tasks:
        found += _counted(database, before, hours)
        found.append(_kept_too_long(database, tasks["db_cleanup"], environ, now))
    if "outbox_relay" in tasks:
        found.append(_all_published(database))
    return found


def _one(database: Database, sql: str, **binds: Any) -> Any:
    with database.transaction(read_only=True) as connection:
        return connection.execute(text(sql), binds).scalar_one()


def _nothing_left_running(database: Database) -> Invariant:
    left = _one(database, "select count(*) from groundskeeper.task_attempt where ended_at is null")
    return Invariant("no run is left without an ending", left == 0, f"{counted(left, 'attempt')} holding a lease")


def _all_published(database: Database) -> Invariant:
    waiting = _one(
        database,
        "select count(*) from outbox_event where published_at is null and attempts = 0 and topic = 'app-events'",
    )
    return Invariant("every event is published, or has an attempt that says why not", not waiting, f"{waiting} wait")


def _counted(database: Database, before: Mapping[str, int], hours: int) -> list[Invariant]:
    found = []
    for table in COUNTED:
        deleted = _one(
            database,
            """
            select coalesce(sum(cast(counts ->> :key as bigint)), 0) from groundskeeper.task_run
             where task = 'db_cleanup'""",
            key=f"{table}.deleted",
        )
        left = _one(database, f"select count(*) from {table}")  # noqa: S608 - our names
        written = before[table] + hours * _HOURLY[table]
        found.append(
            Invariant(
                f"{table}: every row that came is there or was counted when it was deleted",
                written == left + deleted,
                f"{written} written, {left} there, {deleted} deleted",
            )
        )
    return found


def _kept_too_long(database: Database, task: Task, environ: Mapping[str, str], now: datetime) -> Invariant:
    """No row that a rule deletes is there a day after its time, but for those on hold."""
    over = []
    with database.transaction(read_only=True) as connection:
        held = holds.in_force(connection, now)
    for rule in resolve(task.params, environ, task.name)["rules"]:
        table = rule["table"]
        covered = [hold for hold in held if hold.covers_table(table)]
        if any(hold.account is None for hold in covered):
            continue
        of = "null" if rule["account"] == "none" else rule["account"]
        old = _one(
            database,
            f"select count(*) from {table}"  # noqa: S608 - task.yaml's own words
            f" where {rule['timestamp']} < :limit and ({rule.get('where') or 'true'})"
            f" and coalesce(cast({of} as text), '') <> all(:held)",
            limit=now - timedelta(days=rule["keep_days"] + 1),
            held=[hold.account for hold in covered],
        )
        if old:
            over.append(f"{rule['name']} {old}")
    return Invariant("nothing is kept a day longer than its class allows", not over, ", ".join(over) or "nothing")
