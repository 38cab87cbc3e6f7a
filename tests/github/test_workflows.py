"""Laws over every workflow: what it may do, with which credentials, for how long, and whose code it runs."""

import re
from pathlib import Path

import pytest

from shared.manifest import ROOT
from tests.github.repository import ACTIONS, WORKFLOWS, Job, jobs, known_actions, steps, uses, workflow

JOBS = jobs()
LOCAL_JOBS = [job for job in JOBS if "uses" not in job.spec]
FILES = [*WORKFLOWS.values(), *ACTIONS.values()]

READ = {"contents": "read"}
IDENTITY = {"contents": "read", "id-token": "write"}
# Every job that may do more than read the code, or less. A new line here is a decision.
PERMISSIONS: dict[str, dict[str, str]] = {
    "30-60-90-automation.semgrep": {"contents": "read", "security-events": "write"},
    "firebase-backend-deploy.backend": IDENTITY,
    "firebase-backend-deploy.rules": IDENTITY,
    "firebase-hosting-merge.deploy": IDENTITY,
    "firebase-hosting-merge.purge": {},
    "firebase-hosting-pull-request.preview": IDENTITY,
    "huggingface-space.sync": IDENTITY,
    "purge-cloudflare-cache.purge": {},
    "terraform-apply.apply": IDENTITY,
    "terraform-apply.plan": IDENTITY,
    "terraform-plan.plan": IDENTITY,
}
# Where secrets of GitHub are used at all. Google is reached without any.
SECRETS = {
    "firebase-hosting-merge.purge": {"CLOUDFLARE_API_TOKEN"},  # handed on to the next
    "huggingface-space.sync": {"HF_TOKEN"},
    "purge-cloudflare-cache.purge": {"CLOUDFLARE_API_TOKEN"},
    "renovate.renovate": {"RENOVATE_PRIVATE_KEY"},
}
SAME_REPOSITORY = "github.event.pull_request.head.repo.full_name == github.repository"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_no_rights_of_its_own(name: str) -> None:
    assert workflow(name)["permissions"] == {}, "rights are given to jobs, one by one"


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_a_job_has_exactly_the_rights_of_the_table(job: Job) -> None:
    assert job.spec["permissions"] == PERMISSIONS.get(str(job), READ)


def test_the_table_of_rights_names_no_job_that_is_gone() -> None:
    assert set(PERMISSIONS) | set(SECRETS) <= {str(job) for job in JOBS}


@pytest.mark.parametrize("job", LOCAL_JOBS, ids=str)
def test_a_job_ends_within_the_hour_on_a_named_machine(job: Job) -> None:
    assert 0 < int(job.spec["timeout-minutes"]) <= 60
    assert job.spec["runs-on"] == "ubuntu-24.04"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_says_what_happens_when_two_run_at_once(name: str) -> None:
    concurrency = workflow(name)["concurrency"]

    # what deploys is never cut off in the middle
    assert (concurrency["cancel-in-progress"] == "true") == (list(workflow(name)["on"]) == ["pull_request"]) or (
        name == "ci-tests" and "pull_request" in concurrency["cancel-in-progress"]
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_action_is_pinned_by_a_commit_we_have_looked_at(file: Path) -> None:
    known = known_actions()
    for action, commit, tag in uses(file):
        if action.startswith("./"):
            continue
        repository = "/".join(action.split("/")[:2])
        assert (commit, tag) in known.get(repository, set()), (
            f"{action}@{commit} # {tag}: is not in tests/github/actions.md: look at it, then add it there"
        )


def test_every_uses_line_was_read() -> None:
    written = sum(len(re.findall(r"\buses:", file.read_text(encoding="utf-8"))) for file in FILES)
    assert sum(len(uses(file)) for file in FILES) == written > 30


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_workflow_runs_a_strangers_code_with_our_rights(name: str) -> None:
    assert not {"pull_request_target", "workflow_run", "issue_comment", "repository_dispatch"} & set(
        workflow(name)["on"]
    )


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_secrets_reach_only_the_jobs_of_the_table_and_no_pull_request(job: Job) -> None:
    named = set(re.findall(r"secrets\.(\w+)", str(job.spec)))

    assert named == SECRETS.get(str(job), set())
    assert "inherit" not in str(job.spec.get("secrets", ""))
    if named:
        assert "pull_request" not in workflow(job.workflow)["on"]
        assert "environment" in job.spec or "uses" in job.spec, "a secret belongs to an environment"


@pytest.mark.parametrize("job", [job for job in JOBS if job.spec["permissions"].get("id-token")], ids=str)
def test_a_fork_gets_no_identity(job: Job) -> None:
    if "pull_request" in workflow(job.workflow)["on"]:
        assert f" && {SAME_REPOSITORY}" in job.spec["if"]
    else:
        assert set(workflow(job.workflow)["on"]) <= {"push", "workflow_call", "workflow_dispatch"}


def test_no_step_runs_what_somebody_else_wrote() -> None:
    for where, step in steps():
        assert "${{" not in step.get("run", ""), f"{where}: pass values through env, a script must not be assembled"


def test_no_checkout_leaves_its_token_behind() -> None:
    for where, step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false", where


def test_every_make_target_and_file_that_a_step_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for where, step in steps():
        script = step.get("run", "")
        assert set(re.findall(r"\bmake ([a-z-]+)", script)) <= targets, where
        folder = ROOT / step.get("working-directory", "").replace("${{ matrix.folder }}", "")
        assert folder.is_dir(), where
        for named in re.findall(r"(?:\.\./)?\.(?:github|ci)/[\w./-]+", script):
            if "node_modules" not in named and not named.endswith("-"):
                assert (folder / named).exists(), f"{where}: {named}"
        if (used := step.get("uses", "")).startswith("./"):
            assert (ROOT / used / "action.yml").is_file(), where


def test_an_apply_waits_for_approval_and_applies_only_what_was_approved() -> None:
    plan, apply = (workflow("terraform-apply")["jobs"][name] for name in ("plan", "apply"))

    assert plan["if"].startswith("github.ref == 'refs/heads/main' && ")
    assert apply["needs"] == "plan"
    assert apply["environment"] == "${{ inputs.environment }}"
    assert plan["steps"][1]["with"]["account"] == "keeper-plan"
    checked, applied = (
        next(i for i, step in enumerate(apply["steps"]) if needle in step.get("run", ""))
        for needle in ('"$DIGEST" != "$APPROVED"', "terraform apply")
    )
    assert checked < applied
    assert apply["steps"][checked]["env"]["APPROVED"] == "${{ needs.plan.outputs.digest }}"
    assert apply["steps"][applied]["run"].endswith(" plan.tfplan"), "a fresh plan is not the approved one"


def test_only_apply_takes_the_identity_that_writes() -> None:
    writers = {where for where, step in steps() if step.get("with", {}).get("account") == "keeper-apply"}
    assert writers == {"terraform-apply.apply"}
