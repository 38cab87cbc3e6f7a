"""Backups: ours (dump, counts, hashes, manifest) against pg_dump to a pipe, and the whole drill against pg_restore.

BENCH_MB (default 200) is about the database's size, BENCH_ROUNDS (5). Everything on this machine: the dump's reader,
the server and the hashing share its cores.
"""

import logging
import os
import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import text

from bench.measure import Ratio, alternate, report
from shared import logs
from shared.backup import programs, shelf
from shared.backup.throwaway import Embedded
from shared.call import of_slot
from shared.clock import SystemClock
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.postgres import Postgres
from shared.manifest import FUNCTIONS, Cron
from shared.migrations import run as migrations
from shared.objects import at
from shared.settings import Settings, read
from shared.task import load

_MB, _ROUNDS = int(os.environ.get("BENCH_MB", "200")), int(os.environ.get("BENCH_ROUNDS", "5"))
_SLOTS = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in count())

_TABLES = """
create table bench_events (id bigint generated always as identity primary key, at timestamptz, account text, doc jsonb,
                           tags text[], amount numeric(12, 2), raw bytea);
create table bench_accounts (id uuid primary key, name text, created timestamptz, settings json);
insert into bench_accounts
select gen_random_uuid(), 'account ' || n, timestamptz '2026-01-01 00:00+00' + n * interval '1 minute',
       json_build_object('n', n, 'plan', 'pro', 'on', n % 2 = 0)
  from generate_series(1, {mb} * 100) n;
insert into bench_events (at, account, doc, tags, amount, raw)
select timestamptz '2026-01-01 00:00+00' + n * interval '1 second', 'a' || n % 1000,
       jsonb_build_object('url', '/page/' || n % 500, 'ms', n % 977, 'agent', md5((n % 50)::text)),
       array['x', 'y' || n % 10], n / 7.0, decode(md5(n::text), 'hex')
  from generate_series(1, {mb} * 3500) n;
create index on bench_events (at);
create index on bench_events (account, at);
analyze
"""


def _run(task: str, settings: Settings) -> float:
    runner = load(FUNCTIONS / task).runner(settings, SystemClock())
    logs.configure("stderr", logging.ERROR)
    began = time.perf_counter()
    result = runner.execute(of_slot(Cron("* * * * *"), next(_SLOTS)))
    took = time.perf_counter() - began
    runner.close()
    if result.outcome is not Outcome.OK:
        raise RuntimeError(f"{task}: {result.outcome}: {result.error}")
    return took


class _Bench:
    def __init__(self, server: Postgres, folder: Path) -> None:
        url = server.create_database("bench")
        self.settings = read({"DATABASE_URL": url, "KEEPER_BUCKET_BACKUPS": str(folder)})
        self.database = Database(self.settings, "bench")
        self.folder, self.found = folder, programs.programs(18)
        migrations.upgrade(self.database.engine, "groundskeeper")
        migrations.stamp_environment(self.database.engine, "demo-groundskeeper", False, datetime.now(UTC))
        with self.database.transaction(statement_timeout_ms=1_200_000) as connection:
            connection.exec_driver_sql(_TABLES.format(mb=_MB))
        self._pause(True)

    def _pause(self, on: bool) -> None:
        """Keep backup_database from starting the drill, which is measured alone."""
        with self.database.transaction() as connection:
            connection.execute(text("delete from groundskeeper.pause"))
            if on:
                row = (
                    "insert into groundskeeper.pause values ('verify_backup', 'measured alone', 'bench', '2026-01-01')"
                )
                connection.execute(text(row))

    def megabytes(self) -> float:
        with self.database.transaction(read_only=True) as connection:
            size = connection.execute(text("select pg_database_size(current_database())")).scalar_one()
        return float(size) / (1 << 20)

    def plain_dump(self, level: int | None = 1) -> float:
        compress = [] if level is None else [f"--compress={level}"]
        began = time.perf_counter()
        with programs.reading(
            [self.found.program("pg_dump"), "--format=custom", *compress],
            self.database.program_environment(self.folder),
        ) as stream:
            while stream.read(programs.CHUNK):
                pass
        return time.perf_counter() - began

    def ours(self) -> float:
        shutil.rmtree(self.folder / shelf.FOLDER, ignore_errors=True)
        return _run("backup_database", self.settings)

    def plain_restore(self) -> float:
        """pg_restore alone, into a server that is up and as ours is."""
        store = at(str(self.folder))
        manifest = shelf.read(store, shelf.entries(store)[-1].name)
        with Embedded(self.found)(manifest.surroundings) as target:
            began = time.perf_counter()
            subprocess.run(
                [
                    self.found.program("pg_restore"),
                    f"--dbname={target.environment['PGDATABASE']}",
                    str(self.folder / shelf.dump_of(manifest.name)),
                ],
                env=target.environment,
                check=True,
            )
            return time.perf_counter() - began

    def drill(self) -> float:
        self._pause(False)
        with self.database.transaction() as connection:
            connection.execute(text("delete from groundskeeper.verified_backup"))
        took = _run("verify_backup", self.settings)
        self._pause(True)
        return took


def run() -> dict[str, Any]:
    """Seconds and their ratios; goals of docs/benchmarks.md."""
    with Postgres.temporary() as server, tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
        bench = _Bench(server, Path(folder))
        size = alternate({"database": bench.megabytes}, unit="MiB", rounds=1)
        dumps = alternate(
            {
                "backup_database": bench.ours,
                "pg_dump to a pipe, gzip level 1 as ours": bench.plain_dump,
                "pg_dump to a pipe, its default (gzip level 6)": lambda: bench.plain_dump(None),
            },
            unit="s",
            rounds=_ROUNDS,
        )
        bench.ours()
        restores = alternate(
            {"verify_backup, whole": bench.drill, "pg_restore into a server that is up": bench.plain_restore},
            unit="s",
            rounds=_ROUNDS,
        )
        bench.database.close()
    ours, same, default = dumps.values()
    drill, plain = restores.values()
    ratios = {
        "backup_database / pg_dump": Ratio(ours.median / same.median, 1.6),
        "backup_database / pg_dump by default": Ratio(ours.median / default.median, 1.6),
        "verify_backup / pg_restore": Ratio(drill.median / plain.median, 1.5),
    }
    return report("backup", [*size.values(), *dumps.values(), *restores.values()], ratios)
