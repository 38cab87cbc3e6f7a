"""A sweep over the .tf files: in each, a typo or a block removed must be caught by init, validate, plan or the laws.

Printed as a table. What is planted: every top-level resource removed; every argument's name misspelt; every nested
block removed. What still plans is judged by the laws themselves, run on the mutant's plan.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.terraform.conftest import EVERYTHING
from tests.terraform.workspace import BOOTSTRAP, FIXTURES, ROOT, TERRAFORM, Workspace, copy

pytestmark = [pytest.mark.soak, pytest.mark.timeout(5000)]

PLAN_LAWS = ("identity", "schedules", "storage", "deployed")
# what only refuses shows in no plan: these are asked by terraform's own tests and by spoiled declarations
REFUSALS = ("commands", "catalog")
REFUSING = re.compile(r"^(catalog/.*|catalog|variables|bootstrap/variables)(\.tf)?$")

# Nothing tells these from what they should be: what they say is for people, or a default of the API.
SAID_FOR_PEOPLE = re.compile(r"\b(description|display_name|title|subject|content|labels|user_labels|mime_type|url)\b")


@dataclass(frozen=True)
class Mutant:
    """One planted error: where, what, and the file's text with it."""

    file: str
    what: str
    text: str


def blocks(text: str) -> Iterator[tuple[int, int, str]]:
    """Start line, end line and head of every block, nested ones too, in a file of terraform's own format."""
    lines = text.splitlines()
    for start, line in enumerate(lines):
        if re.match(r'^ *[a-z_]+( "[^"]+")* \{$', line):
            indent = len(line) - len(line.lstrip())
            end = next(i for i in range(start + 1, len(lines)) if lines[i].rstrip() == " " * indent + "}")
            yield start, end, line.strip(" {")


def mutants(file: Path) -> Iterator[Mutant]:
    """The errors planted in `file`: one typo in a name of an argument, and each resource or nested block removed."""
    name, text = file.relative_to(TERRAFORM).as_posix(), file.read_text()
    lines = text.splitlines()
    for start, end, head in blocks(text):
        if head.startswith(("variable", "output", "terraform", "provider", "locals", "module", "required_providers")):
            continue
        yield Mutant(name, f"removed: {head}", "\n".join(lines[:start] + lines[end + 1 :]) + "\n")
    arguments = [i for i, line in enumerate(lines) if re.match(r"^ {2,}[a-z_]+ += ", line)]
    for i in arguments[:: max(1, len(arguments) // 3)]:
        typo = re.sub(r"^( +)([a-z_]+)( += )", lambda m: f"{m[1]}{m[2][:-1]}x{m[3]}", lines[i])
        yield Mutant(name, f"typo: {typo.strip()[:60]}", "\n".join([*lines[:i], typo, *lines[i + 1 :]]) + "\n")


def chosen(found: list[Mutant]) -> list[Mutant]:
    """One typo and one removal a file, from its middle; all of them with SWEEP=all."""
    if os.environ.get("SWEEP") == "all":
        return found
    typos = [m for m in found if m.what.startswith("typo")]
    removals = [m for m in found if m.what.startswith("removed")]
    return typos[len(typos) // 2 :][:1] + removals[len(removals) // 2 :][:1]


def caught(mutant: Mutant, seeds: Mapping[str, Path], folder: Path, env: Mapping[str, str]) -> str:
    """By what `mutant` is caught; empty when nothing notices."""
    bootstrap = mutant.file.startswith("bootstrap/")
    module = "terraform/bootstrap" if bootstrap else "terraform"
    shutil.copytree(seeds[module], folder, symlinks=True)
    (folder / "terraform" / mutant.file).write_text(mutant.text)
    made = Workspace(folder, env, module)
    done = made.run("validate", "-no-color", check=False)
    if done.returncode:
        return "validate"
    done = made.plan(BOOTSTRAP if bootstrap else EVERYTHING, check=False)
    if done.returncode:
        return "plan"
    (folder / "done.json").write_text(json.dumps(made.show()))
    plans = {"MUTANT_FIXTURES": seeds["terraform"], "MUTANT_BOOTSTRAP": seeds["terraform/bootstrap"]}
    plans["MUTANT_BOOTSTRAP" if bootstrap else "MUTANT_FIXTURES"] = folder
    laws = REFUSALS + PLAN_LAWS if REFUSING.match(mutant.file) else PLAN_LAWS
    return broken(laws, folder / "terraform", plans, env)


def broken(names: tuple[str, ...], terraform: Path, plans: Mapping[str, Path], env: Mapping[str, str]) -> str:
    """The law that `plans` and the files in `terraform` break; empty when they break none."""
    laws = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "--no-header",
            "-p",
            "no:cacheprovider",
            "-p",
            "xdist",
            "-k",
            "not second_plan",
            *(f"tests/terraform/test_{law}.py" for law in names),
        ],
        cwd=ROOT,
        env={**env, **{k: str(v) for k, v in plans.items()}, "MUTANT_TERRAFORM": str(terraform)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    found = re.search(r"^(?:FAILED|ERROR) \S+::(\w+)", laws.stdout, re.M)
    return f"law: {found[1]}" if found else "" if laws.returncode == 0 else laws.stdout[-300:]


def test_no_planted_error_goes_unnoticed(
    terraform_env: Mapping[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = {}
    for module, variables in (("terraform", EVERYTHING), ("terraform/bootstrap", BOOTSTRAP)):
        seed = copy(tmp_path / module.replace("/", "-"), terraform_env, functions=FIXTURES, module=module)
        seed.init()
        seed.plan(variables)
        (seed.folder / "done.json").write_text(json.dumps(seed.show()))
        seeds[module] = seed.folder
    plans = {"MUTANT_FIXTURES": seeds["terraform"], "MUTANT_BOOTSTRAP": seeds["terraform/bootstrap"]}
    assert broken(PLAN_LAWS + REFUSALS, TERRAFORM, plans, terraform_env) == "", (
        "the laws are broken before anything is planted"
    )
    planted = [
        mutant
        for file in sorted(TERRAFORM.rglob("*.tf"))
        if ".terraform" not in file.parts
        for mutant in chosen(list(mutants(file)))
    ]

    def judge(i: int) -> str:
        folder = tmp_path / f"mutant-{i}"
        verdict = caught(planted[i], seeds, folder, terraform_env)
        shutil.rmtree(folder)
        return verdict

    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(judge, range(len(planted))))
    with capsys.disabled():
        print(f"\n{'file':24} {'planted':66} caught by")
        for mutant, verdict in zip(planted, verdicts, strict=True):
            print(f"{mutant.file:24} {mutant.what:66} {verdict or 'NOBODY'}")
    missed = [
        f"{mutant.file}: {mutant.what}"
        for mutant, verdict in zip(planted, verdicts, strict=True)
        if not verdict and not SAID_FOR_PEOPLE.search(mutant.what)
    ]
    assert not missed, "\n".join(missed)
