"""The real terraform on the files as they are: format, validity, its own tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.terraform.conftest import EVERYTHING, Scratch
from tests.terraform.workspace import BASIC, BOOTSTRAP, FIXTURES, ROOT, TERRAFORM, Plan, Workspace


def test_files_are_in_terraforms_format(terraform_env: Mapping[str, str]) -> None:
    Workspace(ROOT, terraform_env).run("fmt", "-check", "-diff", "-recursive")


def test_the_plane_and_its_bootstrap_are_valid(real: Plan, bootstrap: Plan, terraform_env: Mapping[str, str]) -> None:
    Workspace(real.folder, terraform_env).run("validate", "-no-color")
    Workspace(bootstrap.folder, terraform_env, "terraform/bootstrap").run("validate", "-no-color")


@pytest.mark.parametrize("module", [pytest.param("terraform", marks=pytest.mark.full), "terraform/bootstrap"])
def test_terraforms_own_tests_pass(module: str, scratch: Scratch) -> None:
    done = scratch(FIXTURES, module).run("test", "-no-color")
    assert " 0 failed" in done.stdout


@pytest.mark.parametrize(
    ("functions", "module", "variables"),
    [
        pytest.param(None, "terraform", BASIC, id="real", marks=pytest.mark.soak),
        pytest.param(FIXTURES, "terraform", EVERYTHING, id="fixtures", marks=pytest.mark.full),
        pytest.param(None, "terraform/bootstrap", BOOTSTRAP, id="bootstrap"),
    ],
)
def test_a_second_plan_changes_nothing(
    functions: Path | None, module: str, variables: Mapping[str, Any], scratch: Scratch
) -> None:
    made = scratch(functions, module)
    if "TF_CLI_CONFIG_FILE" not in made.env:
        pytest.skip("not run: applying needs the offline mirror's stand-in provider")
    made.plan(variables)
    made.run("apply", "-input=false", "-no-color", "plan.bin")
    assert "No changes." in made.plan(variables).stdout


def test_no_module_or_provider_is_taken_from_elsewhere() -> None:
    for file in TERRAFORM.rglob("*.tf"):
        text = file.read_text()
        for line in text.splitlines():
            if line.strip().startswith("source ") and "=" in line and "hashicorp/" not in line:
                assert '"./catalog"' in line or "archive_file" in line, f"{file.name}: {line}"


def test_nothing_is_looked_up_while_planning() -> None:
    """A data source reads the world: a plan would then depend on more than the repository and the state."""
    for file in TERRAFORM.rglob("*.tf"):
        for line in file.read_text().splitlines():
            if line.startswith("data "):
                assert line.startswith('data "archive_file"'), f"{file.name}: {line}"
