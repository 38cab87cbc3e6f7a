"""Every workflow's cron and trigger equals the seeds' table, and nothing runs that it does not name."""

from datetime import UTC, datetime
from typing import Any

import pytest
from cronsim import CronSim

from tests.github.repository import WORKFLOWS, jobs, workflow

PUSH = {"push": {"branches": ["main"]}}
PULL_REQUEST = {"pull_request": {"branches": ["main"]}}

# The table of the seeds ("GitHub Actions, Repository Maintenance"), row by row.
SEEDS: dict[str, dict[str, Any]] = {
    "30-60-90-automation": {"schedule": [{"cron": "0 6 1 * *"}, {"cron": "0 8 1 1,4,7,10 *"}]},
    "ci-tests": PUSH | PULL_REQUEST,
    "firebase-backend-deploy": PUSH,
    "firebase-hosting-merge": PUSH,
    "firebase-hosting-pull-request": PULL_REQUEST,
    "huggingface-space": PUSH,
    "purge-cloudflare-cache": {"workflow_call": {"secrets": {"CLOUDFLARE_API_TOKEN"}}},  # on deploy
    "renovate": {"schedule": [{"cron": "0 0 * * 0"}]},
}
# What the backend's deployment needs beside them.
OURS: dict[str, dict[str, Any]] = {
    "terraform-apply": {"workflow_call": {"inputs": {"environment"}}},
    "terraform-plan": PULL_REQUEST,
}

_START = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)


def _automatic(name: str) -> dict[str, Any]:
    """The triggers of a workflow but for the button; of a called one the names it takes."""
    triggers = {kind: value for kind, value in workflow(name)["on"].items() if kind != "workflow_dispatch"}
    if "workflow_call" in triggers:
        triggers["workflow_call"] = {kind: set(names) for kind, names in triggers["workflow_call"].items()}
    return triggers


def test_the_workflows_are_those_of_the_table_and_terraforms() -> None:
    assert set(WORKFLOWS) == set(SEEDS) | set(OURS)
    assert "daily-automation" not in WORKFLOWS, "daily work is the plane's, not GitHub's"


@pytest.mark.parametrize("name", SEEDS | OURS)
def test_a_workflow_starts_exactly_when_the_table_says(name: str) -> None:
    assert _automatic(name) == (SEEDS | OURS)[name]


def _year(cron: str) -> list[str]:
    """The days of 2027 on which a cron fires, as MM-DD, and the time of the first."""
    moments: list[str] = []
    for moment in CronSim(cron, _START):
        if moment.year > 2027:
            return moments
        moments.append(f"{moment:%m-%d}")
    raise AssertionError("cron expressions have no end")


def test_renovate_runs_each_sunday_at_midnight() -> None:
    found = next(iter(CronSim(workflow("renovate")["on"]["schedule"][0]["cron"], _START)))
    assert f"{found:%A %H:%M %d}" == "Sunday 00:00 03"
    assert len(_year(workflow("renovate")["on"]["schedule"][0]["cron"])) == 52


def test_the_audits_run_on_the_first_of_the_month_and_of_the_quarter() -> None:
    monthly, quarterly = (entry["cron"] for entry in workflow("30-60-90-automation")["on"]["schedule"])

    assert _year(monthly) == [f"{month:02}-01" for month in range(1, 13)]
    assert _year(quarterly) == ["01-01", "04-01", "07-01", "10-01"]


MONTHLY = "github.event.schedule == '0 6 1 * *' || inputs.cycle == 'monthly'"
QUARTERLY = "github.event.schedule == '0 8 1 1,4,7,10 *' || inputs.cycle == 'quarterly'"


def test_each_audit_runs_on_its_own_cron_and_on_no_other() -> None:
    found = {job.name: job.spec["if"] for job in jobs() if job.workflow == "30-60-90-automation"}

    assert found == {
        "semgrep": MONTHLY,
        "npm-audit": MONTHLY,
        "lock": MONTHLY,
        "front-end": QUARTERLY,
        "ruff": QUARTERLY,
    }
    dispatch = workflow("30-60-90-automation")["on"]["workflow_dispatch"]["inputs"]["cycle"]
    assert dispatch["options"] == ["monthly", "quarterly"]


def test_the_cache_is_purged_after_the_site_went_live_and_never_before() -> None:
    purge = workflow("firebase-hosting-merge")["jobs"]["purge"]

    assert purge["uses"] == "./.github/workflows/purge-cloudflare-cache.yml"
    assert purge["needs"] == "deploy"


def test_the_rules_are_deployed_after_the_backend() -> None:
    backend = workflow("firebase-backend-deploy")["jobs"]

    assert backend["backend"]["uses"] == "./.github/workflows/terraform-apply.yml"
    assert backend["rules"]["needs"] == "backend"
