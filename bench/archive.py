"""Archive before delete: copy, Parquet, read-back, delete, against `airflow db clean`'s shape, which leaves its copies
in the database. BENCH_ROWS (default 1,000,000, half due) and BENCH_ROUNDS (5).

Memory is the peak of a process of its own that does nothing else.
"""

import logging
import multiprocessing
import resource
from typing import Any

from bench.measure import Ratio, alternate, report
from bench.retention import ROUNDS, ROWS, RULE, Bench, bench
from shared import logs

_RULE = {**RULE, "archive": {"keep_days": 90}}


def _peak(url: str, archive: str, answers: Any) -> None:
    logs.configure("stderr", logging.WARNING)
    made = Bench.__new__(Bench)
    made.attach(url, archive)
    made.ours(_RULE)
    made.database.close()
    answers.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _memory(at: Bench) -> float:
    """Peak MiB of a process that archives the whole table."""
    at.fresh()
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.SimpleQueue()
    process = spawn.Process(target=_peak, args=(at.url, at.archive, answers))
    process.start()
    peak = float(answers.get())
    process.join()
    return peak


def _bytes_a_row(at: Bench) -> float:
    """Bytes an archived row takes."""
    with at.database.transaction(read_only=True) as connection:
        return float(
            connection.exec_driver_sql(
                "select sum(bytes)::float8 / sum(items) from groundskeeper.archive_manifest"
            ).scalar_one()
        )


def run() -> dict[str, Any]:
    """Rates, memory, bytes a row; goals of docs/benchmarks.md."""
    with bench() as at:
        logs.configure("stderr", logging.WARNING)
        at.source(ROWS)

        def ours() -> float:
            at.fresh()
            return ROWS / 2 / at.ours(_RULE)

        def airflow() -> float:
            at.fresh()
            return ROWS / 2 / at.airflow_shape()

        rates = alternate(
            {"ours: archive, read back, delete": ours, "airflow db clean's shape": airflow},
            unit="rows/s",
            rounds=ROUNDS,
        )
        memory = alternate({"peak memory": lambda: _memory(at)}, unit="MiB", rounds=1)
        size = alternate({"archive": lambda: _bytes_a_row(at)}, unit="B/row", rounds=1)
    mine, theirs = rates.values()
    ratios = {
        "rows/s": Ratio(mine.median, 250_000, least=True),
        "ours / airflow db clean's shape": Ratio(mine.median / theirs.median, 1, least=True),
        "peak memory, MiB": Ratio(memory["peak memory"].median, 300),
        "bytes a row": Ratio(size["archive"].median, 10),
    }
    return report("archive", [*rates.values(), *memory.values(), *size.values()], ratios)
