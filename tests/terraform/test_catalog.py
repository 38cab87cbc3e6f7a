"""Terraform and Python read the same declaration, and both refuse the same wrong ones."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.manifest import Task, load, load_all
from shared.strict_yaml import ManifestError, parse
from tests.terraform.workspace import FIXTURES, ROOT, TERRAFORM, Workspace


@pytest.fixture(scope="module", params=["functions", "fixtures"])
def evaluated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, terraform_env: Mapping[str, str]
) -> tuple[dict[str, Any], Path]:
    """The catalog's outputs for a folder of tasks; the module needs no provider."""
    functions = ROOT / "functions" if request.param == "functions" else FIXTURES
    folder = tmp_path_factory.mktemp("catalog")
    shutil.copytree(TERRAFORM / "catalog", folder / "catalog")
    made = Workspace(folder, terraform_env, "catalog")
    made.init()
    variables = {
        "root": str(ROOT),
        "functions_dir": str(functions),
        "data_dir": str(ROOT / "terraform" / "data"),
        "connection_budget": 240,
    }
    (folder / "catalog" / "test.tfvars.json").write_text(json.dumps(variables))
    made.run("apply", "-input=false", "-auto-approve", "-no-color", "-var-file=test.tfvars.json")
    outputs = json.loads(made.run("output", "-json").stdout)
    return {name: o["value"] for name, o in outputs.items()}, functions


def test_terraform_reads_every_byte_as_python_does(evaluated: tuple[dict[str, Any], Path]) -> None:
    outputs, functions = evaluated
    for name in load_all(functions):
        file = functions / name / "task.yaml"
        assert outputs["declared"][name] == parse(file.read_text(), str(file)), name


def test_what_is_left_out_has_the_same_default(evaluated: tuple[dict[str, Any], Path]) -> None:
    outputs, functions = evaluated
    tasks = load_all(functions)
    assert outputs["tasks"].keys() == tasks.keys()
    for name, task in tasks.items():
        assert {k: outputs["tasks"][name][k] for k in normal(task)} == normal(task), name


def normal(task: Task) -> dict[str, Any]:
    run = task.run
    return {
        "slug": task.slug,
        "summary": task.summary,
        "owner": task.owner,
        "kind": run.kind,
        "memory_mb": run.memory_mb,
        "cpu": run.cpu,
        "timeout_s": run.timeout_s,
        "max_instances": run.max_instances,
        "concurrency": run.concurrency,
        "ingress": run.ingress,
        "shards": run.tasks,
        "parallelism": run.parallelism,
        "image": run.image,
        "uses": list(task.uses),
        "requires": list(task.requires),
        "secrets": list(task.secrets),
        "kms": list(task.kms),
        "publishes": list(task.publishes),
        "subscribes": list(task.subscribes),
        "starts": list(task.starts),
        "roles": list(task.roles),
        "destructive": task.destructive,
        "must_succeed_within_s": task.must_succeed_within_s,
        "buckets": [{"bucket": b.bucket, "access": b.access, "prefix": b.prefix} for b in task.buckets],
    }


def test_parameters_are_found_wherever_they_stand(evaluated: tuple[dict[str, Any], Path]) -> None:
    outputs, functions = evaluated

    def names(value: Any) -> set[str]:
        if isinstance(value, dict):
            found = {value["env"]} if "env" in value else set()
            return found.union(*(names(v) for v in value.values()))
        if isinstance(value, list):
            return set().union(*(names(v) for v in value))
        return set()

    for name, task in load_all(functions).items():
        assert {p[1] for p in outputs["tasks"][name]["params"]} == names(task.params), name


# what is planted in db_cleanup's task.yaml -> what both readers must complain of
WRONG: dict[str, tuple[Callable[[str], str], str]] = {
    "an unknown key": (lambda s: s + "retries: 3\n", "retries"),
    "an unknown key of run": (lambda s: s.replace("run: {", "run: {retries: 3, "), "retries"),
    "two kinds in one trigger": (
        lambda s: s.replace('{cron: "0 2 * * *"}', '{cron: "0 2 * * *", topic: abc}'),
        "exactly one",
    ),
    "no kind of trigger": (lambda s: s.replace('{cron: "0 2 * * *"}', "{}"), "exactly one"),
    "neither function nor job": (lambda s: s.replace("kind: function", "kind: lambda"), "kind"),
    "longer than Scheduler waits": (lambda s: s.replace("timeout_s: 1800", "timeout_s: 1801"), "1801"),
    "a job that ticks": (
        lambda s: s.replace("kind: function", "kind: job").replace('{cron: "0 2 * * *"}', "{every_s: 5}"),
        "a job",
    ),
    "a public endpoint without a reason": (
        lambda s: s.replace(
            '- {cron: "0 2 * * *"}', '- {cron: "0 2 * * *"}\n  - {http: {path: /x, methods: [GET], auth: stripe}}'
        ),
        "reason",
    ),
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, terraform_env: Mapping[str, str]) -> Workspace:
    """The catalog alone, on a folder of tasks that a test may spoil."""
    folder = tmp_path_factory.mktemp("bench")
    shutil.copytree(TERRAFORM / "catalog", folder / "catalog")
    made = Workspace(folder, terraform_env, "catalog")
    made.init()
    return made


