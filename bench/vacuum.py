"""vacuum_analyze on a bloated table while an application inserts into it: an insert's 99th percentile with and without.

Two rows in five of a table with three indexes are dead. The task runs as its declaration paces it, as its owner; then
the same as a role that owns nothing, which has to end red. BENCH_ROWS (default 1,000,000), BENCH_ROUNDS (5).
"""

import logging
import os
import statistics
import threading
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from bench.measure import Ratio, Series, report
from shared import logs
from shared.call import Call
from shared.clock import SystemClock
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.postgres import Postgres
from shared.manifest import FUNCTIONS
from shared.migrations import run as migrations
from shared.result import Result
from shared.settings import Settings, read
from shared.task import load

_ROWS, _ROUNDS = int(os.environ.get("BENCH_ROWS", "1000000")), int(os.environ.get("BENCH_ROUNDS", "5"))
_INSERTS_A_SECOND = 300
_LEAST_S = 5.0  # of inserts alone: enough for a percentile
_STRANGER = "stranger"


class Inserts:
    """An application that inserts at a steady rate; `waits` are the inserts' milliseconds."""

    def __init__(self, url: str) -> None:
        self.waits: list[float] = []
        self._url, self._over = url, threading.Event()
        self._thread = threading.Thread(target=self._insert)

    def __enter__(self) -> "Inserts":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _insert(self) -> None:
        engine = create_engine(self._url, poolclass=NullPool)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            statement = text("insert into bloated (a, b, pad) values (:n, :n, repeat('x', 200))")
            due = time.perf_counter()
            while not self._over.is_set():
                began = time.perf_counter()
                connection.execute(statement, {"n": len(self.waits)})
                self.waits.append((time.perf_counter() - began) * 1000)
                due += 1 / _INSERTS_A_SECOND
                time.sleep(max(0.0, due - time.perf_counter()))
        engine.dispose()

    def p99(self) -> float:
        """The 99th percentile in milliseconds."""
        return statistics.quantiles(self.waits, n=100)[98]


def _bloat(server: Postgres, url: str) -> None:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in (
            "drop table if exists bloated",
            "create table bloated (id bigint generated always as identity primary key, a int, b int, pad text)",
            f"insert into bloated (a, b, pad) select n, n, repeat('x', 200) from generate_series(1, {_ROWS}) n",
            "create index on bloated (a)",
            "create index on bloated (b)",
            "vacuum (freeze, analyze)",
            "update bloated set a = a + 1 where id % 5 < 2",
            "checkpoint",
            "select pg_stat_force_next_flush()",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()


def _vacuum(settings: Settings) -> Result:
    runner = load(FUNCTIONS / "vacuum_analyze").runner(settings, SystemClock())
    try:
        return runner.execute(Call(trigger="cron", run_key=str(uuid.uuid4()), actor="bench"))
    finally:
        runner.close()


def run() -> dict[str, Any]:
    """Rounds of inserts alone, then with the task at work; then the task as a role that owns nothing."""
    logs.configure("stderr", logging.ERROR)
    alone: list[float] = []
    beside: list[float] = []
    took: list[float] = []
    with Postgres.temporary() as server:
        server.execute("alter system set autovacuum = off")
        server.execute("select pg_reload_conf()")
        url = server.create_database("bench")
        settings = read({"DATABASE_URL": url, "KEEPER_MODE": "enforce", "KEEPER_BACKUP_GATE_HOURS": "0"})
        database = Database(settings, "bench")
        migrations.upgrade(database.engine, "groundskeeper")
        migrations.stamp_environment(database.engine, "demo-groundskeeper", False, datetime.now(UTC))
        stranger = _stranger(database, settings)
        dead = left = 0
        for _ in range(_ROUNDS):
            _bloat(server, url)
            with Inserts(url) as inserts:
                time.sleep(_LEAST_S)
            alone.append(inserts.p99())
            with Inserts(url) as inserts:
                began = time.perf_counter()
                result = _vacuum(settings)
                took.append(time.perf_counter() - began)
            beside.append(inserts.p99())
            assert result.outcome is Outcome.OK, result.error
            assert result.counts["dead_before"] >= _ROWS * 2 // 5
            dead, left = result.counts["dead_before"], result.counts["dead_after"]
        _bloat(server, url)
        refused = _vacuum(stranger)
        assert refused.counts["not_permitted"] >= 1
        database.close()
    series = [
        Series("an insert's p99, alone", "ms", tuple(alone)),
        Series("an insert's p99, beside the task", "ms", tuple(beside)),
        Series("the task", "s", tuple(took)),
    ]
    ratios = {
        "an insert's p99 beside the task to alone": Ratio(statistics.median(beside) / statistics.median(alone), 2.0),
        "dead rows left of those before": Ratio(left / dead, 0.05),
        "as a role that owns nothing: ended ok (0: red)": Ratio(float(refused.outcome is Outcome.OK), 0),
    }
    return report("vacuum", series, ratios)


def _stranger(database: Database, settings: Settings) -> Settings:
    """Settings of a role that may use the ledger and owns nothing."""
    with database.transaction() as connection:
        for statement in (
            f"create role {_STRANGER} login password '{_STRANGER}'",
            f"grant usage on schema groundskeeper to {_STRANGER}",
            f"grant select, insert, update, delete on all tables in schema groundskeeper to {_STRANGER}",
        ):
            connection.execute(text(statement))
    url = make_url(settings.database()).set(username=_STRANGER, password=_STRANGER)
    return replace(settings, database_url=url.render_as_string(hide_password=False))
