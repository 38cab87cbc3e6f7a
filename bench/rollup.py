"""aggregate_analytics: one hour of 2,000 services against the one statement an engineer would write for it.

The one statement has percentile_cont, no mergeable state, no comparison with what is there. Measured on tables of one
day and of thirty, and with late rows, since the cost is to be that of the hour and of nothing else.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from bench.measure import Ratio, Series, alternate, report
from shared.analytics.rollup import dirty_hours, roll_hour
from shared.database import Database
from shared.laptop.postgres import Postgres
from shared.migrations import run as migrations
from shared.platform.partitions import create_ahead
from shared.settings import read

_SERVICES = int(os.environ.get("BENCH_SERVICES", "2000"))
_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
_PER_HOUR = 120  # pings of a service
_LATE = timedelta(hours=6)
_NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
_HOUR = _NOW - timedelta(hours=1)

_ONE_STATEMENT = text("""
    insert into rolled
    select e.account_id, e.service_id, count(*), count(*) filter (where not e.is_active), avg(response_time),
           percentile_cont(array[0.5, 0.95, 0.99]) within group (order by response_time),
           avg(cast(e.is_active as integer))
      from endpoints e join monitored_service s on s.id = e.service_id
     where last_tested >= :start
       and last_tested < :until
     group by 1, 2""")


def _prepare(connection: Connection) -> None:
    create_ahead(connection, _NOW, 1, since=_NOW - timedelta(days=31))
    connection.execute(
        text("""insert into user_profile (account_id, firebase_uid, email, created_at, updated_at)
                select 'a' || n, 'f' || n, 'a' || n || '@example.com', :now, :now from generate_series(0, 199) n"""),
        {"now": _NOW},
    )
    connection.execute(
        text("""insert into monitored_service (account_id, name, url, created_at)
                select 'a' || mod(n, 200), 's' || n, 'https://x.example/' || n, :now
                  from generate_series(1, :services) n"""),
        {"now": _NOW, "services": _SERVICES},
    )
    connection.execute(
        text("""create table rolled (account_id text, service_id bigint, requests bigint, errors bigint,
                                     average double precision, percentiles double precision[], uptime numeric)""")
    )


def _fill(connection: Connection, start: datetime, hours: int, per_hour: int) -> None:
    connection.execute(
        text("""
        insert into endpoints (last_tested, id, account_id, service_id, url, status_code, response_time, is_active)
        select cast(:start as timestamptz)
               + make_interval(hours => h, secs => i * 3600.0 / cast(:per_hour as integer)), gen_random_uuid(),
               'a' || mod(s, 200), s, 'https://x.example/' || s, 200,
               exp(4.6 + 0.4 * sin(s * 7919 + i * 104729 + h * 31)), mod(s * 31 + i * 7 + h, 50) > 0
          from generate_series(0, cast(:hours as integer) - 1) h, generate_series(1, cast(:services as integer)) s,
               generate_series(0, cast(:per_hour as integer) - 1) i"""),
        {"start": start, "hours": hours, "per_hour": per_hour, "services": _SERVICES},
    )


def _measure(database: Database, label: str) -> dict[str, Series]:
    binds = {"start": _HOUR, "until": _NOW}

    def ours() -> float:
        with database.transaction() as connection:
            connection.execute(text("delete from aggregated_analytics where bucket_start = :start"), binds)
        began = time.perf_counter()
        with database.transaction() as connection:
            roll_hour(connection, _HOUR, _NOW)
        return (time.perf_counter() - began) * 1000

    def theirs() -> float:
        with database.transaction() as connection:
            connection.execute(text("truncate rolled"))
        began = time.perf_counter()
        with database.transaction() as connection:
            connection.execute(_ONE_STATEMENT, binds)
        return (time.perf_counter() - began) * 1000

    def looking() -> float:
        began = time.perf_counter()
        with database.transaction(read_only=True) as connection:
            dirty_hours(connection, now=_NOW, late=_LATE)
        return (time.perf_counter() - began) * 1000

    return alternate(
        {f"one hour, {label}": ours, f"one statement, {label}": theirs, f"looking for late rows, {label}": looking},
        unit="ms",
        rounds=_ROUNDS,
    )


def run() -> dict[str, Any]:
    """The hour on a table of one day, of thirty, and with a tenth more rows that came late."""
    with Postgres.temporary() as server:
        database = Database(read({"DATABASE_URL": server.create_database("bench")}), "bench")
        for branch in ("groundskeeper", "platform"):
            migrations.upgrade(database.engine, branch)
        with database.transaction(statement_timeout_ms=600_000) as connection:
            _prepare(connection)
            _fill(connection, _NOW - timedelta(hours=24), 24, _PER_HOUR)
        with database.autocommit() as connection:
            connection.execute(text("vacuum analyze"))
        day = _measure(database, "1 day in the table")
        with database.transaction(statement_timeout_ms=600_000) as connection:
            # A thinner past: what is asked is whether it costs anything at all.
            _fill(connection, _NOW - timedelta(days=30), 29 * 24, 5)
        with database.autocommit() as connection:
            connection.execute(text("vacuum analyze"))
        month = _measure(database, "30 days in the table")
        with database.transaction(statement_timeout_ms=600_000) as connection:
            _fill(connection, _HOUR + timedelta(seconds=1), 1, _PER_HOUR // 10)
        late = _measure(database, "with late rows")
        database.close()
    parts = {"1 day": tuple(day.values()), "30 days": tuple(month.values()), "late": tuple(late.values())}
    ratios = {
        f"one hour to one statement, {name}": Ratio(hour.median / statement.median, 1.3)
        for name, (hour, statement, _) in parts.items()
    }
    ratios["one hour, 30 days to 1 day"] = Ratio(parts["30 days"][0].median / parts["1 day"][0].median, 1.3)
    return report("rollup", [series for part in parts.values() for series in part], ratios)
