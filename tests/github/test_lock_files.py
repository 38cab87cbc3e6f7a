"""Pins without a registry's address: docs/decisions/0004-lock-files.md."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from shared.manifest import ROOT


def _tracked(*patterns: str) -> list[Path]:
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in found.stdout.split()]


PACKAGES = [file.parent for file in _tracked("*package.json", "**/package.json")]
REQUIREMENTS = _tracked("*requirements*.txt", "**/requirements*.txt")


def test_there_is_something_to_hold_this_law_over() -> None:
    assert len(PACKAGES) >= 5
    assert len(REQUIREMENTS) >= 4


def test_no_lock_file_that_records_its_registry_is_kept() -> None:
    assert not _tracked("uv.lock", "**/uv.lock", "poetry.lock", "yarn.lock", "pnpm-lock.yaml")


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_an_npm_lock_file_names_no_address_but_every_hash(folder: Path) -> None:
    lock = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))

    assert "omit-lockfile-registry-resolved=true" in (folder / ".npmrc").read_text(encoding="utf-8").splitlines()
    packages = {path: entry for path, entry in lock["packages"].items() if path}
    assert packages
    for path, entry in packages.items():
        assert "resolved" not in entry, path
        assert entry["integrity"].startswith("sha512-"), path
        assert "extraneous" not in entry, path


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_an_npm_package_is_pinned_exactly_and_the_lock_file_agrees(folder: Path) -> None:
    package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]

    assert package["private"] is True
    for kind in ("dependencies", "devDependencies"):
        assert package.get(kind, {}) == lock[""].get(kind, {})
        for name, version in package.get(kind, {}).items():
            assert lock[f"node_modules/{name}"]["version"] == version


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_no_package_is_asked_for_by_a_tag_that_a_lock_file_without_addresses_cannot_hold(folder: Path) -> None:
    package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]

    for path, entry in lock.items():
        asked = (
            entry.get("dependencies", {}) | entry.get("peerDependencies", {}) | entry.get("optionalDependencies", {})
        )
        by_tag = {name for name, wish in asked.items() if re.fullmatch(r"[a-z]+", wish)}
        assert by_tag <= set(package.get("overrides", {})), path


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_python_requirement_is_pinned_exactly(file: Path) -> None:
    for line in file.read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.!+-]+( ; .+)?|#.*|", line), line


def test_ci_s_own_tools_are_compiled_from_what_they_ask_for() -> None:
    for source in _tracked(".github/tools/*/requirements.in"):
        pinned = {
            line.partition("==")[0] for line in source.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
        }
        assert {line.replace("_", "-") for line in source.read_text(encoding="utf-8").split()} <= pinned
