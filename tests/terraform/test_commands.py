"""The real terraform on the files as they are: format, validity, its own tests."""

from collections.abc import Mapping

import pytest

from tests.terraform.conftest import Scratch
from tests.terraform.workspace import ROOT, TERRAFORM, Plan, Workspace


def test_files_are_in_terraforms_format(terraform_env: Mapping[str, str]) -> None:
    Workspace(ROOT, terraform_env).run("fmt", "-check", "-diff", "-recursive")


def test_the_plane_and_its_bootstrap_are_valid(real: Plan, bootstrap: Plan, terraform_env: Mapping[str, str]) -> None:
    Workspace(real.folder, terraform_env).run("validate", "-no-color")
    Workspace(bootstrap.folder, terraform_env, "terraform/bootstrap").run("validate", "-no-color")


@pytest.mark.parametrize("module", [pytest.param("terraform", marks=pytest.mark.full), "terraform/bootstrap"])
def test_terraforms_own_tests_pass(module: str, scratch: Scratch) -> None:
    done = scratch(module=module).run("test", "-no-color")
    assert " 0 failed" in done.stdout


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
