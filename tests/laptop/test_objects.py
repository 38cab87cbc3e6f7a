"""The laptop's object stores behind the product's one interface, and what fake-gcs-server does not heed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import objects
from shared.laptop.objects import GcsServer, find_server, folders
from tests.parts import missing


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    program = find_server()
    if program is None:
        missing("fake-gcs-server", "make setup")
    folder = tmp_path_factory.mktemp("gcs")
    started = GcsServer(program, folder / "root", ["archive"], folder=folder)
    yield started
    started.stop()


@pytest.fixture(params=["folder", "gcs"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> objects.Objects:
    if request.param == "folder":
        return objects.at(folders(tmp_path, ["archive"])["KEEPER_BUCKET_ARCHIVE"])
    variables = request.getfixturevalue("server").environment
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", variables["STORAGE_EMULATOR_HOST"])
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "demo-groundskeeper")
    return objects.at(f"{variables['KEEPER_BUCKET_ARCHIVE']}/{tmp_path.name}")


def _put(store: objects.Objects, name: str, data: bytes) -> None:
    with store.create(name) as stream:
        stream.write(data)


def test_what_is_created_is_listed_in_order_read_copied_and_deleted(store: objects.Objects) -> None:
    _put(store, "b/2.txt", b"two")
    _put(store, "a/1.txt", b"one")
    assert [(s.name, s.size) for s in store.list()] == [("a/1.txt", 3), ("b/2.txt", 3)]
    assert [s.name for s in store.list("b/")] == ["b/2.txt"]
    assert [s.name for s in store.list(after="a/1.txt")] == ["b/2.txt"]
    with store.open("a/1.txt") as stream:
        assert stream.read() == b"one"
    store.copy("a/1.txt", store, "c/3.txt")
    store.delete("a/1.txt", generation=store.stat("a/1.txt").generation)
    assert [s.name for s in store.list()] == ["b/2.txt", "c/3.txt"]
    with pytest.raises(objects.Missing):
        store.stat("a/1.txt")


def test_a_folder_never_replaces_an_object_and_fake_gcs_server_does(store: objects.Objects) -> None:
    """Why folders are the plane's default. When the server learns it, this fails, and the default may change."""
    _put(store, "kept.txt", b"first")
    if isinstance(store, objects.at(".").__class__):
        with pytest.raises(objects.Exists):
            _put(store, "kept.txt", b"second")
    else:
        _put(store, "kept.txt", b"second")
    generation = store.stat("kept.txt").generation
    if isinstance(store, objects.at(".").__class__):
        with pytest.raises(objects.Changed):
            store.delete("kept.txt", generation=generation + 1)
    else:
        store.delete("kept.txt", generation=generation + 1)


def test_objects_outlive_the_server(server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "demo-groundskeeper")
    program = find_server()
    assert program
    for write in (True, False):
        again = GcsServer(program, tmp_path / "root", ["archive"], folder=tmp_path)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", again.url)
        store = objects.at("gs://archive")
        if write:
            _put(store, "kept.txt", b"kept")
        else:
            assert store.open("kept.txt").read() == b"kept"
        again.stop()
