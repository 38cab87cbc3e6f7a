"""A task as it is served: by functions-framework in a process of its own, by its test client, and as a job."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient

from shared import plans
from shared.database import Database
from shared.laptop.ports import answers, free_ports
from shared.manifest import ROOT
from shared.run import Runner
from shared.settings import Settings
from tests.conftest import NOW
from tests.shared.conftest import Rows

TaskFolder = Callable[..., Path]

SLOT = {"X-CloudScheduler-ScheduleTime": "2026-06-15T06:00:03.120Z", "Content-Type": "application/octet-stream"}
COUNT_ONE = "with ctx.begin():\n    ctx.count('done')\nreturn ctx.counts"
ECHO = "ctx.respond(201, ctx.request.body)\nreturn {}"
TOPIC = "{topic: app-events}"
HTTP = "{http: {path: /api/x, methods: [POST], auth: service}}"
PUBLIC = "{http: {path: /api/x, methods: [POST], auth: firebase, reason: browsers call it}}"


@contextmanager
def environment(settings: Settings, **more: str) -> Iterator[dict[str, str]]:
    """This process's environment as the task's instance has it."""
    wanted = {**settings.environ, **more}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield {**os.environ}
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture
def serve(task_folder: TaskFolder, settings: Settings) -> Iterator[Callable[..., FlaskClient]]:
    """A throwaway task behind functions-framework's own application, in this process."""
    runners: list[Runner] = []

    def client(body: str, **declared: Any) -> FlaskClient:
        from functions_framework import create_app

        folder = task_folder(body, **declared)
        handler = signal.getsignal(signal.SIGTERM)
        with environment(settings):
            app = create_app(target="main", source=str(folder / "main.py"), signature_type="http")
        signal.signal(signal.SIGTERM, handler)
        runners.append(sys.modules["main"].main.runner)
        found: FlaskClient = app.test_client()
        return found

    yield client
    for runner in runners:
        runner.close()


def envelope(**message: Any) -> dict[str, Any]:
    return {"message": {"messageId": "m1", "data": "e30=", **message}, "subscription": "projects/p/subscriptions/s"}


# --- what starts a run


def test_a_slot_delivered_twice_runs_once_whatever_its_seconds(serve: Any, rows: Rows) -> None:
    client = serve(COUNT_ONE)
    first = client.post("/", headers=SLOT)
    again = client.post("/", headers={**SLOT, "X-CloudScheduler-ScheduleTime": "2026-06-15T06:00:00Z"})
    assert (first.status_code, first.json["outcome"], first.json["counts"]) == (200, "ok", {"done": 1})
    assert (again.status_code, again.json["outcome"]) == (200, "skipped")
    assert [r.run_key for r in rows("select run_key from groundskeeper.task_run")] == ["2026-06-15T06:00:00Z"]


def test_a_push_envelope_is_taken_apart(serve: Any) -> None:
    body = """
message = ctx.message
assert (message.data, message.attributes, message.ordering_key) == (b"{}", {"a": "b"}, "k")
assert (message.delivery_attempt, message.published_at.year) == (3, 2026)
return {"seen": 1}
"""
    sent = envelope(attributes={"a": "b"}, orderingKey="k", publishTime="2026-01-01T00:00:00Z")
    answer = serve(body, trigger=TOPIC).post("/", json={**sent, "deliveryAttempt": 3})
    assert answer.json["counts"] == {"seen": 1}, answer.json


def test_a_request_by_hand_is_found_by_its_id(serve: Any, db: Database) -> None:
    with db.transaction() as connection:
        request = plans.request_run(connection, task="sample_task", actor="ann", why="a test", now=NOW)
    answer = serve(COUNT_ONE).post("/", json={"run_request": str(request)})
    assert (answer.status_code, answer.json["outcome"]) == (200, "ok")


