"""The site's own tests and build, as CI runs them: vitest on the packages of the lock file."""

import re
import shutil
from pathlib import Path

import pytest

from shared.manifest import ROOT
from tests import node


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy of hosting/ beside the tasks, so that two runs do not share a build."""
    copy = tmp_path / "hosting"
    shutil.copytree(ROOT / "hosting", copy, ignore=shutil.ignore_patterns("node_modules", "dist", ".*"))
    (copy / "node_modules").symlink_to(node.installed("hosting"))
    (tmp_path / "functions").symlink_to(ROOT / "functions")
    return copy


def test_vitest_passes(site: Path) -> None:
    ended = node.run("hosting", "vitest", "run", cwd=site)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"Tests +(1[1-9]|[2-9]\d) passed", ended.stdout), "fewer tests than there were"


def test_vitest_would_fail(site: Path) -> None:
    timetable = site / "src" / "timetable.js"
    text = timetable.read_text(encoding="utf-8")
    timetable.write_text(text.replace('"<": "&lt;"', '"<": "<"'), encoding="utf-8")

    ended = node.run("hosting", "vitest", "run", cwd=site)

    assert ended.returncode == 1
    assert "shows a summary as text" in ended.stdout
