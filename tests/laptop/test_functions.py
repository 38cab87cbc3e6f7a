"""Functions behind one address: each sees what it would see in the cloud, and none sees its neighbour."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from shared.laptop.functions import Functions, Isolated, OneProcess, path_pattern
from shared.manifest import load_all

_MANIFEST = """\
summary: A function of the tests.
owner: tests
triggers: [{{http: {{path: "{path}", methods: [GET, POST], auth: service}}}}]
run: {{kind: function, memory_mb: 256, cpu: 1, timeout_s: 60, max_instances: 1, concurrency: {room}}}
uses: []
requires: []
tables: {{}}
"""

_MAIN = """\
import threading
import flask

NAME = {name!r}
waiting = threading.Barrier({room})


def main(request):
    if request.path == "/together":
        waiting.wait(20)
    if request.path == "/moved":
        return flask.redirect("/elsewhere")
    return {{"name": NAME, "path": request.path, "query": request.args, "root": request.script_root,
             "body": request.get_data(as_text=True), "method": request.method}}
"""


def _write(functions: Path, name: str, path: str, room: int = 4) -> None:
    folder = functions / name
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text(_MANIFEST.format(path=path, room=room))
    (folder / "main.py").write_text(_MAIN.format(name=name, room=room))


@pytest.fixture(scope="module", params=["one process", "isolated"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Functions]:
    tmp_path = tmp_path_factory.mktemp("plane")
    _write(tmp_path / "functions", "first_one", "/api/v1/things/{id}")
    _write(tmp_path / "functions", "second_one", "/api/v1/things/special")
    functions = Functions()
    functions.serve(
        load_all(tmp_path / "functions"),
        OneProcess() if request.param == "one process" else Isolated(dict(os.environ), tmp_path / "log"),
    )
    yield functions
    functions.stop()


def test_a_function_sees_its_own_path_its_body_and_its_query(served: Functions) -> None:
    answer = requests.post(f"{served.base}/first-one/deep/er?a=1", data=b"raw", timeout=20, allow_redirects=False)
    seen = answer.json()
    assert (answer.status_code, seen["name"], seen["path"], seen["body"]) == (200, "first_one", "/deep/er", "raw")
    assert seen["query"] == {"a": "1"}


def test_the_bare_address_of_a_function_is_not_a_redirect(served: Functions) -> None:
    for address in ("/second-one", "/second-one/"):
        answer = requests.post(f"{served.base}{address}", data=b"{}", timeout=20, allow_redirects=False)
        assert (answer.status_code, answer.json()["path"]) == (200, "/")


def test_a_redirect_of_a_function_reaches_the_caller(served: Functions) -> None:
    answer = requests.get(f"{served.base}/first-one/moved", timeout=20, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"].endswith("/elsewhere")) == (302, True)


def test_an_endpoint_keeps_its_whole_path_and_the_exact_one_wins(served: Functions) -> None:
    for path, name in (("/api/v1/things/7", "first_one"), ("/api/v1/things/special", "second_one")):
        seen = requests.get(f"{served.base}{path}", timeout=20).json()
        assert (seen["name"], seen["path"]) == (name, path)


def test_what_nobody_serves_is_not_found_and_the_root_lists_all(served: Functions) -> None:
    assert requests.get(f"{served.base}/api/v1/things", timeout=20).status_code == 404
    listed = requests.get(served.base, timeout=20).json()
    assert listed == {"/first-one": "A function of the tests.", "/second-one": "A function of the tests."}


def test_requests_are_served_at_the_same_time(served: Functions) -> None:
    statuses: list[int] = []

    def call() -> None:
        statuses.append(requests.get(f"{served.base}/first-one/together", timeout=30).status_code)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert statuses == [200, 200, 200, 200]


def test_no_source_is_left_behind_as_the_module_main(tmp_path: Path) -> None:
    _write(tmp_path / "functions", "first_one", "/one")
    path, before = list(sys.path), sys.modules.get("main")
    OneProcess().app(load_all(tmp_path / "functions")["first_one"])
    assert sys.path == path
    assert sys.modules.get("main") is before


def test_a_taken_port_is_replaced() -> None:
    one = Functions()
    two = Functions(port=one.port)
    assert one.port != two.port
    one.stop()
    two.stop()


@pytest.mark.parametrize(
    ("path", "meant", "not_meant"),
    [
        ("/a/b", ["/a/b"], ["/a/b/", "/a/bc", "/a"]),
        ("/a/{id}", ["/a/1", "/a/x-y"], ["/a/", "/a/1/2"]),
        ("/a/*", ["/a/1", "/a/"], ["/a/1/2"]),
        ("/a/**", ["/a/1", "/a/1/2"], ["/b"]),
        ("/a.b", ["/a.b"], ["/axb"]),
    ],
)
def test_a_path_means_what_hosting_would_route(path: str, meant: list[str], not_meant: list[str]) -> None:
    matches: Callable[[str], bool] = lambda found: path_pattern(path).fullmatch(found) is not None  # noqa: E731
    assert all(map(matches, meant))
    assert not any(map(matches, not_meant))