@pytest.mark.parametrize(
    ("trigger", "asked"),
    [
        ('{cron: "0 6 * * *"}', {"headers": {"X-CloudScheduler-ScheduleTime": "jo@example.com"}}),
        ('{cron: "0 6 * * *"}', {"data": b"{not json jo@example.com", "content_type": "application/json"}),
        ('{cron: "0 6 * * *"}', {"data": b"[" * 100_000, "content_type": "application/json"}),
        ('{cron: "0 6 * * *"}', {"json": {"run_request": "jo@example.com"}}),
        ('{cron: "0 6 * * *"}', {"json": envelope()}),
        (TOPIC, {"json": {"message": "jo@example.com"}}),
        (TOPIC, {"json": envelope(messageId="jo@example.com")}),
        (TOPIC, {"json": envelope(messageId="a\0b")}),
        (TOPIC, {"json": envelope(messageId=7)}),
        (TOPIC, {"json": envelope(data="jo@example.com")}),
        (TOPIC, {"json": envelope(data=7)}),
        (TOPIC, {"json": envelope(attributes="jo@example.com")}),
        (TOPIC, {"json": envelope(attributes={"a": 1})}),
        (HTTP, {"headers": {"Idempotency-Key": "jo@example.com"}}),
    ],
)
def test_a_call_that_names_no_run_is_told_so_and_not_repeated_back(
    serve: Any, rows: Rows, capsys: pytest.CaptureFixture[str], trigger: str, asked: dict[str, Any]
) -> None:
    answer = serve(COUNT_ONE, trigger=trigger).post("/", **asked)
    assert answer.status_code == 400
    said = answer.get_data(as_text=True) + capsys.readouterr().out
    assert "a request started nothing" in said
    assert "example" not in said
    assert rows("select 1 from groundskeeper.task_run") == []


def test_a_method_the_endpoint_has_not_is_405(serve: Any) -> None:
    client = serve(ECHO, trigger=HTTP)
    assert [client.get("/").status_code, client.delete("/").status_code] == [405, 405]
    answer = client.post("/", data=b"hello")
    assert (answer.status_code, answer.data) == (201, b"hello")


def test_a_body_that_is_too_large_is_413(serve: Any) -> None:
    assert serve(ECHO, trigger=HTTP).post("/", data=b"x" * (33 << 20)).status_code == 413


# --- idempotency keys


def test_a_services_repeated_key_runs_once_and_says_skipped(serve: Any) -> None:
    client = serve(COUNT_ONE, trigger=HTTP)
    first, again = (client.post("/", headers={"Idempotency-Key": "order-7"}) for _ in range(2))
    assert (first.json["outcome"], again.json["outcome"]) == ("ok", "skipped")
    assert again.json["run_id"] == first.json["run_id"]
    assert client.post("/").json["outcome"] == client.post("/").json["outcome"] == "ok"


def test_a_strangers_key_is_another_key(serve: Any, rows: Rows) -> None:
    client = serve(COUNT_ONE, trigger=PUBLIC)
    for sender, outcome in (("ann", "ok"), ("eve", "ok"), ("ann", "skipped")):
        headers = {"Idempotency-Key": "1", "Authorization": f"Bearer a-token-of-{sender}"}
        assert client.post("/", headers=headers).json["outcome"] == outcome
    for run in rows("select run_key from groundskeeper.task_run"):
        assert "token" not in run.run_key


# --- outcomes as HTTP says them


