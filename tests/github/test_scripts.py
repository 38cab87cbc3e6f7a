"""The scripts of the workflows: an approval holds for one plan, and images are built when their source changed."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.github.repository import GITHUB
from tests.parts import missing

PLAN_DIGEST = GITHUB / "scripts" / "plan_digest.sh"
IMAGES = GITHUB / "scripts" / "images.sh"


def _needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            missing(program, f"install {program}")


def _digest(plan: str) -> dict[str, str]:
    _needs("jq", "bash")
    ended = subprocess.run([PLAN_DIGEST], input=plan, capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in ended.stdout.splitlines())


@pytest.fixture
def plan(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Plan a configuration with the real terraform, in one state; apply it when told to."""
    _needs("terraform")

    def terraform(*arguments: str) -> str:
        return subprocess.run(
            ["terraform", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"},
        ).stdout

    def planned(configuration: str, *, applied: bool = False) -> dict[str, str]:
        (tmp_path / "main.tf").write_text(configuration, encoding="utf-8")
        terraform("init", "-input=false")
        terraform("plan", "-input=false", "-out=plan.tfplan")
        digest = _digest(terraform("show", "-json", "plan.tfplan"))
        if applied:
            terraform("apply", "-input=false", "plan.tfplan")
        return digest

    return planned


def _configuration(value: str) -> str:
    return f'resource "terraform_data" "a" {{\n  input = "{value}"\n}}\n'


def test_the_same_plan_made_again_has_the_same_digest(plan: Callable[[str], dict[str, str]]) -> None:
    first, again = plan(_configuration("one")), plan(_configuration("one"))

    assert first == again
    assert first["changes"] == "1"
    assert re.fullmatch("[0-9a-f]{64}", first["digest"])


def test_another_value_or_another_past_is_another_plan(plan: Callable[..., dict[str, str]]) -> None:
    created = plan(_configuration("one"))
    other = plan(_configuration("two"))
    plan(_configuration("one"), applied=True)
    updated = plan(_configuration("two"))

    assert len({created["digest"], other["digest"], updated["digest"]}) == 3


def test_a_plan_that_changes_nothing_says_so(plan: Callable[..., dict[str, str]]) -> None:
    plan(_configuration("one"), applied=True)

    assert plan(_configuration("one"))["changes"] == "0"


def test_a_changed_output_counts(plan: Callable[..., dict[str, str]]) -> None:
    plan(_configuration("one"), applied=True)

    assert plan(_configuration("one") + 'output "x" {\n  value = 1\n}\n')["changes"] == "1"


def _update(image: str) -> str:
    change = {"actions": ["update"], "before": {"image": "r/base@sha256:" + "a" * 64}, "after": {"image": image}}
    return json.dumps({"resource_changes": [{"address": "job.x", "mode": "managed", "change": change}]})


def test_the_bytes_an_image_is_built_to_after_the_approval_do_not_count() -> None:
    assert _digest(_update("r/base@sha256:" + "0" * 64)) == _digest(_update("r/base@sha256:" + "b" * 64))


def test_another_image_does_count() -> None:
    assert _digest(_update("r/base@sha256:" + "b" * 64)) != _digest(_update("r/torch@sha256:" + "b" * 64))


def test_a_value_is_never_shown() -> None:
    assert "r/base" not in str(_digest(_update("r/base@sha256:" + "b" * 64)))


# Stands in for Google's command: what is built is a file in $STATE, a build writes it, a digest is b…b.
_GCLOUD = """#!/usr/bin/env bash
echo "$*" >> "$STATE/calls"
case "$*" in
  *"images list"*) [ -e "$STATE/denied" ] && exit 1; [ ! -e "$STATE/built" ] || printf 'x\\nx\\nx\\nx\\n' ;;
  *"images describe"*) [ -e "$STATE/built" ] || exit 1; printf 'sha256:'; printf 'b%.0s' {1..64} ;;
  *"builds submit"*) echo "building"; touch "$STATE/built" ;;
esac
"""


@pytest.fixture
def images(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    _needs("jq", "git")
    stand_in = tmp_path / "bin" / "gcloud"
    stand_in.parent.mkdir()
    stand_in.write_text(_GCLOUD, encoding="utf-8")
    stand_in.chmod(0o755)

    def call(mode: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}", "STATE": str(tmp_path)}
        return subprocess.run(
            [IMAGES, mode, "demo-project", "europe-west1"], env=environment, capture_output=True, text=True, check=False
        )

    return call


TARGETS = {"base", "postgres", "torch", "lighthouse"}


def _images(ended: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert ended.returncode == 0, ended.stderr
    found: dict[str, str] = json.loads(ended.stdout)["images"]
    assert set(found) == TARGETS
    for target, image in found.items():
        assert re.fullmatch(rf"europe-west1-docker\.pkg\.dev/demo-project/keeper/{target}@sha256:[0b]{{64}}", image)
    return found


def test_looking_at_images_that_are_not_built_builds_nothing(
    images: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert _images(images("look"))["base"].endswith("0" * 64)
    assert "builds submit" not in (tmp_path / "calls").read_text(encoding="utf-8")


def test_images_are_built_once_for_one_source(
    images: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    first, again = _images(images("build")), _images(images("build"))

    assert first == again == _images(images("look"))
    assert first["torch"].endswith("b" * 64)
    calls = (tmp_path / "calls").read_text(encoding="utf-8")
    assert calls.count("builds submit") == 1
    assert re.search(r"--substitutions _REGION=europe-west1,_TAG=[0-9a-f]{12} \.", calls)


def test_a_refusal_is_not_taken_for_a_missing_image(
    images: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "denied").touch()

    for mode in ("look", "build"):
        assert images(mode).returncode != 0
    assert "builds submit" not in (tmp_path / "calls").read_text(encoding="utf-8")
