"""A job runs the archive that was planned, or nothing: the loader against real HTTP."""

import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

LOAD = Path(__file__).resolve().parents[2] / "images" / "load.py"


def loader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("load", LOAD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


load = loader()


@dataclass
class Cloud:
    """A metadata server and an object store in one: what was asked, and what it answers."""

    url: str
    objects: dict[str, bytes] = field(default_factory=dict)
    failures: int = 0  # how many times it answers 503 first
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            if state.failures:
                state.failures -= 1
                self.send_error(503)
            elif self.path.startswith("/computeMetadata/"):
                assert self.headers["Metadata-Flavor"] == "Google"
                self.answer(json.dumps({"access_token": "t0ken"}).encode())
            elif self.headers["Authorization"] != "Bearer t0ken":
                self.send_error(401)
            else:
                name = unquote(self.path.partition("/o/")[2].removesuffix("?alt=media"))
                if name in state.objects:
                    self.answer(state.objects[name])
                else:
                    self.send_error(404)

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Cloud(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def archive(**files: str) -> tuple[str, bytes]:
    """A name as Terraform gives it, and the bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, text in files.items():
            made.writestr(name.replace("__", "/") + ".py", text)
    data = buffer.getvalue()
    return f"tasks/big-report/{hashlib.sha256(data).hexdigest()}.zip", data


def fetch(cloud: Cloud, source: str) -> bytes:
    found: bytes = load.fetch(source, metadata=cloud.url, storage=cloud.url, pauses=(0.01, 0.01))
    return found


def test_the_planned_archive_is_fetched_with_the_jobs_own_token(cloud: Cloud) -> None:
    name, data = archive(main="x = 1\n")
    cloud.objects[name] = data
    assert fetch(cloud, f"gs://source-bucket/{name}") == data
    assert cloud.asked[1].startswith("/storage/v1/b/source-bucket/o/tasks%2Fbig-report%2F")


def test_an_archive_that_was_changed_is_not_run(cloud: Cloud) -> None:
    name, data = archive(main="x = 1\n")
    cloud.objects[name] = data + b"more"
    with pytest.raises(load.Wrong, match="changed after it was planned"):
        fetch(cloud, f"gs://source-bucket/{name}")


def test_a_missing_archive_is_named_and_not_asked_for_again(cloud: Cloud) -> None:
    name, _ = archive()
    with pytest.raises(load.Wrong, match="answered 404: is it there"):
        fetch(cloud, f"gs://source-bucket/{name}")
    assert len(cloud.asked) == 2


def test_a_network_that_is_still_starting_is_waited_for(cloud: Cloud) -> None:
    name, data = archive(main="x = 1\n")
    cloud.objects[name], cloud.failures = data, 2
    assert fetch(cloud, f"gs://source-bucket/{name}") == data


def test_a_network_that_stays_away_ends_it_in_words(cloud: Cloud) -> None:
    cloud.failures = 99
    with pytest.raises(load.Wrong, match="does not answer after 3 attempts: 503"):
        fetch(cloud, "gs://source-bucket/tasks/x/" + "0" * 64 + ".zip")


@pytest.mark.parametrize(
    "source", ["", "gs://b", "gs://b/tasks/x/latest.zip", "https://example.com/" + "0" * 64 + ".zip"]
)
def test_a_source_that_is_no_hash_is_refused(source: str) -> None:
    with pytest.raises(load.Wrong, match=r"expected gs://bucket/path/<sha256>\.zip"):
        load.fetch(source)


def test_the_command_runs_in_the_unpacked_archive(cloud: Cloud, tmp_path: Path) -> None:
    name, data = archive(shared__task="import sys, os; print(sys.argv[1:], os.path.exists('shared/task.py'))\n")
    cloud.objects[name] = data
    program = (
        f"import runpy, sys; sys.argv = ['load.py', sys.executable, '-m', 'shared.task', 'functions/big_report']\n"
        f"spec = runpy.run_path({str(LOAD)!r})\n"
        f"spec['fetch'].__kwdefaults__.update(metadata={cloud.url!r}, storage={cloud.url!r})\n"
        f"spec['main'](sys.argv[1:])\n"
    )
    env = {**os.environ, "KEEPER_SOURCE": f"gs://source-bucket/{name}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "['functions/big_report'] True\n"), done.stderr


def test_a_job_that_cannot_start_says_so_in_one_line_of_json() -> None:
    env = {k: v for k, v in os.environ.items() if k != "KEEPER_SOURCE"}
    done = subprocess.run(
        [sys.executable, LOAD, "true"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 78
    line = json.loads(done.stdout)
    assert line["severity"] == "ERROR"
    assert "KEEPER_SOURCE" in line["error"]
    assert done.stderr == ""