def refusal(bench: Workspace, functions: Path, **variables: Any) -> str:
    """How the catalog refuses `functions`, in one line; empty when it does not."""
    given = {
        "root": str(ROOT),
        "functions_dir": str(functions),
        "data_dir": str(ROOT / "terraform" / "data"),
        "connection_budget": 240,
        **variables,
    }
    (bench.folder / "catalog" / "test.tfvars.json").write_text(json.dumps(given))
    done = bench.run("plan", "-input=false", "-no-color", "-var-file=test.tfvars.json", check=False)
    return " ".join(done.stderr.replace("│", " ").split()) if done.returncode else ""


BASE = """\
summary: Deletes rows older than their data class allows.
owner: security
triggers:
  - {cron: "0 2 * * *"}
run: {kind: function, memory_mb: 512, cpu: 1, timeout_s: 1800}
uses: [retention]
requires: []
tables: {}
destructive: true
caps: {rows: 5000000}
must_succeed_within_s: 93600
params:
  keep_days: {env: RAW_TELEMETRY_RETENTION_DAYS, default: 30}
"""


def spoiled(tmp_path: Path, change: Callable[[str], str], name: str = "db_cleanup") -> Path:
    """A folder of one task, its declaration as it should be but for `change`."""
    folder = tmp_path / "functions" / name
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text(change(BASE))
    assert change(BASE) != BASE or name != "db_cleanup", "the planted error is not there"
    return folder.parent


@pytest.mark.parametrize("case", WRONG)
def test_both_readers_refuse(case: str, bench: Workspace, tmp_path: Path) -> None:
    change, word = WRONG[case]
    functions = spoiled(tmp_path, change)
    with pytest.raises(ManifestError, match=word):
        load(functions / "db_cleanup")
    assert word in refusal(bench, functions)


# what refers to something that is not there: Python's tests find it too, but an apply must not depend on them
DANGLING = {
    "uses: [retention]": ("uses: [retentoin]", "there is no shared/retentoin"),
    "requires: []": ("requires: [left-pad]", "has no pin"),
    "destructive: true": ("destructive: true\nkms: [keks]", "keys.yaml has no such key"),
    "owner: security": ("owner: security\nroles: [roles/owner]", "roles/owner is not in terraform/data/roles.yaml"),
    "owner: security\ntriggers": ("owner: The Security Team\ntriggers", "owner: expected a label"),
    "owner:": ("starts: [nobody_there]\nowner:", "starts nobody_there: there is no such task"),
    "tables:": ("buckets: [{bucket: pail, access: read}]\ntables:", "buckets.yaml has no such bucket"),
    "cpu: 1,": ("cpu: 1, ingress: all,", "needs an http trigger"),
    "memory_mb: 512, cpu: 1": ("memory_mb: 1024, cpu: 0.333", "Cloud Run gives 0.333 vCPU at most 512"),
    "512, cpu: 1": ("512, cpu: 4", "Cloud Run wants 2048 for 4 vCPU"),
    "uses: [retention]\n": ("uses: [retention, laptop]\n", "never deployed"),
    "memory_mb: 512": ("memory_mb: 512, max_instances: 70", "database connections"),
    "RAW_TELEMETRY_RETENTION_DAYS, default: 30": (
        "RAW_TELEMETRY_RETENTION_DAYS, default: 31",
        "has different defaults",
    ),
}


@pytest.mark.parametrize("found", DANGLING)
def test_what_is_not_there_is_refused_by_name(found: str, bench: Workspace, tmp_path: Path) -> None:
    planted, words = DANGLING[found]
    assert words in refusal(bench, spoiled(tmp_path, lambda s: s.replace(found, planted, 1)))


def test_a_folder_that_is_no_name_is_refused(bench: Workspace, tmp_path: Path) -> None:
    assert "the folder's name is the task's" in refusal(bench, spoiled(tmp_path, lambda s: s, name="Clean-Up"))


def test_a_task_cannot_take_the_name_of_the_planes_own_accounts(bench: Workspace, tmp_path: Path) -> None:
    assert "the plane's own accounts" in refusal(bench, spoiled(tmp_path, lambda s: s, name="keeper_build"))


def test_a_parameter_nobody_takes_is_refused(bench: Workspace, tmp_path: Path) -> None:
    functions = spoiled(tmp_path, lambda s: s + "# as it is\n")
    assert "no task and no bucket takes S3_RETENTOIN" in refusal(bench, functions, parameters={"S3_RETENTOIN": "9"})


@pytest.mark.parametrize("name", ["KEEPER_MODE", "DATABASE_URL", "GOOGLE_CLOUD_PROJECT", "PUBSUB_EMULATOR_HOST"])
def test_a_parameter_cannot_replace_what_the_plane_says(name: str, bench: Workspace, tmp_path: Path) -> None:
    functions = spoiled(
        tmp_path, lambda s: s.replace("RAW_TELEMETRY_RETENTION_DAYS, default: 30", f"{name}, default: 1")
    )
    assert f"{name} is the plane's own" in refusal(bench, functions, parameters={name: "x"})


def test_the_repository_as_it_is_is_not_refused(bench: Workspace) -> None:
    assert refusal(bench, ROOT / "functions") == ""
    assert refusal(bench, FIXTURES) == ""


def test_a_bucket_that_keeps_data_longer_than_promised_is_refused(bench: Workspace, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(ROOT / "terraform" / "data", data)
    file = data / "buckets.yaml"
    file.write_text(file.read_text().replace("soft_delete_days: 0", "soft_delete_days: 7", 1))
    assert "gone after 37 days, the promise is 30" in refusal(bench, ROOT / "functions", data_dir=str(data))
