"""What stands before main: the declared ruleset requires the full suite, and the names it requires exist."""

import json
import re
from typing import Any

from shared.manifest import ROOT
from tests.github.repository import GITHUB, jobs, read, workflow


def _rules() -> dict[str, dict[str, Any]]:
    ruleset = json.loads((GITHUB / "rulesets" / "main.json").read_text(encoding="utf-8"))
    assert ruleset["enforcement"] == "active"
    assert ruleset["bypass_actors"] == [], "nobody passes by"
    assert ruleset["conditions"]["ref_name"] == {"include": ["~DEFAULT_BRANCH"], "exclude": []}
    return {rule["type"]: rule.get("parameters", {}) for rule in ruleset["rules"]}


def test_every_job_that_always_runs_on_a_pull_request_is_required_and_no_other() -> None:
    required = [check["context"] for check in _rules()["required_status_checks"]["required_status_checks"]]
    # A job with a condition may be skipped, a workflow with paths may not start: neither can be required.
    always = [
        job.spec["name"]
        for job in jobs()
        if "if" not in job.spec and workflow(job.workflow)["on"].get("pull_request") == {"branches": ["main"]}
    ]

    assert sorted(required) == sorted(always)
    assert len(set(required)) == len(required)


def test_updates_merge_only_on_a_branch_that_has_seen_the_newest_main() -> None:
    assert _rules()["required_status_checks"]["strict_required_status_checks_policy"] is True


def test_main_moves_only_by_reviewed_pull_requests() -> None:
    rules = _rules()

    assert {"deletion", "non_fast_forward", "required_signatures", "required_linear_history"} <= set(rules)
    review = rules["pull_request"]
    assert review["required_approving_review_count"] >= 1
    assert review["require_code_owner_review"] is True
    assert review["require_last_push_approval"] is True, "who pushed last does not approve"
    assert review["dismiss_stale_reviews_on_push"] is True


def test_the_full_suite_is_what_ci_tests_runs() -> None:
    scripts = {
        name: " ".join(step.get("run", "") for step in job["steps"])
        for name, job in workflow("ci-tests")["jobs"].items()
    }

    assert "make check" in scripts["check"]
    assert "make lock-check" in scripts["check"]
    assert "make test" in scripts["pytest"]
    assert "make verify" in scripts["verify"]
    assert "npm test" in scripts["vitest"]


def test_every_path_has_an_owner_and_every_owned_path_is_there() -> None:
    lines = [
        line.split()
        for line in (GITHUB / "CODEOWNERS").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]

    assert lines[0][0] == "*"
    for path, *owners in lines:
        assert owners, path
        assert all(re.fullmatch(r"@[\w-]+(/[\w-]+)?", owner) for owner in owners), path
        assert path == "*" or (ROOT / path.strip("/")).exists(), path


def test_issue_forms_ask_for_what_we_need_and_keep_weaknesses_out() -> None:
    forms = [read(file) for file in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if file.name != "config.yml"]

    assert len(forms) == 2
    for form in forms:
        assert {"name", "description", "body"} <= set(form)
        asked = [item for item in form["body"] if item["type"] != "markdown"]
        assert len({item["id"] for item in asked}) == len(asked)
        assert all(item["type"] in {"input", "textarea", "dropdown", "checkboxes"} for item in asked)
        assert all(item["attributes"]["label"] for item in asked)
    assert "SECURITY.md" in (GITHUB / "ISSUE_TEMPLATE" / "fault.yml").read_text(encoding="utf-8")
    assert read(GITHUB / "ISSUE_TEMPLATE" / "config.yml") == {"blank_issues_enabled": "false"}
