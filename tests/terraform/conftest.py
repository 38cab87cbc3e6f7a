"""Plans made once for the whole test run, whichever worker asks first."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.manifest import Task, load_all
from tests.terraform import workspace
from tests.terraform.workspace import BASIC, BOOTSTRAP, FIXTURES, ROOT, Plan, Workspace, copy, turn

# every branch the real tasks may not take yet; a database, network and budget of its own
EVERYTHING: dict[str, Any] = {
    **{k: v for k, v in BASIC.items() if k not in ("database", "network")},
    "billing": {"account": "012345-678901-ABCDEF"},
    "callers": {"inner_api": ["serviceAccount:app@demo-project.iam.gserviceaccount.com"]},
    "modes": {"night_count": "enforce"},
    "parameters": {"S3_RETENTION_DAYS": "60"},
    "paused": "moving house",
    "platform_buckets": {"mockups": "the-platforms-own"},
}


@pytest.fixture(scope="session")
def terraform_env() -> Mapping[str, str]:
    return workspace.environment(ROOT / ".cache" / "terraform")


@pytest.fixture(scope="session")
def shared_tmp(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """One folder for all workers of this test run."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


def _planned(
    shared_tmp: Path,
    name: str,
    env: Mapping[str, str],
    variables: Mapping[str, Any],
    functions: Path | None,
    module: str = "terraform",
) -> Plan:
    # the sweep judges its mutants by these very laws
    folder = Path(os.environ.get(f"MUTANT_{name.upper()}") or shared_tmp / f"plan-{name}")
    done = folder / "done.json"
    with turn(shared_tmp / f"plan-{name}.lock"):
        if not done.is_file():
            made = copy(folder, env, functions=functions, module=module)
            made.init()
            made.plan(variables)
            done.write_text(json.dumps(made.show()))
    return Plan(json.loads(done.read_text()), folder, folder / "functions")


@pytest.fixture(scope="session")
def real(shared_tmp: Path, terraform_env: Mapping[str, str]) -> Plan:
    """The plan of the repository's own tasks, on a database and network that are there."""
    if "MUTANT_TERRAFORM" in os.environ:
        pytest.skip("not run: the sweep judges its mutants by the throwaway tasks")
    return _planned(shared_tmp, "real", terraform_env, BASIC, None)


@pytest.fixture(scope="session")
def fixtures(shared_tmp: Path, terraform_env: Mapping[str, str]) -> Plan:
    """The plan of one throwaway task of each kind, with everything created."""
    return _planned(shared_tmp, "fixtures", terraform_env, EVERYTHING, FIXTURES)


@pytest.fixture(scope="session")
def bootstrap(shared_tmp: Path, terraform_env: Mapping[str, str]) -> Plan:
    """The plan of what comes before the plane."""
    return _planned(shared_tmp, "bootstrap", terraform_env, BOOTSTRAP, None, "terraform/bootstrap")


@pytest.fixture(scope="session", params=["real", "fixtures"])
def plan(request: pytest.FixtureRequest) -> Plan:
    """Each plan of the plane in turn: a law holds for both."""
    found: Plan = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def tasks(plan: Plan) -> dict[str, Task]:
    """The tasks of the plan, as Python reads them."""
    return load_all(plan.functions)


Scratch = Callable[..., Workspace]


@pytest.fixture
def scratch(tmp_path: Path, terraform_env: Mapping[str, str]) -> Scratch:
    """A workspace of a test's own."""

    def make(functions: Path | None = None, module: str = "terraform") -> Workspace:
        made = copy(tmp_path / "work", terraform_env, functions=functions, module=module)
        made.init()
        return made

    return make
