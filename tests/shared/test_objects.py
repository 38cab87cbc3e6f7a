"""Objects in a folder and in gs://: one interface, the same promises."""

import gc
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from shared import objects
from shared.errors import ConfigurationError
from shared.laptop.objects import GcsServer, find_server
from shared.objects import Changed, Exists, Missing, Objects
from tests.parts import missing


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    program = find_server()
    if program is None:
        missing("fake-gcs-server", "make setup")
    folder = tmp_path_factory.mktemp("gcs")
    server = GcsServer(program, folder / "root", ["keeper-test"], folder=folder / "log")
    yield server
    server.stop()


@pytest.fixture
def bucket(gcs: GcsServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Objects:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    return objects.at(f"gs://keeper-test/{request.node.name}")


@pytest.fixture(params=["folder", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "gs":
        found: Objects = request.getfixturevalue("bucket")
        return found
    return objects.at(str(tmp_path / "objects"))


def put(place: Objects, name: str, content: bytes = b"content") -> None:
    with place.create(name) as stream:
        stream.write(content)


def test_what_was_written_is_read_back_whole(place: Objects) -> None:
    large = bytes(range(256)) * (80 << 10)  # more than two of the pieces it goes in
    put(place, "a/large.bin", large)
    with place.open("a/large.bin") as stream:
        assert (stream.read(7), stream.read()) == (large[:7], large[7:])
    assert place.stat("a/large.bin").size == len(large)


def test_an_empty_object_is_an_object(place: Objects) -> None:
    put(place, "empty", b"")
    with place.open("empty") as stream:
        assert stream.read(10) == b""


def test_half_an_upload_never_appears(place: Objects) -> None:
    class Broken(Exception):
        pass

    def break_off() -> None:
        with place.create("half") as stream:
            stream.write(b"x" * (20 << 20))
            raise Broken

    with pytest.raises(Broken):
        break_off()
    gc.collect()  # whoever collects an open stream closes it
    assert list(place.list()) == []
    put(place, "half", b"whole")
    with place.open("half") as found:
        assert found.read() == b"whole"


def test_an_object_under_way_is_not_there_yet(place: Objects) -> None:
    with place.create("slow") as stream:
        stream.write(b"x")
        assert list(place.list()) == []
        with pytest.raises(Missing):
            place.stat("slow")
    assert [o.name for o in place.list()] == ["slow"]


def test_the_list_is_in_order_below_a_prefix_and_after_a_name(place: Objects) -> None:
    for name in ("b/2", "b/10", "a/1", "b/1", "bb"):
        put(place, name)
    assert [o.name for o in place.list()] == ["a/1", "b/1", "b/10", "b/2", "bb"]
    assert [o.name for o in place.list("b/")] == ["b/1", "b/10", "b/2"]
    assert [o.name for o in place.list("b/", after="b/1")] == ["b/10", "b/2"]


def test_what_is_not_there_is_missing(place: Objects) -> None:
    put(place, "file")
    for ask in (place.open, place.stat):
        for name in ("none", "none/inside", "file/inside"):
            with pytest.raises(Missing):
                ask(name)
    with pytest.raises(Missing):
        place.delete("none", generation=1)
    with pytest.raises(Missing):
        place.copy("none", place, "target")
    assert [o.name for o in place.list()] == ["file"]


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a\0b"])
def test_a_name_that_leaves_its_place_is_refused(place: Objects, name: str) -> None:
    for ask in (place.open, place.stat, lambda n: place.delete(n, generation=1), lambda n: put(place, n)):
        with pytest.raises(ValueError, match="relative path"):
            ask(name)


def test_a_copy_to_another_kind_of_place_is_equal(bucket: Objects, tmp_path: Path) -> None:
    folder = objects.at(str(tmp_path / "copies"))
    put(folder, "one", b"1")
    folder.copy("one", bucket, "two")
    bucket.copy("two", bucket, "three")
    assert bucket.copy("three", folder, "four").size == 1
    with folder.open("four") as stream:
        assert stream.read() == b"1"


def test_a_delete_takes_the_generation_it_was_decided_on(tmp_path: Path) -> None:
    folder = objects.at(str(tmp_path))
    put(folder, "one")
    with pytest.raises(Changed):
        folder.delete("one", generation=folder.stat("one").generation + 1)
    folder.delete("one", generation=folder.stat("one").generation)
    assert list(folder.list()) == []


def test_a_folder_keeps_what_has_the_name(tmp_path: Path) -> None:
    folder = objects.at(str(tmp_path))
    put(folder, "one", b"first")
    with pytest.raises(Exists):
        put(folder, "one", b"second")
    with pytest.raises(Exists):
        folder.copy("one", folder, "one")
    with folder.open("one") as stream:
        assert stream.read() == b"first"


@pytest.mark.parametrize("location", ["s3://bucket/x", "gs://", "gs:///x"])
def test_a_location_of_another_kind_is_refused(location: str) -> None:
    with pytest.raises(ConfigurationError, match="expected gs://bucket/prefix"):
        objects.at(location)


# --- what no emulator checks: the requests, and the service's refusals (https://cloud.google.com/storage/docs/json_api)


class _Service(BaseHTTPRequestHandler):
    """Cloud Storage where every precondition fails: at the start of an upload, at its end, at copy and delete."""

    asked: list[str]
    refuse_start: bool

    def _answer(self, status: int, **headers: str) -> None:
        body = json.dumps({"error": {"code": status, "message": "no"}}).encode() if status >= 400 else b""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _read(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.asked.append(f"{self.command} {self.path}")

    def do_POST(self) -> None:
        self._read()
        if "uploadType=resumable" in self.path and not self.refuse_start:
            self._answer(200, Location=f"http://{self.headers['host']}/session")
        else:
            self._answer(412)

    def do_PUT(self) -> None:
        self._read()
        sent, _, total = self.headers["content-range"].removeprefix("bytes ").partition("/")
        if total == "*":
            self._answer(308, Range=f"bytes=0-{sent.split('-')[1]}")
        else:
            self._answer(412)

    def do_DELETE(self) -> None:
        self._read()
        self._answer(412)

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    handler = type("Handler", (_Service,), {"asked": [], "refuse_start": False})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("refuse_start", [True, False])
@pytest.mark.parametrize("size", [3, 20 << 20])
def test_the_services_refusal_of_a_name_that_exists_is_understood(refusing: Any, refuse_start: bool, size: int) -> None:
    refusing.refuse_start = refuse_start
    with pytest.raises(Exists):
        put(objects.at("gs://b/p"), "one", b"x" * size)
    assert refusing.asked[0] == "POST /upload/storage/v1/b/b/o?uploadType=resumable&ifGenerationMatch=0"


def test_a_copy_asks_for_a_name_that_is_free(refusing: Any) -> None:
    place = objects.at("gs://b/p")
    with pytest.raises(Exists):
        place.copy("one", place, "two")
    assert "ifGenerationMatch=0" in refusing.asked[0]


def test_a_delete_asks_for_its_generation(refusing: Any) -> None:
    with pytest.raises(Changed):
        objects.at("gs://b/p").delete("one", generation=42)
    (asked,) = refusing.asked
    assert asked.startswith("DELETE /storage/v1/b/b/o/p%2Fone?")
    assert "ifGenerationMatch=42" in asked
