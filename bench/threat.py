"""fetch_threat_intel: a CSV of indicators read, judged and merged, against psql \\copy and the same merge.

psql is given lines that are canonical already and checks nothing. Measured besides: four times as many lines, a
hundred copies of each key, the same copy again, and how far the memory of the process goes. BENCH_LINES (default
200,000; the goal is told of 500,000) and BENCH_ROUNDS (5).
"""

import io
import os
import random
import resource
import subprocess
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from bench.measure import Ratio, Series, alternate, report
from shared.backup.postgres_binaries import find_binaries
from shared.database import Database
from shared.feeds.allowed import Allowed
from shared.feeds.formats import FORMATS
from shared.feeds.indicators import Reader
from shared.feeds.merge import Judge, Tally, merge, stage
from shared.laptop.postgres import Postgres
from shared.migrations import run as migrations
from shared.settings import read

_LINES, _ROUNDS = int(os.environ.get("BENCH_LINES", "200000")), int(os.environ.get("BENCH_ROUNDS", "5"))
_MANY = 4 * _LINES
_NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
_COLUMNS = {"text": "ioc", "confidence": "confidence", "description": "malware", "first_seen": "first_seen"}
_JUDGE = Judge(
    "bench",
    Reader(),
    Allowed(("ours.example",), ("github.com", "google.com"), ("8.8.8.0/24", "1.1.1.0/24")),
    50,
    {"ipv4": 30, "domain": 90, "url": 60, "sha256": 365},
    current=True,
)

# What an engineer would type: load beside the table, merge by key.
_SCRIPT = """
\\set ON_ERROR_STOP on
begin;
create temporary table stage (key text, kind text, value text, confidence smallint, description text,
  first_seen timestamptz) on commit drop;
\\copy stage from '{file}'
insert into threat_intelligence as t (canonical_key, indicator_type, indicator, confidence, description, sources,
    first_seen, last_seen, created_at)
select distinct on (key) key, kind, value, confidence, description,
       jsonb_build_array(jsonb_build_object('source', 'bench', 'seen_at', timestamptz '{now}')),
       first_seen, '{now}', '{now}'
  from stage order by key, confidence desc
on conflict (canonical_key) do update set confidence = excluded.confidence, last_seen = excluded.last_seen;
commit;
"""


def _indicator(number: int) -> tuple[str, str]:
    kind = number % 4
    if kind == 0:
        return "ipv4", f"{11 + number % 80}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    if kind == 1:
        return "domain", f"host{number}.malware{number % 997}.com"
    if kind == 2:
        return "url", f"http://host{number}.malware{number % 997}.com/path/{number:x}/file.exe"
    return "sha256", f"{number * 2654435761 % (1 << 64):016x}" * 4


def _write(folder: Path, name: str, lines: int, keys: int) -> tuple[Path, Path]:
    """A feed of `lines` with `keys` different indicators, as CSV, and as psql is given it."""
    rng = random.Random(7)
    csv_file, copy_file = folder / f"{name}.csv", folder / f"{name}.copy"
    with csv_file.open("w") as feed, copy_file.open("w") as ready:
        feed.write("# first_seen,ioc,malware,confidence\n")
        for number in range(lines):
            kind, value = _indicator(number if number < keys else rng.randrange(keys))
            feed.write(f'"2026-06-14 10:00:00","{value}","Sample","{number % 100}"\n')
            ready.write(f"{kind}:{value}\t{kind}\t{value}\t{number % 100}\tSample\t2026-06-14T10:00:00+00:00\n")
    return csv_file, copy_file


def _ours(database: Database, file: Path) -> float:
    tally = Tally()
    began = time.perf_counter()
    with (
        io.BufferedReader(io.FileIO(file)) as body,
        database.transaction(statement_timeout_ms=600_000) as connection,
    ):
        stage(connection, _JUDGE.lines(FORMATS["csv"](body, _COLUMNS), _NOW, tally))
        merge(connection, "bench", now=_NOW, refresh=timedelta(hours=24))
    took = time.perf_counter() - began
    assert tally.unfit == tally.allowed == 0
    return tally.accepted / took / 1000


def _empty(database: Database) -> None:
    with database.transaction(statement_timeout_ms=600_000) as connection:
        connection.execute(text("truncate threat_intelligence"))


def _psql(database: Database, file: Path, lines: int) -> float:
    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    script = _SCRIPT.format(file=file, now=_NOW.isoformat())
    began = time.perf_counter()
    subprocess.run(
        [find_binaries().program("psql"), "-q", url], input=script, text=True, check=True, capture_output=True
    )
    return lines / (time.perf_counter() - began) / 1000


def run() -> dict[str, Any]:
    """Thousands of lines a second, in alternating rounds on an empty table; memory as the peak of this process."""
    with Postgres.temporary() as server, tempfile.TemporaryDirectory() as folder:
        database = Database(read({"DATABASE_URL": server.create_database("bench")}), "bench")
        for branch in ("groundskeeper", "platform"):
            migrations.upgrade(database.engine, branch)
        usual = _write(Path(folder), "usual", _LINES, _LINES * 9 // 10)
        copies = _write(Path(folder), "copies", _LINES, _LINES // 100)
        many = _write(Path(folder), "many", _MANY, _MANY * 9 // 10)

        def fresh(way: Any) -> Any:
            def measured() -> float:
                _empty(database)
                return float(way())

            return measured

        few, more = f"{_LINES:,} lines", f"{_MANY:,} lines"
        unit = "thousand lines/s"
        series = alternate(
            {
                few: fresh(lambda: _ours(database, usual[0])),
                f"psql, {few}": fresh(lambda: _psql(database, usual[1], _LINES)),
                "100 copies of each": fresh(lambda: _ours(database, copies[0])),
                "psql, 100 copies of each": fresh(lambda: _psql(database, copies[1], _LINES)),
            },
            unit=unit,
            rounds=_ROUNDS,
        )
        before = _peak_mb()
        series |= alternate(
            {
                more: fresh(lambda: _ours(database, many[0])),
                f"psql, {more}": fresh(lambda: _psql(database, many[1], _MANY)),
            },
            unit=unit,
            rounds=2,
        )
        grown = _peak_mb() - before
        _empty(database)
        series |= alternate({f"the same {more} again": lambda: _ours(database, many[0])}, unit=unit, rounds=1)
        database.close()
    memory = Series(f"peak memory, {more} beyond {few}", "MB", (grown,))

    def ratio(one: str, other: str) -> Ratio:
        return Ratio(series[one].median / series[other].median, 0.8, least=True)

    ratios = {
        f"{few} to psql": ratio(few, f"psql, {few}"),
        "100 copies of each to psql": ratio("100 copies of each", "psql, 100 copies of each"),
        f"{more} to psql": ratio(more, f"psql, {more}"),
        f"{more} to {few}, a line": ratio(more, few),
        "memory grown from the few to the many, MB": Ratio(grown, 10),
    }
    return report("threat", [*series.values(), memory], ratios)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
