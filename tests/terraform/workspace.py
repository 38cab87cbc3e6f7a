"""Run the real terraform on a copy of the repository's Terraform, offline where the mirror's script is, else online."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.parts import missing

ROOT = Path(__file__).resolve().parents[2]
# the sweep judges its mutants by the same laws
TERRAFORM = Path(os.environ.get("MUTANT_TERRAFORM") or ROOT / "terraform")
FIXTURES = Path(__file__).resolve().parent / "tasks"

DIGEST = "europe-west1-docker.pkg.dev/demo-groundskeeper/keeper/{0}@sha256:" + "ab" * 32
# on a machine that is busy with everything else too
TIMEOUT_S = 280

PROJECT = "demo-groundskeeper"
BASIC: dict[str, Any] = {
    "project": PROJECT,
    "project_number": "123456789012",
    "region": "europe-west1",
    "environment": "test",
    "stripe_livemode": False,
    "github_repository": "example/groundskeeper",
    "images": {target: DIGEST.format(target) for target in ("base", "postgres", "torch", "lighthouse")},
    "operators": ["operator@example.com"],
    "alert_emails": ["sre@example.com"],
    "database": {
        "existing": {
            "instance": "platform",
            "host": "10.1.2.3",
            "server_ca": "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n",
        }
    },
    "network": {
        "network": "projects/demo-groundskeeper/global/networks/n",
        "subnetwork": "regions/europe-west1/subnetworks/s",
    },
}
BOOTSTRAP: dict[str, Any] = {
    "project": PROJECT,
    "project_number": "123456789012",
    "region": "europe-west1",
    "environment": "prod",
    "github_repository": "example/groundskeeper",
    "github_repository_id": "42",
}


@contextmanager
def turn(file: Path) -> Iterator[None]:
    """One process at a time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def environment(cache: Path) -> dict[str, str]:
    """The environment terraform runs in; with the offline mirror brought up to date where its script is found."""
    if shutil.which("terraform") is None:
        missing("terraform", "install Terraform 1.11 or newer")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "GOOGLE_"))}
    env |= {"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
    script = Path(os.environ.get("TERRAFORM_OFFLINE") or ROOT.parent / "shared" / "terraform-offline") / "setup.sh"
    if script.is_file():
        with turn(cache / "lock"):
            done = subprocess.run(
                [script, ROOT / "terraform", cache], capture_output=True, text=True, timeout=240, check=False
            )
        assert done.returncode == 0, done.stderr
        env["TF_CLI_CONFIG_FILE"] = str(cache / "tfrc")
    else:  # the real provider wants credentials before it plans what needs none
        env["GOOGLE_OAUTH_ACCESS_TOKEN"] = "nobody"
    return env


@dataclass(frozen=True)
class Resource:
    """One resource of a plan: its planned values, unknown ones absent."""

    type: str
    name: str
    key: str | int | None
    values: Mapping[str, Any]

    @property
    def address(self) -> str:
        return f"{self.type}.{self.name}" + ("" if self.key is None else f"[{self.key}]")


@dataclass(frozen=True)
class Workspace:
    """A copy of the repository's Terraform with its tasks, ready for commands."""

    folder: Path
    env: Mapping[str, str]
    module: str = "terraform"

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`terraform ARGUMENTS`; with `check`, its failure is the test's, in its own words."""
        command = ["terraform", f"-chdir={self.folder / self.module}", *arguments]
        # a group of its own: terraform's providers end with it, whatever it came to
        with subprocess.Popen(
            command,
            env=dict(self.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=TIMEOUT_S)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        if check:
            assert done.returncode == 0, f"terraform {' '.join(arguments)}\n{done.stderr or done.stdout[-4000:]}"
        return done

    def init(self) -> None:
        self.run("init", "-input=false", "-no-color")

    def plan(self, variables: Mapping[str, Any], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Plan into plan.bin with `variables`."""
        (self.folder / self.module / "test.tfvars.json").write_text(json.dumps(variables))
        return self.run(
            "plan",
            "-input=false",
            "-no-color",
            "-lock=false",
            "-var-file=test.tfvars.json",
            "-out=plan.bin",
            check=check,
        )

    def show(self) -> dict[str, Any]:
        """plan.bin as JSON."""
        document: dict[str, Any] = json.loads(self.run("show", "-json", "plan.bin").stdout)
        return document


def copy(
    folder: Path, env: Mapping[str, str], *, functions: Path | None = None, module: str = "terraform"
) -> Workspace:
    """A fresh copy of what Terraform reads, with a local state instead of the bucket's."""
    ignored = shutil.ignore_patterns(
        ".terraform*",
        ".build",
        "__pycache__",
        "*.tfplan",
        "*.auto.tfvars*",
        "state_override.tf",
        "*.bin",
        "*.tfvars.json",
    )
    shutil.copytree(TERRAFORM, folder / "terraform", ignore=ignored)
    shutil.copytree(ROOT / "shared", folder / "shared", ignore=ignored)
    shutil.copytree(functions or ROOT / "functions", folder / "functions", ignore=ignored)
    for pins in ("requirements.txt", "requirements-train.txt"):
        shutil.copy(ROOT / pins, folder)
    (folder / module / "state_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
    return Workspace(folder, env, module)


@dataclass(frozen=True)
class Plan:
    """What was planned."""

    document: Mapping[str, Any]
    folder: Path
    functions: Path

    @property
    def resources(self) -> list[Resource]:
        found = self.document["planned_values"]["root_module"].get("resources", [])
        return [Resource(r["type"], r["name"], r.get("index"), r["values"]) for r in found]

    def of(self, kind: str, name: str | None = None) -> list[Resource]:
        """The resources of a type (google_ is added), of one name where given."""
        return [r for r in self.resources if r.type == f"google_{kind}" and name in (None, r.name)]

    def output(self, name: str) -> Any:
        return self.document["planned_values"]["outputs"][name]["value"]

    def archive(self, task: str) -> dict[str, str]:
        """File name -> text of a planned source archive."""
        with zipfile.ZipFile(self.folder / "terraform" / ".build" / f"{task}.zip") as archive:
            return {name: archive.read(name).decode() for name in archive.namelist()}
