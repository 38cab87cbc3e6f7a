"""The whole plane: every kind of trigger ends in the ledger, everything stops, and a killed plane is recovered from."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import requests
from google.cloud import pubsub_v1

from shared import logs
from shared.clock import SystemClock
from shared.errors import Outcome
from shared.laptop import home
from shared.laptop.firebase import DEMO_CUSTOMER, DEMO_OPERATOR
from shared.laptop.plane import _log_to, exit_code
from shared.laptop.postgres import Postgres
from shared.laptop.scheduler import Attempt, Http, Job, Scheduler, jobs_of
from shared.manifest import FUNCTIONS, ROOT, Cron, load, load_all
from tests import leaks
from tests.laptop import throwaway
from tests.processes import alive

WAIT_S = 60.0

_UP = "import sys; from shared.laptop import plane; sys.exit(plane.up({}))"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder the database's user can reach, whoever we are."""
    with tempfile.TemporaryDirectory(prefix="groundskeeper-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


class Up:
    """A plane in a process of its own, with the tasks of `functions`, by default of `folder`/functions."""

    def __init__(
        self, folder: Path, arguments: str = "demo=False", *, emulator: bool = True, functions: Path | None = None
    ) -> None:
        self.home = folder / "home"
        kept = {"PATH": os.environ["PATH"] if emulator else str(Path(sys.executable).parent), "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _UP.format(arguments)],
            env={**kept, "KEEPER_HOME": str(self.home), "KEEPER_FUNCTIONS": str(functions or folder / "functions")},
            cwd=ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.said = ""
        self.over = False
        self._heard = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._heard:
                self.said += line
                self._heard.notify_all()
        with self._heard:
            self.over = True
            self._heard.notify_all()

    def wait_for(self, text: str) -> str:
        """Until the plane has said `text`; what it said."""
        with self._heard:
            self._heard.wait_for(lambda: self.over or re.search(text, self.said), timeout=WAIT_S)
            assert re.search(text, self.said), self.said
            return self.said

    def base(self) -> str:
        """Where the functions are, once everything is up."""
        found = re.search(r"functions +functions-framework.* (http://\S+)", self.wait_for("the plane is up"))
        assert found
        return found[1]

    def end(self, how: signal.Signals = signal.SIGINT) -> tuple[int, float]:
        """Send `how`; the exit code, and the seconds it took."""
        clock = SystemClock()
        began = clock.monotonic()
        self.process.send_signal(how)
        return self.exit(), clock.monotonic() - began

    def exit(self, within_s: float = WAIT_S) -> int:
        code = self.process.wait(timeout=within_s)
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()
        return code

    def family(self) -> list[psutil.Process]:
        """Every process it has started; the database's server is nobody's child."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if alive(child.pid)]

    def ledger(self) -> list[tuple[str, str, str, str, int]]:
        """(task, trigger, run key, outcome, shard) of every run."""
        with Postgres.start(self.home / "postgres") as server:
            import sqlalchemy as sa

            engine = sa.create_engine(server.database_url(home.DATABASE))
            with engine.connect() as connection:
                rows = connection.execute(
                    sa.text(
                        'select task, "trigger", run_key, outcome, shard from groundskeeper.task_run order by 1, 3, 5'
                    )
                ).all()
            engine.dispose()
        return sorted(tuple(row) for row in rows)  # type: ignore[type-var]


@pytest.fixture
def up(folder: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(arguments: str = "demo=False", *, emulator: bool = True, functions: Path | None = None) -> Up:
        started.append(Up(folder, arguments, emulator=emulator, functions=functions))
        return started[-1]

    yield start
    for one in started:
        family = one.family() if one.process.poll() is None else []
        one.process.kill()
        one.exit()
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
    # a killed plane's database lives on until somebody joins and leaves it
    if (folder / "home/postgres").exists():
        Postgres.start(folder / "home/postgres").stop()


def test_once_runs_every_scheduled_task_and_nothing_else(up: Callable[..., Up], folder: Path) -> None:
    throwaway.write_kinds(folder / "functions")
    throwaway.write_endings(folder / "functions", "ends_unavailable")
    plane = up("once=True, demo=False")
    assert plane.exit() == 0, plane.said
    assert [(task, trigger, outcome, shard) for task, trigger, _, outcome, shard in plane.ledger()] == [
        ("at_two", "cron", "ok", 0),
        ("each_half_minute", "every", "ok", 0),
        ("ends_unavailable", "cron", "unavailable", 0),
        ("in_parts", "cron", "ok", 0),
        ("in_parts", "cron", "ok", 1),
    ]
    for expected in (r"at_two .*ok +done 1", r"each_half_minute .*ok +ticks 1", r"in_parts .*ok +part 1"):
        assert re.search(expected, plane.said), plane.said
    assert re.search(r"ends_unavailable .* unavailable +no such part", plane.said), plane.said


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_demo_plane_runs_every_scheduled_task_and_none_ends_badly(up: Callable[..., Up]) -> None:
    plane = up("once=True", functions=FUNCTIONS)
    assert plane.exit(within_s=800) == 0, plane.said
    ended: dict[str, set[str]] = defaultdict(set)
    for task, _trigger, _, outcome, _shard in plane.ledger():
        ended[task].add(outcome)
    assert {job.task.name for job in jobs_of(load_all(FUNCTIONS))} <= ended.keys()
    # a secret's rotation waits for its approval; Chromium with Lighthouse and the internet are not everywhere
    excused = {"rotate_secrets": {"waiting"}, "lighthouse_scan": {"unavailable"}, "ping_services": {"unavailable"}}
    assert {name: outcomes for name, outcomes in ended.items() if outcomes - excused.get(name, set()) - {"ok"}} == {}
    _nothing_secret_is_told_or_stored(plane)


def _nothing_secret_is_told_or_stored(plane: Up) -> None:
    """Over what a whole day of the plane said, logged and stored, its archives' and backups' manifests among it."""
    planted = leaks.planted_in(plane.home)
    assert planted
    # whom one can sign in as here is said on purpose, and made up
    leaks.heard("standard output", plane.said.replace(DEMO_OPERATOR, "").replace(DEMO_CUSTOMER, ""))
    for file in (*plane.home.glob("log/*.log"), *plane.home.glob("objects/**/*.json")):
        leaks.heard(file.name, file.read_text(errors="replace"))
    with Postgres.start(plane.home / "postgres") as server:
        leaks.note(leaks.stored(server.database_url(home.DATABASE), planted))


def test_once_shows_every_bad_end_of_functions_and_jobs_and_still_runs_the_others(
    up: Callable[..., Up], folder: Path
) -> None:
    throwaway.write_endings(folder / "functions", "ends_failed", "ends_ok", "ends_partial", "ends_refused")
    throwaway.write_endings(folder / "functions", "ends_retry", kind="job")
    plane = up("once=True, demo=False", emulator=False)
    assert plane.exit() == 1
    for ending in ("failed", "ok", "partial", "refused", "retry"):
        assert re.search(rf"ends_{ending} .* {ending} ", plane.said), plane.said


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(o, int(o in ("failed", "partial", "retry", "refused"))) for o in Outcome],
)
def test_once_fails_on_failed_partial_retry_and_refused_alone(outcome: Outcome, code: int) -> None:
    job = Job("a-task", load(FUNCTIONS / "db_cleanup"), Cron("0 2 * * *"))
    attempts = [Attempt(job, datetime(2026, 6, 15, 2, tzinfo=UTC), 1, 200, {"outcome": o}) for o in ("ok", outcome)]
    assert exit_code(attempts) == code


@pytest.mark.full
def test_once_in_isolated_processes_does_the_same(up: Callable[..., Up], folder: Path) -> None:
    throwaway.write_kinds(folder / "functions")
    plane = up("once=True, demo=False, isolated=True", emulator=False)
    assert plane.exit() == 0, plane.said
    assert [row[0] for row in plane.ledger()] == ["at_two", "each_half_minute", "in_parts", "in_parts"]


@pytest.mark.parametrize(("emulator", "how"), [(True, signal.SIGINT), (False, signal.SIGTERM)], ids=["emulator", "own"])
def test_each_kind_of_trigger_ends_in_the_ledger_and_ctrl_c_stops_everything(
    up: Callable[..., Up], folder: Path, emulator: bool, how: signal.Signals
) -> None:
    throwaway.write_kinds(folder / "functions")
    plane = up(emulator=emulator)
    base = plane.base()
    variables = json.loads((plane.home / "plane.json").read_text())
    answer = requests.post(f"{base}/api/v1/things/7", json={}, headers={"Idempotency-Key": "key-1"}, timeout=30)
    assert (answer.status_code, answer.json()["counts"]) == (200, {"path": len("/api/v1/things/7")})
    message_id = _publish(variables["PUBSUB_EMULATOR_HOST"], b"hello")
    tasks = load_all(folder / "functions")
    _simulate(tasks, base, datetime(2026, 6, 15, 1, 59, tzinfo=UTC), minutes=2)
    expected = [
        ("at_two", "cron", "2026-06-15T02:00:00Z", "ok"),
        ("each_half_minute", "every", "2026-06-15T02:00:00Z", "ok"),
        ("on_message", "topic", message_id, "ok"),
        ("on_request", "http", "key-1", "ok"),
    ]
    _wait_until(lambda: set(expected) <= {row[:4] for row in plane.ledger()}, plane.ledger)
    _ends_whole(plane, how)


def _ends_whole(plane: Up, how: signal.Signals) -> None:
    family = plane.family()
    server = int((plane.home / "postgres/postmaster.pid").read_text().split()[0])
    code, seconds = plane.end(how)
    assert (code, plane.said.splitlines()[-1]) == (0, "stopped")
    assert seconds < 10
    assert not psutil.pid_exists(server)
    assert not [member for member in family if member.is_running()]
    assert not list((plane.home / "log").glob("*.pid"))
    assert not (plane.home / "plane.json").exists()


def _publish(address: str, data: bytes) -> str:
    os.environ["PUBSUB_EMULATOR_HOST"] = address
    try:
        publisher = pubsub_v1.PublisherClient()
        topic = publisher.topic_path(home.PROJECT, "user-deleted")
        message_id: str = publisher.publish(topic, data).result(timeout=WAIT_S)
        publisher.stop()
        publisher.transport.close()
    finally:
        del os.environ["PUBSUB_EMULATOR_HOST"]
    return message_id


def _simulate(tasks: dict[str, object], base: str, start: datetime, *, minutes: int) -> None:
    """The local scheduler on a clock that runs ahead, firing at the functions of a real plane."""

    class Ahead:
        moment = start

        def now(self) -> datetime:
            return self.moment

        def monotonic(self) -> float:
            return (self.moment - start).total_seconds()

        def sleep(self, seconds: float) -> None:
            self.moment += timedelta(seconds=max(seconds, 0.001))

    functions = {name: task for name, task in tasks.items() if task.run.kind == "function"}  # type: ignore[attr-defined]
    target = Http(lambda task: f"{base}/{task.slug}")
    Scheduler(functions, {"function": target}, Ahead()).run(start + timedelta(minutes=minutes))  # type: ignore[arg-type]


def _wait_until(true: Callable[[], bool], seen: Callable[[], object]) -> None:
    clock = SystemClock()
    limit = clock.monotonic() + WAIT_S
    while not true():
        assert clock.monotonic() < limit, seen()
        clock.sleep(0.2)


@pytest.mark.full
def test_ctrl_c_ends_a_run_in_order(up: Callable[..., Up], folder: Path) -> None:
    body = "while True:\n        with ctx.begin():\n            ctx.count('steps')\n        ctx.clock.sleep(0.1)"
    throwaway.write(folder / "functions", "long_work", kind="function", triggers='{cron: "0 2 * * *"}', body=body)
    plane = up()
    base = plane.base()
    slot = {"X-CloudScheduler-ScheduleTime": "2026-06-15T02:00:00Z"}
    caller = threading.Thread(
        target=lambda: requests.post(f"{base}/long-work", data="{}", headers=slot, timeout=30), daemon=True
    )
    caller.start()
    _wait_until(lambda: bool(plane.ledger()), plane.ledger)
    code, seconds = plane.end()
    caller.join()
    assert code == 0
    assert seconds < 8
    assert [row[3] for row in plane.ledger()] == ["stopped"], plane.said


def test_a_second_plane_is_refused_in_words_and_a_killed_one_is_recovered_from(
    up: Callable[..., Up], folder: Path
) -> None:
    throwaway.write_endings(folder / "functions", "ends_ok")
    first = up()
    base = first.base()
    second = up("once=True, demo=False")
    assert second.exit() == 2
    assert "a plane is up already in" in second.said
    assert requests.get(base, timeout=5).json() == {"/ends-ok": "A throwaway task of the tests."}
    orphans = first.family()
    assert orphans
    first.end(signal.SIGKILL)
    server = int((first.home / "postgres/postmaster.pid").read_text().split()[0])
    assert psutil.pid_exists(server)
    third = up("once=True, demo=False")
    assert third.exit() == 0, third.said
    assert "ended what a killed plane had left running: bus" in third.said
    assert not [orphan for orphan in orphans if alive(orphan.pid)]
    assert not alive(server)


def test_a_broken_task_is_said_in_words_before_anything_starts(up: Callable[..., Up], folder: Path) -> None:
    throwaway.write_endings(folder / "functions", "ends_ok")
    manifest = folder / "functions/ends_ok/task.yaml"
    manifest.write_text(manifest.read_text() + "surprise: 1\n")
    plane = up()
    assert plane.exit() == 2
    assert "surprise" in plane.said
    assert not (plane.home / "postgres").exists()


def test_somebodys_own_database_is_neither_migrated_nor_filled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.laptop import plane

    throwaway.write_endings(folder / "functions", "ends_ok")
    with Postgres.temporary() as server:
        monkeypatch.setenv("DATABASE_URL", server.create_database("somebodys"))
        monkeypatch.setenv("KEEPER_HOME", str(folder / "home"))
        monkeypatch.setenv("KEEPER_FUNCTIONS", str(folder / "functions"))
        assert plane.up(once=True) == 2
        with Postgres.start(server.data) as again:
            assert again.execute("select count(*) from pg_database where datname = 'somebodys'") == [[1]]
        import sqlalchemy as sa

        engine = sa.create_engine(server.database_url("somebodys"))
        assert sa.inspect(engine).get_schema_names() == ["information_schema", "public"]
        assert sa.inspect(engine).get_table_names() == []
        engine.dispose()


def test_the_planes_log_has_what_cloud_logging_gets_whatever_the_terminal_shows(tmp_path: Path) -> None:
    logger = logging.getLogger("groundskeeper")
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        logs.configure("stderr", logging.WARNING)
        _log_to(tmp_path / "plane.log")
        logs.log.info("heartbeat", incidents=0)
        assert json.loads((tmp_path / "plane.log").read_text())["message"] == "heartbeat"
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers[:], logger.level, logger.propagate = before
