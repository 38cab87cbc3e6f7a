"""A file is deleted as it was found, or not at all: links, races, writers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.storage import files
from shared.storage.files import File, Gone, InUse


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "logs" / "deep").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "app.log").write_text("precious")
    (tmp_path / "logs" / "deep" / "app.log").write_text("a line")
    return tmp_path / "logs"


def _only(root: Path) -> File:
    (found,) = files.walk(root, ("*.log",))
    return found


def test_a_file_is_found_and_deleted(root: Path) -> None:
    files.delete(root, _only(root))
    assert list(files.walk(root, ("*.log",))) == []


def test_a_file_that_became_a_link_is_gone(root: Path) -> None:
    found = _only(root)
    (root / "deep" / "app.log").unlink()
    (root / "deep" / "app.log").symlink_to(root.parent / "outside" / "app.log")
    with pytest.raises(Gone):
        files.delete(root, found)
    assert (root.parent / "outside" / "app.log").read_text() == "precious"


def test_a_folder_that_became_a_link_leads_nowhere(root: Path) -> None:
    found = _only(root)
    (root / "deep").rename(root / "moved")
    (root / "deep").symlink_to(root.parent / "outside")
    with pytest.raises(Gone):
        files.delete(root, found)
    assert (root.parent / "outside" / "app.log").read_text() == "precious"
    assert (root / "moved" / "app.log").exists()


def test_another_file_of_the_name_is_left(root: Path) -> None:
    found = _only(root)
    (root / "deep" / "new").write_text("another")
    os.replace(root / "deep" / "new", root / "deep" / "app.log")
    with pytest.raises(Gone):
        files.delete(root, found)
    assert (root / "deep" / "app.log").read_text() == "another"


def test_a_file_written_to_since_it_was_found_is_left(root: Path) -> None:
    found = _only(root)
    with (root / "deep" / "app.log").open("a") as writer:
        writer.write("more")
    with pytest.raises(InUse):
        files.delete(root, found)


def test_the_place_itself_may_be_a_link(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    files.delete(link, _only(link))
    assert not (root / "deep" / "app.log").exists()


def test_a_file_another_process_reads_is_in_use_also_by_what_proc_shows(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    file = str(root / "deep" / "app.log")
    with subprocess.Popen(
        [sys.executable, "-c", wait, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        with pytest.raises(InUse):
            files.delete(root, _only(root))

        def none(*_: object) -> None:
            raise OSError(22, "no leases here")

        with monkeypatch.context() as patched:
            patched.setattr("shared.storage.files.fcntl.fcntl", none)
            with pytest.raises(InUse):
                files.delete(root, _only(root))
        assert reader.stdin is not None
        reader.stdin.close()
    files.delete(root, _only(root))