@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [
        ("raise Refused('no')", 200, "refused"),
        ("raise Retry('later')", 503, "retry"),
        ("raise Unavailable('no part')", 200, "unavailable"),
        ("raise Partial(['b'], {'done': 1})", 500, "partial"),
        ("raise ValueError('jo@example.com')", 500, "failed"),
        ("from shared.errors import Waiting\nraise Waiting('an approval is open')", 200, "waiting"),
        ("return {'done': 'jo@example.com'}", 500, "failed"),
        ("return {'done': True}", 500, "failed"),
        ("raise Partial(['b'], {'done': 1.5})", 500, "failed"),
        ("ctx.count('done', 0.5)", 500, "failed"),
        ("raise Refused('a NUL \\0 and jo@example.com')", 200, "refused"),
        ("raise KeyboardInterrupt", 200, "stopped"),
        ("ctx.publish(None, topic='undeclared', kind='k', data={})", 500, "failed"),
    ],
)
def test_each_ending_has_its_status_and_its_row_and_shows_nobody(
    serve: Any, rows: Rows, capsys: pytest.CaptureFixture[str], body: str, status: int, outcome: str
) -> None:
    answer = serve(body).post("/", headers=SLOT)
    assert (answer.status_code, answer.json["outcome"]) == (status, outcome)
    (run,) = rows("select outcome, error from groundskeeper.task_run")
    assert run.outcome == outcome
    for said in (answer.get_data(as_text=True), run.error, capsys.readouterr().out):
        assert "example" not in said


@pytest.mark.parametrize("trigger", [TOPIC, HTTP, PUBLIC])
@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [
        ("raise Refused('it is put aside, with its reason')", 200, "refused"),
        ("raise Unavailable('no part')", 503, "unavailable"),
        ("raise KeyboardInterrupt", 503, "stopped"),
        ("from shared.errors import ConfigurationError\nraise ConfigurationError('set X')", 503, "unavailable"),
        ("with ctx.begin() as c:\n    c.execute(text('select 1 from nowhere'))", 503, "unavailable"),
    ],
)
def test_a_message_or_request_that_nobody_handled_comes_again_under_its_key(
    serve: Any, rows: Rows, trigger: str, body: str, status: int, outcome: str
) -> None:
    client = serve(body, trigger=trigger)
    sent: dict[str, Any] = {"json": envelope()} if trigger == TOPIC else {"headers": {"Idempotency-Key": "k"}}
    answer, again = client.post("/", **sent), client.post("/", **sent)
    assert (answer.status_code, answer.json["outcome"]) == (status, outcome)
    assert again.json["outcome"] == ("skipped" if status == 200 else outcome)
    assert len(rows("select 1 from groundskeeper.task_attempt")) == (1 if status == 200 else 2)


def test_a_message_on_a_schema_that_does_not_fit_waits_until_it_does(serve: Any, rows: Rows) -> None:
    (found,) = rows("select version_num from groundskeeper.schema_version")
    rows("update groundskeeper.schema_version set version_num = '9999' returning 1")
    client = serve(COUNT_ONE, trigger=TOPIC)
    early = client.post("/", json=envelope())
    rows(f"update groundskeeper.schema_version set version_num = '{found.version_num}' returning 1")
    late = client.post("/", json=envelope())
    assert (early.status_code, early.json["outcome"]) == (503, "unavailable")
    assert (late.status_code, late.json["outcome"], late.json["counts"]) == (200, "ok", {"done": 1})


def test_an_override_cannot_read_the_environment(serve: Any, db: Database, rows: Rows) -> None:
    stolen = {"limit": {"env": "DATABASE_URL", "default": 1}}
    with db.transaction() as connection:
        request = plans.request_run(connection, task="sample_task", actor="eve", why="x", now=NOW, params=stolen)
    answer = serve(COUNT_ONE).post("/", json={"run_request": str(request)})
    assert answer.json["outcome"] == "refused"
    assert "127.0.0.1" not in answer.get_data(as_text=True)


# --- when the ledger itself fails


