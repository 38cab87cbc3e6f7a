"""`requires` and the core's list name exactly what is imported; what a laptop or a test needs is never deployed."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from shared.manifest import ROOT, Task, load_all
from tests.house.source import EDGES, SHARED, core, imports

# Imported by the core only when a task declares the thing, so the task's own `requires` names them.
ON_DECLARATION = {
    "google-cloud-storage": "buckets",
    "google-cloud-secret-manager": "secrets",
    "google-cloud-run": "starts",
}
# Imported by this module of the core only, so those that import it name it.
ON_IMPORT = {"firebase-admin": "shared.identity"}
_GOOGLE = {
    "google.auth": "google-auth",
    "google.oauth2": "google-auth",
    "google.cloud.storage": "google-cloud-storage",
    "google.cloud.secretmanager_v1": "google-cloud-secret-manager",
    "google.cloud.run_v2": "google-cloud-run",
    "google.cloud.scheduler_v1": "google-cloud-scheduler",
    "google.cloud.pubsub_v1": "google-cloud-pubsub",
    "google.pubsub_v1": "google-cloud-pubsub",
    "google.cloud.kms_v1": "google-cloud-kms",
    "google.api_core": "",  # comes with every client
}


def normal(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(files: list[Path]) -> set[str]:
    """The packages that `files` import, lazily too; standard library and our own left out."""
    known, found = packages_distributions(), set()
    for name in {n for file in files for n in imports(file)}:
        top = name.split(".")[0]
        if top == "google":
            found.add(next((d for prefix, d in _GOOGLE.items() if name.startswith(prefix)), f"unknown {name}"))
        elif top not in sys.stdlib_module_names and top not in ("shared", "functions", "tests"):
            found |= {normal(d) for d in known.get(top, [f"unknown {top}"])[:1]}
    return found - {""}


CORE = set(yaml.safe_load((SHARED / "core.yaml").read_text())["requires"])
# pg8000 is named in a URL only; flask comes with functions-framework, whose request and response are its.
BY_NAME_ONLY = {"pg8000", "functions-framework"}


def test_the_core_imports_exactly_what_core_yaml_names() -> None:
    found = distributions(core()) - set(ON_DECLARATION) - set(ON_IMPORT) - {"flask"}
    assert found | BY_NAME_ONLY == CORE


@pytest.mark.parametrize("task", load_all().values(), ids=lambda t: t.name)
def test_requires_names_exactly_what_a_task_and_its_rooms_import(task: Task) -> None:
    files = [*task.folder.glob("*.py"), *(f for room in task.uses for f in (SHARED / room).rglob("*.py"))]
    declared = {package for package, key in ON_DECLARATION.items() if getattr(task, key)}
    imported = [f"{name}." for file in files for name in imports(file)]
    declared |= {p for p, module in ON_IMPORT.items() if any(name.startswith(f"{module}.") for name in imported)}
    assert distributions(files) - CORE - {"flask"} | declared == set(task.requires)


def _project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _direct(lines: list[str]) -> set[str]:
    return {normal(re.split(r"[\[<>=~! ;]", line)[0]) for line in lines}


def test_every_required_package_is_pinned_once() -> None:
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line]
    names = [normal(line.split("==")[0]) for line in pins]
    assert all("==" in line for line in pins)
    assert len(names) == len(set(names))
    needed = CORE.union(*(t.requires for t in load_all().values())) - {"torch"}
    assert needed <= set(names)


def test_a_package_pinned_in_two_files_has_one_version() -> None:
    pins: dict[str, str] = {}
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in filter(None, (ROOT / file).read_text().splitlines()):
            name, version = line.split("==", 1)
            assert pins.setdefault(normal(name), version.split(" ")[0]) == version.split(" ")[0]


def test_no_deployed_source_imports_a_package_of_the_laptop_or_the_tests() -> None:
    groups = _project()["dependency-groups"]
    local = _direct([*groups["laptop"], *groups["dev"], *groups["bench"]])
    local -= _direct(_project()["project"]["dependencies"])
    deployed = [
        *core(),
        *(ROOT / "functions").rglob("*.py"),
        *(f for p in SHARED.iterdir() if p.is_dir() and p.name not in EDGES for f in p.rglob("*.py")),
    ]
    assert not distributions(deployed) & local


def test_only_training_imports_torch() -> None:
    for file in (*SHARED.rglob("*.py"), *(ROOT / "functions").rglob("*.py")):
        if any(name.split(".")[0] == "torch" for name in imports(file)):
            assert "models" in file.parts or "train_all_models" in file.parts, f"{file} imports torch"
