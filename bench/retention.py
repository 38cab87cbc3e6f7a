"""Retention: our engine against one DELETE, other ways of batching and `airflow db clean`'s shape, in one run.

Half of a table of pings is due. Idle rates; the same without an index and on a heap in random order; an insert's
99th percentile while each way is at work; thirty partitions. BENCH_ROWS (default 1,000,000) and BENCH_ROUNDS (5).
Of over ten million rows only the one DELETE and ours are measured, idle, once: the rest would take a day.
"""

import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from bench.measure import Ratio, Series, alternate, report
from shared import logs, plans
from shared import settings as settings_module
from shared.call import by_hand
from shared.clock import SystemClock
from shared.context import Context
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.postgres import Postgres
from shared.manifest import FUNCTIONS
from shared.migrations import run as migrations
from shared.retention.purge import purge
from shared.retention.rules import Policy
from shared.retention.survey import look
from shared.run import Runner
from shared.settings import Settings
from shared.task import load

ROWS = int(os.environ.get("BENCH_ROWS", "1000000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
CUTOFF = "2026-05-16 12:00+00"
RULE = {"name": "ping", "table": "ping", "timestamp": "at", "keep_days": 30, "account": "none"}
_INSERTS_A_SECOND = 300
_LARGE = 10_000_000


class Bench:
    """A server of the benchmark's own, with checkpoints and autovacuum out of the way, and the ways to delete."""

    def __init__(self, server: Postgres, archive: str) -> None:
        self.server = server
        self.url = server.create_database("bench")
        for setting in ("max_wal_size = '16GB'", "checkpoint_timeout = '1h'", "autovacuum = off"):
            server.execute(f"alter system set {setting}")
        server.execute("select pg_reload_conf()")
        self.attach(self.url, archive)
        migrations.upgrade(self.database.engine, "groundskeeper")
        migrations.stamp_environment(self.database.engine, "demo-groundskeeper", False, datetime.now(UTC))

    def attach(self, url: str, archive: str) -> None:
        """Use the benchmark's database at `url`, also from another process."""
        self.archive = archive
        self.settings: Settings = settings_module.read(
            {
                "DATABASE_URL": url,
                "KEEPER_MODE": "enforce",
                "KEEPER_BACKUP_GATE_HOURS": "0",
                "KEEPER_BUCKET_ARCHIVE": archive,
            }
        )
        self.database = Database(self.settings, "bench")

    def do(self, *statements: str) -> None:
        """Run statements in one transaction."""
        with self.database.transaction(statement_timeout_ms=3_600_000) as connection:
            for statement in statements:
                connection.execute(text(statement))

    def source(self, rows: int, order: str = "n") -> None:
        """The rows that every measurement begins with, half of them due; `order` is theirs on disk."""
        self.do(
            "drop table if exists source",
            "create unlogged table source as select n as id, timestamptz '2026-05-16 12:00+00'"
            f" + (n - {rows // 2} - 1) * interval '1 millisecond' as at, n % 500 as account,"
            f" 'https://example.com/' || n % 1000 as url from generate_series(1, {rows}) n order by {order}",
        )

    def fresh(self, *, index: bool = True) -> None:
        """The table as it is before a measurement: logged, indexed, vacuumed, checkpointed."""
        self.do(
            "drop table if exists ping",
            "create table ping (id bigint, at timestamptz, account int, url text)",
            "insert into ping select id, at, account, url from source",
            "alter table ping add primary key (id)",
            *(["create index on ping (at)"] if index else []),
            "create index on ping (account)",
        )
        with self.database.autocommit(statement_timeout_ms=3_600_000) as connection:
            connection.execute(text("vacuum analyze ping"))
            connection.execute(text("checkpoint"))

    def ours(self, rule: dict[str, Any] = RULE, *, whole: bool = False) -> float:
        """Seconds that db_cleanup's engine takes, lease, fence, ledger and pace and all (`whole`: the run)."""
        entry = load(FUNCTIONS / "db_cleanup")
        taken: list[float] = []

        def body(ctx: Context, params: Any) -> dict[str, int]:
            ctx.now = datetime.fromisoformat(CUTOFF) + timedelta(days=rule["keep_days"])
            survey = look(ctx, Policy(params.rules), count_within_s=600)
            ctx.authorize(survey.plan)
            began = time.perf_counter()
            counts = purge(ctx, survey, params.pace)
            taken.append(time.perf_counter() - began)
            return counts

        with self.database.transaction() as connection:
            request = plans.request_run(
                connection,
                task="db_cleanup",
                actor="bench",
                why="a benchmark",
                params={"rules": [rule], "duplicates": []},
                now=datetime.now(UTC),
            )
        clock = SystemClock()
        task = replace(entry.task, caps={"rows": max(ROWS, entry.task.caps["rows"])})
        runner = Runner(task, body, entry.params_type, "bench", self.settings, clock, lambda *_: None)
        began = time.perf_counter()
        try:
            result = runner.execute(by_hand(request))
        finally:
            runner.close()
        if result.outcome is not Outcome.OK:
            raise RuntimeError(f"the benchmark's run ended {result.outcome}: {result.error}")
        return time.perf_counter() - began if whole else taken[0]

    def one_delete(self) -> float:
        """Seconds of one DELETE: the limit, in one long transaction."""
        began = time.perf_counter()
        self.do(f"delete from ping where at < '{CUTOFF}'")
        return time.perf_counter() - began

    def ctid_batches(self) -> float:
        """Seconds of deleting 10,000 rows a commit by an array of their places."""
        began = time.perf_counter()
        while True:
            with self.database.transaction() as connection:
                if not connection.execute(
                    text(
                        "delete from ping where ctid = any(array(select ctid from ping"
                        f" where at < '{CUTOFF}' limit 10000))"
                    )
                ).rowcount:
                    return time.perf_counter() - began

    def airflow_shape(self) -> float:
        """Seconds of `airflow db clean`'s shape: each 10,000 rows counted, copied to a table, then deleted by key."""
        began, batch = time.perf_counter(), 0
        while True:
            batch += 1
            batch_of = f"select * from ping where at < '{CUTOFF}' limit 10000"
            with self.database.transaction() as connection:
                made = connection.execute(text(f"select count(*) from ({batch_of}) batch")).scalar_one()
                connection.execute(text(f"create table deleted_{batch} as {batch_of}"))
            with self.database.transaction() as connection:
                connection.execute(text(f"delete from ping using deleted_{batch} d where ping.id = d.id"))
            if not made:
                seconds = time.perf_counter() - began
                self.do(*(f"drop table deleted_{n}" for n in range(1, batch + 1)))
                return seconds

    @contextmanager
    def load(self, latencies: list[float]) -> Iterator[None]:
        """Inserts at a steady rate meanwhile, by a process of their own; latencies in ms, from when each was due.

        Raises RuntimeError where that process ends by itself.
        """
        spawn = multiprocessing.get_context("spawn")
        stop = spawn.Event()
        answers, theirs = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_insert, args=(self.url, stop, theirs), daemon=True)
        process.start()
        theirs.close()  # so that the end of its process is the end of what can be heard
        try:
            answers.recv()  # it is at its rate
            began = time.time()
            try:
                yield
            finally:
                ended = time.time()
                stop.set()
            found = answers.recv()
        except EOFError:
            process.join()
            raise RuntimeError(
                f"the process that inserts meanwhile ended by itself (exit code {process.exitcode}): "
                "its words are above"
            ) from None
        process.join(10)
        latencies += [ms for at, ms in found if began <= at <= ended]

    def p99(self, way: Callable[[], object]) -> float:
        """The 99th percentile of an insert's milliseconds while `way` is at work."""
        latencies: list[float] = []
        self.do("drop sequence if exists load_id", "create sequence load_id start 1000000000")
        with self.load(latencies):
            way()
        return statistics.quantiles(latencies, n=100)[98]


def _insert(url: str, stop: Any, answers: Any) -> None:
    """One client that inserts 300 rows a second, each in a transaction of its own, until `stop`."""
    database = Database(settings_module.read({"DATABASE_URL": url}), "application")
    found: list[tuple[float, float]] = []
    statement = text("insert into ping values (nextval('load_id'), '2026-06-15', 7, 'load')")
    with database.engine.connect() as connection:
        due = time.perf_counter() + 0.5
        while not stop.is_set():
            time.sleep(max(0.0, due - time.perf_counter()))
            at = time.time()
            connection.execute(statement)
            connection.commit()
            found.append((at, (time.perf_counter() - due) * 1000))
            due += 1 / _INSERTS_A_SECOND
            if len(found) == _INSERTS_A_SECOND:
                answers.send(None)
    answers.send(found)


@contextmanager
def bench() -> Iterator[Bench]:
    """The benchmark's server, gone afterwards."""
    with Postgres.temporary() as server, tempfile.TemporaryDirectory() as archive:
        made = Bench(server, archive)
        try:
            yield made
        finally:
            made.database.close()


def _rates(
    at: Bench, ways: dict[str, Callable[[], float]], *, index: bool = True, rounds: int = ROUNDS, uncounted: int = 1
) -> dict[str, Series]:
    def rate(way: Callable[[], float]) -> Callable[[], float]:
        def measured() -> float:
            at.fresh(index=index)
            return ROWS / 2 / way()

        return measured

    rates = {name: rate(way) for name, way in ways.items()}
    return alternate(rates, unit="rows/s", rounds=rounds, uncounted=uncounted)


def _partitions(at: Bench) -> float:
    rows = min(ROWS, 3_000_000) // 30
    at.do("drop table if exists ping", "create table ping (id bigint, at timestamptz not null) partition by range (at)")
    first = datetime(2026, 4, 16, tzinfo=UTC)
    for n in range(30):
        low, high = first + timedelta(n), first + timedelta(n + 1)
        at.do(
            f"create table ping_{n} partition of ping for values from ('{low}') to ('{high}')",
            f"insert into ping_{n} select n, timestamptz '{low}' + n * interval '1 millisecond'"
            f" from generate_series(1, {rows}) n",
        )
    at.do("create index on ping (at)", "analyze ping")
    return at.ours()


def run() -> dict[str, Any]:
    """Idle rates, percentiles under load, partitions; goals of docs/benchmarks.md."""
    with bench() as at:
        logs.configure("stderr", logging.WARNING)
        at.source(ROWS)
        if ROWS > _LARGE:
            pair = _rates(at, {"one DELETE": at.one_delete, "ours": at.ours}, rounds=1, uncounted=0)
            ratio = Ratio(_ratio(pair, "ours", "one DELETE"), 0.85, least=True)
            return report("retention", list(pair.values()), {"idle: ours / one DELETE": ratio})
        idle = _rates(
            at,
            {
                "one DELETE": at.one_delete,
                "ours": at.ours,
                "ctid = any(array(… limit 10 k))": at.ctid_batches,
                "airflow db clean's shape": at.airflow_shape,
            },
        )
        bare = _rates(at, {"one DELETE, no index": at.one_delete, "ours, no index": at.ours}, index=False)

        def loaded(way: Callable[[], object]) -> Callable[[], float]:
            def measured() -> float:
                at.fresh()
                return at.p99(way)

            return measured

        quiet = alternate(
            {
                "insert p99, nothing else": loaded(lambda: time.sleep(5)),
                "insert p99, ours": loaded(at.ours),
                "insert p99, one DELETE": loaded(at.one_delete),
                "insert p99, airflow db clean's shape": loaded(at.airflow_shape),
            },
            unit="ms",
            rounds=ROUNDS,
        )
        parts = alternate({"30 partitions": lambda: _partitions(at)}, unit="s", rounds=ROUNDS)
        at.source(ROWS, order="hashint8(n)")
        random = _rates(at, {"one DELETE, random heap": at.one_delete, "ours, random heap": at.ours})
    every = {**idle, **bare, **random, **quiet, **parts}
    ratios = {
        "idle: ours / one DELETE": Ratio(_ratio(idle, "ours", "one DELETE"), 0.85, least=True),
        "idle: ours / airflow db clean's shape": Ratio(_ratio(idle, "ours", "airflow db clean's shape"), 1, least=True),
        "no index: ours / one DELETE": Ratio(_ratio(bare, "ours, no index", "one DELETE, no index"), 0.5, least=True),
        "random heap: ours / one DELETE": Ratio(
            _ratio(random, "ours, random heap", "one DELETE, random heap"), 0.85, least=True
        ),
        "load: insert p99 ours / nothing": Ratio(_ratio(quiet, "insert p99, ours", "insert p99, nothing else"), 2),
        "30 partitions, seconds": Ratio(parts["30 partitions"].median, 1),
    }
    return report("retention", list(every.values()), ratios)


def _ratio(series: dict[str, Series], one: str, other: str) -> float:
    """The median of the rounds' own ratios: each pair was measured side by side."""
    pairs = zip(series[one].values, series[other].values, strict=True)
    return statistics.median(a / b for a, b in pairs)