def test_an_ending_is_written_again_when_the_ledger_was_gone_for_a_moment(
    serve: Any, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.run._FINISH_AGAIN_S", (0.0,))
    body = """
from sqlalchemy import event
with ctx.begin():
    ctx.count("done")
gone = []
@event.listens_for(ctx._database.engine, "before_cursor_execute")
def lose(connection, cursor, statement, *_):
    if "set ended_at" in statement and not gone:
        gone.append(connection.connection.dbapi_connection._usock.shutdown(2))
return ctx.counts
"""
    answer = serve(body).post("/", headers=SLOT)
    assert (answer.status_code, answer.json["outcome"]) == (200, "ok"), answer.json
    assert rows("select outcome from groundskeeper.task_run")[0].outcome == "ok"


def test_an_ending_nobody_could_write_comes_again_and_names_the_run(
    serve: Any, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.run._FINISH_AGAIN_S", (0.0,))
    body = """
with ctx.begin() as connection:
    ctx.count("done")
    connection.execute(text("alter table groundskeeper.task_attempt rename to gone"))
return ctx.counts
"""
    answer = serve(body).post("/", headers=SLOT)
    assert answer.json["run_id"] is not None
    assert answer.json["outcome"] == "refused"
    assert answer.json["counts"] == {"done": 1}
    assert "ended ok, unwritten" in answer.json["error"]


# --- log lines


@contextmanager
def process(folder: Path, environ: Mapping[str, str], log: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The task in functions-framework's own process, as the cloud's image starts it; its URL and the process."""
    port = next(free_ports())
    with log.open("wb") as sink:
        started = subprocess.Popen(
            [sys.executable, "-m", "functions_framework", "--target", "main", "--source", str(folder / "main.py")],
            env={**environ, "PORT": str(port), "HOST": "127.0.0.1", "PYTHONPATH": str(ROOT), "WORKERS": "1"},
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for _ in range(300):
            if answers(port):
                break
            assert started.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/", started
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
        started.wait(10)


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def test_a_served_runs_lines_bear_run_trace_and_execution(
    task_folder: TaskFolder, settings: Settings, tmp_path: Path
) -> None:
    folder, log = task_folder("ctx.log.info('seen', secret='postgresql://u:hunter2@h/d')"), tmp_path / "log"
    environ = {**os.environ, **settings.environ, "LOG_EXECUTION_ID": "true"}
    with process(folder, environ, log) as (url, _):
        traced = {"X-Cloud-Trace-Context": "4bf92f3577b34da6a3ce929d0e0e4736/7;o=1", "Function-Execution-Id": "e1"}
        answer = requests.post(url, headers={**SLOT, **traced}, timeout=30)
    assert answer.json()["outcome"] == "ok", log.read_text()
    said = next(line for line in lines(log) if line["message"] == "seen")
    assert said["run_id"] == answer.json()["run_id"]
    assert said["logging.googleapis.com/trace"].endswith("/traces/4bf92f3577b34da6a3ce929d0e0e4736")
    assert said["logging.googleapis.com/labels"]["execution_id"] == "e1"
    assert said["severity"] == "INFO"
    assert "hunter2" not in log.read_text()


# --- SIGTERM


def test_sigterm_to_a_served_process_stops_its_run_at_the_next_transaction(
    task_folder: TaskFolder, settings: Settings, tmp_path: Path, rows: Rows
) -> None:
    body = """
import time
for _ in range(100):
    with ctx.begin():
        ctx.count("done")
    time.sleep(0.1)
return ctx.counts
"""
    folder, log = task_folder(body), tmp_path / "log"
    with process(folder, {**os.environ, **settings.environ}, log) as (url, started):
        heard: list[requests.Response] = []
        client = threading.Thread(target=lambda: heard.append(requests.post(url, headers=SLOT, timeout=30)))
        client.start()
        while not rows("select 1 from groundskeeper.task_run where counts ? 'done'"):
            time.sleep(0.05)
        started.send_signal(signal.SIGTERM)
        client.join(15)
        started.wait(15)
    assert heard[0].json()["outcome"] == "stopped", log.read_text()
    (run,) = rows("select outcome, counts from groundskeeper.task_run")
    assert run.outcome == "stopped"
    assert 0 < run.counts["done"] < 90


# --- jobs


def job(folder: Path, settings: Settings, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "shared.task", str(folder)],
        cwd=ROOT,
        env={**os.environ, **settings.environ, **more},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [("return {}", 0), ("raise Refused('no')", 3), ("raise Retry('later')", 4), ("raise KeyError", 1)],
)
def test_a_jobs_exit_code_is_its_outcomes(task_folder: TaskFolder, settings: Settings, body: str, code: int) -> None:
    done = job(task_folder(body), settings)
    assert done.returncode == code, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["message"] == "run ended"


def test_a_job_whose_database_is_down_says_so_and_comes_again(task_folder: TaskFolder, settings: Settings) -> None:
    done = job(task_folder("return {}"), settings, DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/d")
    assert (done.returncode, done.stderr) == (4, "")
    assert "does not answer" in done.stdout
    assert "hunter2" not in done.stdout


def test_a_job_in_the_cloud_with_an_emulator_does_not_start(task_folder: TaskFolder, settings: Settings) -> None:
    done = job(task_folder("return {}"), settings, CLOUD_RUN_JOB="sample-task", PUBSUB_EMULATOR_HOST="127.0.0.1:1")
    assert done.returncode == 3
    assert "PUBSUB_EMULATOR_HOST" in done.stdout + done.stderr


def test_a_paused_job_is_stopped_although_the_database_is_down(task_folder: TaskFolder, settings: Settings) -> None:
    done = job(
        task_folder("return {}"), settings, DATABASE_URL="postgresql://u@127.0.0.1:1/d", KEEPER_PAUSED="an incident"
    )
    assert (done.returncode, "an incident" in done.stdout) == (0, True), done.stderr


def test_every_index_of_a_job_runs_the_request_that_waits(
    task_folder: TaskFolder, settings: Settings, db: Database, rows: Rows
) -> None:
    from shared.clock import SystemClock
    from shared.settings import read
    from shared.task import run_job

    folder = task_folder(COUNT_ONE, trigger='{cron: "0 6 1 1 *"}')
    declared = (folder / "task.yaml").read_text()
    (folder / "task.yaml").write_text(
        declared.replace("kind: function", "kind: job").replace("timeout_s: 300", "timeout_s: 300, tasks: 2")
    )
    with db.transaction() as connection:
        plans.request_run(connection, task="sample_task", actor="ann", why="a test", now=datetime.now(UTC))
    for index in ("0", "1"):
        result = run_job(folder, read({**settings.environ, "CLOUD_RUN_TASK_INDEX": index}), SystemClock())
        assert result.outcome.value == "ok", result.error
    found = rows("select trigger, actor, shard from groundskeeper.task_run order by shard")
    assert [tuple(r) for r in found] == [("hand", "ann", 0), ("hand", "ann", 1)]


def test_a_request_does_not_cost_a_night(task_folder: TaskFolder, settings: Settings, db: Database, rows: Rows) -> None:
    from shared.task import run_job
    from tests.conftest import ManualClock

    clock = ManualClock(datetime(2026, 6, 15, 6, 0, 20, tzinfo=UTC))  # Scheduler's start, and a request waits
    with db.transaction() as connection:
        plans.request_run(connection, task="sample_task", actor="ann", why="x", now=clock.now(), planning=True)
    run_job(task_folder(COUNT_ONE), settings, clock)
    found = rows("select trigger, outcome from groundskeeper.task_run order by trigger")
    assert [tuple(r) for r in found] == [("cron", "ok"), ("hand", "planned")]


# --- the deployment fails, not the night


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"K_SERVICE": "x", "GOOGLE_CLOUD_PROJECT": "p"}, "DATABASE_URL is not set in the cloud"),
        ({"K_SERVICE": "x", "GOOGLE_CLOUD_PROJECT": "p", "DATABASE_URL": "postgresql://h/d",
          "FIREBASE_AUTH_EMULATOR_HOST": "127.0.0.1:1"}, "FIREBASE_AUTH_EMULATOR_HOST is set in the cloud"),
    ],
)  # fmt: skip
def test_a_function_that_may_not_start_does_not_start(
    task_folder: TaskFolder, environ: dict[str, str], words: str
) -> None:
    program = "import pathlib, sys; from shared.task import load; load(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(task_folder("return {}"))],
        cwd=ROOT,
        env={"PATH": os.defpath, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert words in done.stderr
