"""analyze_query_plans on 500 different statements, on PostgreSQL 15 (where there is one) and 18. BENCH_ROUNDS (5)."""

import logging
import os
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from sqlalchemy import text

from bench.measure import Ratio, Series, alternate, report
from shared import logs
from shared.backup.postgres_binaries import PostgresMissingError, find_binaries
from shared.call import of_slot
from shared.clock import SystemClock
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.postgres import Postgres
from shared.manifest import FUNCTIONS, Cron
from shared.migrations import run as migrations
from shared.settings import read
from shared.task import load

_STATEMENTS, _ROUNDS = 500, int(os.environ.get("BENCH_ROUNDS", "5"))
_SLOTS = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in count())


def _statement(n: int) -> str:
    one, other = n % 25, (n // 25) % 20
    return (
        f"select a.id, b.c{other} from bench_{one} a join bench_{other} b on b.id = a.c{other}"
        f" where a.c{other} = 1 and b.at > now() - interval '{n} days' order by a.c{(n // 3) % 20} limit 5"
    )


def _measured(major: int) -> tuple[Series, float]:
    with Postgres.temporary(binaries=find_binaries(major)) as server:
        settings = read({"DATABASE_URL": server.create_database("bench"), "SLOW_QUERY_LIMIT": str(_STATEMENTS)})
        database = Database(settings, "bench")
        migrations.upgrade(database.engine, "groundskeeper")
        migrations.stamp_environment(database.engine, "demo-groundskeeper", False, datetime.now(UTC))
        columns = ", ".join(f"c{n} int" for n in range(20))
        with database.transaction() as connection:
            connection.execute(text("create extension pg_stat_statements"))
            for n in range(25):
                connection.execute(text(f"create table bench_{n} (id int primary key, at timestamptz, {columns})"))
                connection.execute(text(f"create index on bench_{n} (c{n % 20})"))

        def fresh_and_look() -> float:
            with database.transaction() as connection:
                connection.execute(text("truncate groundskeeper.query_analysis, groundskeeper.query_plan"))
                connection.execute(text("delete from groundskeeper.query_total"))
                connection.execute(text("select pg_stat_statements_reset()"))
                for n in range(_STATEMENTS):
                    connection.exec_driver_sql(_statement(n))
            runner = load(FUNCTIONS / "analyze_query_plans").runner(settings, SystemClock())
            logs.configure("stderr", logging.ERROR)
            began = time.perf_counter()
            result = runner.execute(of_slot(Cron("* * * * *"), next(_SLOTS)))
            took = time.perf_counter() - began
            runner.close()
            if result.outcome is not Outcome.OK:
                raise RuntimeError(f"{result.outcome}: {result.error}")
            seen.append(result.counts["explained"] / result.counts["statements"])
            return took

        seen: list[float] = []
        name = f"{_STATEMENTS} statements, PostgreSQL {major}"
        series = alternate({name: fresh_and_look}, unit="s", rounds=_ROUNDS)
        database.close()
    return series[name], min(seen)


def run() -> dict[str, Any]:
    """Seconds, and the share explained; goals of docs/benchmarks.md."""
    results, ratios = [], {}
    for major in (15, 18):
        try:
            series, share = _measured(major)
        except PostgresMissingError:
            continue
        results.append(series)
        ratios[f"seconds for {_STATEMENTS}, PostgreSQL {major}"] = Ratio(series.median, 10)
        ratios[f"share explained, PostgreSQL {major}"] = Ratio(share, 0.95, least=True)
    return report("plans", results, ratios)
