"""Who keeps what: Dependabot GitHub Actions and Terraform, Renovate Python and npm, nothing twice, nothing left out."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shared.manifest import ROOT
from tests import node
from tests.github.repository import GITHUB, read

# Which manager of Renovate stands for which ecosystem of Dependabot.
ECOSYSTEM_OF = {"npm": "npm", "pep621": "pip", "pip_requirements": "pip"}


def _tracked(*patterns: str) -> list[str]:
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(found.stdout.split())


def _dependabot() -> dict[str, list[str]]:
    updates = read(GITHUB / "dependabot.yml")["updates"]
    return {update["package-ecosystem"]: update["directories"] for update in updates}


def _renovate() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "renovate.json").read_text(encoding="utf-8"))
    return document


def test_dependabot_keeps_actions_and_terraform_only() -> None:
    assert set(_dependabot()) == {"github-actions", "terraform"}


def test_renovate_keeps_python_and_npm_only() -> None:
    assert set(_renovate()["enabledManagers"]) == set(ECOSYSTEM_OF)


def test_nothing_is_kept_twice() -> None:
    assert not set(_dependabot()) & {ECOSYSTEM_OF[manager] for manager in _renovate()["enabledManagers"]}


def test_dependabot_sees_every_folder_with_actions_or_providers() -> None:
    folders = _dependabot()

    assert folders["github-actions"] == ["/", "/.github/actions/*"]
    with_providers = {
        f"/{Path(file).parent}"
        for file in _tracked("*.tf")
        if "required_providers" in (ROOT / file).read_text(encoding="utf-8")
    }
    assert set(folders["terraform"]) == with_providers


def test_a_new_release_waits_a_week() -> None:
    assert _renovate()["minimumReleaseAge"] == "7 days"
    assert _renovate()["internalChecksFilter"] == "strict", "else a branch is made before the week is over"
    for update in read(GITHUB / "dependabot.yml")["updates"]:
        assert update["cooldown"] == {"default-days": "7"}


def test_nothing_merges_itself() -> None:
    assert "automerge" not in json.dumps(_renovate()).lower()


def test_every_npm_folder_is_audited() -> None:
    audited = read(GITHUB / "workflows" / "30-60-90-automation.yml")["jobs"]["npm-audit"]["strategy"]["matrix"][
        "folder"
    ]
    locked = [str(Path(file).parent) for file in _tracked("*package.json", "**/package.json")]

    assert sorted(audited) == locked


@pytest.mark.full
def test_renovate_accepts_its_configuration() -> None:
    ended = node.run(".github/tools/renovate", "renovate-config-validator", "--strict", "renovate.json")

    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.full
def test_renovate_refuses_a_configuration_with_a_typo(tmp_path: Path) -> None:
    broken = tmp_path / "renovate.json"
    broken.write_text(json.dumps(_renovate() | {"enabledManager": ["npm"]}), encoding="utf-8")

    assert node.run(".github/tools/renovate", "renovate-config-validator", "--strict", str(broken)).returncode != 0


@pytest.mark.full
def test_renovate_finds_every_pin_and_nothing_else(tmp_path: Path) -> None:
    """Renovate itself, on a copy of the files, with no platform and no network."""
    files = _tracked(
        "renovate.json",
        "pyproject.toml",
        "*requirements*.txt",
        "*package.json",
        "*package-lock.json",
        "*.tf",
        "*Dockerfile",
        ".github/workflows/*",
        ".github/actions/*",
    )
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run([*git, "add", "--all"], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "files"], cwd=tmp_path, check=True)

    program = node.installed(".github/tools/renovate") / ".bin" / "renovate"
    ended = subprocess.run(
        [program, "--platform=local", "--dry-run=extract"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "LOG_LEVEL": "debug",
            "LOG_FORMAT": "json",
            "RENOVATE_BASE_DIR": str(tmp_path / ".cache"),
        },
    )

    assert ended.returncode == 0, ended.stderr
    found = next(
        entry["packageFiles"]
        for line in ended.stdout.splitlines()
        if (entry := json.loads(line))["msg"] == "Extracted dependencies"
    )
    kept = {
        (package_file["packageFile"], dep["depName"].lower())
        for package_files in found.values()
        for package_file in package_files
        for dep in package_file["deps"]
        if "skipReason" not in dep
    }
    wanted = (
        {
            (file, match[1].lower())
            for file in files
            if file.endswith(".txt")
            for match in re.finditer(r"^([\w.-]+)==", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        }
        | {
            (file, name)
            for file in files
            if file.endswith("package.json")
            for kind, names in json.loads((ROOT / file).read_text(encoding="utf-8")).items()
            if "ependencies" in kind
            for name in names
        }
        | {("pyproject.toml", "torch")}
    )
    assert set(found) == set(ECOSYSTEM_OF)
    assert not wanted - kept
    assert {file for file, _ in kept} == {file for file, _ in wanted}
