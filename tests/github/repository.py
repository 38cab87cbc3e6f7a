"""What GitHub reads of this repository, as data: workflows, composite actions, jobs and steps."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from shared.manifest import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = {file.stem: file for file in sorted((GITHUB / "workflows").glob("*.yml"))}
ACTIONS = {file.parent.name: file for file in sorted((GITHUB / "actions").glob("*/action.yml"))}

_USES = re.compile(r"^\s*(?:- )?uses: (?P<action>[^@\s]+)(?:@(?P<commit>\S+))?(?:\s+# (?P<tag>\S+))?\s*$", re.MULTILINE)
_ROW = re.compile(r"^\| (?P<action>\S+/\S+) \| (?P<tag>\S+) \| (?P<commit>[0-9a-f]{40}) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """One job of a workflow. Every scalar of `spec` is text, as written."""

    workflow: str
    name: str
    spec: dict[str, Any]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Its steps; none where it calls another workflow."""
        steps: list[dict[str, Any]] = self.spec.get("steps", [])
        return steps

    def __str__(self) -> str:
        return f"{self.workflow}.{self.name}"


@cache
def read(file: Path) -> dict[str, Any]:
    """A YAML file with every scalar as text: `on` stays a key, `true` the word somebody wrote."""
    document: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    return document


def workflow(name: str) -> dict[str, Any]:
    """The workflow of .github/workflows/`name`.yml."""
    return read(WORKFLOWS[name])


def jobs() -> list[Job]:
    """Every job of every workflow."""
    return [Job(name, job, spec) for name in WORKFLOWS for job, spec in workflow(name)["jobs"].items()]


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, step) of every job and composite action."""
    for job in jobs():
        yield from ((str(job), step) for step in job.steps)
    for name, file in ACTIONS.items():
        yield from ((f"actions/{name}", step) for step in read(file)["runs"]["steps"])


def uses(file: Path) -> list[tuple[str, str | None, str | None]]:
    """(action, commit, tag in the comment) of every `uses` line of a file."""
    return [(m["action"], m["commit"], m["tag"]) for m in _USES.finditer(file.read_text(encoding="utf-8"))]


def known_actions() -> dict[str, set[tuple[str, str]]]:
    """Owner/name -> {(commit, tag)} of actions.md."""
    known: dict[str, set[tuple[str, str]]] = {}
    for row in _ROW.finditer((Path(__file__).parent / "actions.md").read_text(encoding="utf-8")):
        known.setdefault(row["action"], set()).add((row["commit"], row["tag"]))
    return known
