"""Each function is served from its planned archive: only its packages, its environment, its database role."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import make_url, text

from shared import plans
from shared.database import Database
from shared.errors import OUTCOMES, Outcome
from shared.laptop.ports import free_ports
from shared.laptop.postgres import Postgres
from shared.manifest import Cron, Every, Http, Task, Topic, load_all
from shared.migrations import run as migrations
from tests.conftest import settings_for
from tests.terraform.test_deployed import deployed, environment
from tests.terraform.workspace import ROOT, Plan, turn

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

PASSWORD = "the role of a served function"


def unpack(plan: Plan, name: str, folder: Path) -> Path:
    with zipfile.ZipFile(plan.folder / "terraform" / ".build" / f"{name}.zip") as archive:
        archive.extractall(folder)
    return folder


def venv(shared_tmp: Path, *arguments: str) -> Path:
    """The python of a fresh environment into which `uv pip install ARGUMENTS` put what it says and nothing else."""
    texts = [Path(a).read_text() if Path(a).is_file() else a for a in arguments]
    folder = shared_tmp / f"venv-{hashlib.sha256(repr(texts).encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    with turn(folder.with_suffix(".lock")):
        if not (folder / "done").is_file():
            uv = Path(sys.executable).parent / "uv"
            subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder], check=True, timeout=120)
            subprocess.run([uv, "pip", "install", "-q", "--python", python, *arguments], check=True, timeout=600)
            (folder / "done").touch()
    return python


def pip_free(env: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8", **env}


@pytest.fixture(scope="session")
def migrated(server: Postgres, plan: Plan, shared_tmp: Path) -> Iterator[str]:
    """A platform's database that the planned migrate archive brought to its schema and grants."""
    name = f"served_{plan.folder.name.replace('-', '_')}"
    url = server.create_database(name)
    database = Database(settings_for(url), "test")
    migrations.upgrade(database.engine, "platform")
    # what the job's image holds
    python = venv(shared_tmp, "-r", str(ROOT / "requirements.txt"), "-c", str(ROOT / "requirements-dev.txt"), "rich")
    folder = unpack(plan, "migrate", shared_tmp / name)
    (job,) = plan.of("cloud_run_v2_job", "migrate")
    env = {k: v for k, v in environment(job).items() if k not in ("DATABASE_CA", "KEEPER_PAUSED", "KEEPER_SOURCE")}
    command = job.values["template"][0]["template"][0]["containers"][0]["args"]
    done = subprocess.run(
        [python, *command[1:]],
        cwd=folder,
        env=pip_free({**env, "DATABASE_URL": url}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "grants in force" in done.stdout
    with database.transaction() as connection:
        for task in load_all(plan.functions).values():
            connection.execute(text(f"""alter role "{task.slug}" login password '{PASSWORD}'"""))
    database.close()
    yield url
    server.drop_database(name)


@contextmanager
def serving(python: Path, folder: Path, env: Mapping[str, str]) -> Iterator[str]:
    """The function in `folder`, as functions-framework serves it; its URL."""
    port = next(free_ports())
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [python.parent / "functions-framework", "--target", "main", "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env=pip_free(env),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            for _ in range(300):
                assert process.poll() is None, log.read_text()
                try:
                    requests.get(f"http://127.0.0.1:{port}/robots.txt", timeout=5)
                    break
                except requests.ConnectionError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def call(task: Task, url: str, database: str) -> requests.Response:
    """One call, as the cloud would make it."""
    trigger = next(iter(task.triggers), None)
    if isinstance(trigger, Cron | Every):
        headers = {"X-CloudScheduler-ScheduleTime": "2026-06-15T02:00:00Z", "Content-Type": "application/json"}
        return requests.post(url, data="{}", headers=headers, timeout=120)
    if isinstance(trigger, Topic):
        message = {
            "messageId": "1",
            "publishTime": "2026-06-15T02:00:00Z",
            "attributes": {},
            "data": base64.b64encode(b"{}").decode(),
        }
        return requests.post(url, json={"message": message, "subscription": "s"}, timeout=120)
    if isinstance(trigger, Http):
        return requests.request(trigger.methods[0], url + trigger.path, json={}, timeout=120)
    asking = Database(settings_for(database), "test")
    with asking.transaction() as connection:
        request = plans.request_run(
            connection,
            task=task.name,
            actor="tester",
            why="a test",
            params=None,
            planning=False,
            plan_hash=None,
            break_glass=False,
            now=datetime.now(UTC),
        )
    asking.close()
    return requests.post(url, json={"run_request": str(request)}, timeout=120)


def served(plan: Plan, migrated: str, shared_tmp: Path) -> list[tuple[Any, ...]]:
    """What each function of `plan` answered: task, packages, kilobytes, seconds to serve, status, outcome."""
    answers = []
    for name, task in load_all(plan.functions).items():
        if task.run.kind != "function":
            continue
        folder = unpack(plan, name, shared_tmp / f"served-{plan.folder.name}" / name)
        python = venv(shared_tmp, "-r", str(folder / "requirements.txt"))
        packages = len(list((python.parents[1] / "lib").glob("python*/site-packages/*.dist-info")))
        url = make_url(migrated).set(username=task.slug, password=PASSWORD).render_as_string(hide_password=False)
        env = {k: v for k, v in environment(deployed(plan)[name]).items() if k not in ("DATABASE_CA", "KEEPER_PAUSED")}
        # folders stand in for the cloud's buckets and keys; what else is out there answers nobody here
        places = ("KEEPER_BUCKET_", "KEEPER_KEY_")
        env |= {k: str(shared_tmp / "places" / k.lower()) for k in env if k.startswith(places)}
        began = time.monotonic()
        with serving(python, folder, {**env, "DATABASE_URL": url}) as address:
            seconds = time.monotonic() - began
            answer = call(task, address, migrated)
        body = answer.json() if answer.headers["Content-Type"].startswith("application/json") else {}
        size = (plan.folder / "terraform" / ".build" / f"{name}.zip").stat().st_size // 1024
        answers.append(
            (name, packages, size, round(seconds, 1), answer.status_code, body.get("outcome", ""), json.dumps(body))
        )
    return answers


def test_every_function_answers_when_it_is_called(
    plan: Plan, migrated: str, shared_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = served(plan, migrated, shared_tmp)
    with capsys.disabled():
        print(f"\n{'task':24} packages  zip kB  serving s  status  outcome      in words")
        for name, packages, size, seconds, status, outcome, body in answers:
            words = json.loads(body).get("error") or ""
            print(f"{name:24} {packages:8} {size:7} {seconds:10} {status:7}  {outcome:12} {words}".rstrip())
    for name, *_, status, outcome, body in answers:
        # only a defect fails: what is missing here, or not to be had without a signature, is said in words
        assert outcome != "failed", f"{name}: {status} {body}"
        if outcome:
            meaning = OUTCOMES[Outcome(outcome)]
            assert status == meaning.http or (meaning.again and status == 503), f"{name}: {status} {body}"
        else:
            assert 300 <= status < 500 or status == 200, f"{name}: {status} {body}"
