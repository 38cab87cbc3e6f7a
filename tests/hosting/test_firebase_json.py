"""hosting/firebase.json: its rewrites are the http triggers, and what it serves is guarded."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hosting.rewrites import FIREBASE_JSON, rewrites, source
from shared.manifest import ROOT, Task, load, load_all
from shared.strict_yaml import ManifestError

_MANIFEST = """
summary: Answers.
owner: platform
triggers:
{triggers}
run: {{kind: function, memory_mb: 256, cpu: 1, timeout_s: 60, ingress: all}}
uses: []
requires: []
tables: {{}}
"""


def _task(folder: Path, name: str, *triggers: tuple[str, str]) -> Task:
    lines = []
    for path, auth in triggers:
        reason = "" if auth == "service" else ", reason: it must"
        lines.append(f"  - {{http: {{path: '{path}', methods: [POST], auth: {auth}{reason}}}}}")
    (folder / name).mkdir()
    text = _MANIFEST.format(triggers="\n".join(lines)).replace("triggers:\n\n", "triggers: []\n")
    (folder / name / "task.yaml").write_text(text, encoding="utf-8")
    return load(folder / name)


def _hosting() -> dict[str, Any]:
    hosting: dict[str, Any] = json.loads(FIREBASE_JSON.read_text(encoding="utf-8"))["hosting"]
    return hosting


def test_the_rewrites_are_the_http_triggers_of_the_tasks() -> None:
    assert _hosting()["rewrites"] == rewrites(load_all().values()), "run `python -m hosting.rewrites --write`"


def test_each_public_path_goes_to_the_service_named_like_its_task(tmp_path: Path) -> None:
    tasks = [
        _task(tmp_path, "stripe_webhook", ("/api/v1/billing/webhook", "stripe")),
        _task(tmp_path, "billing_sync", ("/api/v1/billing/sync", "firebase")),
    ]

    assert rewrites(tasks) == [
        {"source": "/api/v1/billing/sync", "run": {"serviceId": "billing-sync"}},
        {"source": "/api/v1/billing/webhook", "run": {"serviceId": "stripe-webhook"}},
    ]


def test_an_endpoint_for_services_is_not_on_the_site(tmp_path: Path) -> None:
    assert rewrites([_task(tmp_path, "internal_report", ("/internal/report", "service"))]) == []


def test_a_task_without_endpoints_has_no_rewrite(tmp_path: Path) -> None:
    assert rewrites([_task(tmp_path, "rotate_keys")]) == []


def test_a_variable_segment_is_one_segment_to_hosting() -> None:
    assert source("/approvals/{id}/decision") == "/approvals/*/decision"


def test_the_more_exact_path_stands_before_the_vaguer(tmp_path: Path) -> None:
    tasks = [
        _task(tmp_path, "operator_console", ("/ops/**", "operator"), ("/ops/{page}", "operator")),
        _task(tmp_path, "approvals_api", ("/ops/approvals", "operator"), ("/ops/approvals/{id}", "operator")),
    ]

    assert [rewrite["source"] for rewrite in rewrites(tasks)] == [
        "/ops/approvals",
        "/ops/approvals/*",
        "/ops/*",
        "/ops/**",
    ]


def test_two_tasks_may_not_share_a_path_even_under_other_names(tmp_path: Path) -> None:
    tasks = [
        _task(tmp_path, "approvals_api", ("/approvals/{id}", "operator")),
        _task(tmp_path, "approvals_two", ("/approvals/{name}", "operator")),
    ]

    with pytest.raises(ManifestError, match=r"functions/approvals_two/task\.yaml: .* is also a path of approvals_api"):
        rewrites(tasks)


def test_one_task_may_have_a_path_twice(tmp_path: Path) -> None:
    task = _task(tmp_path, "approvals_api", ("/approvals/{id}", "operator"), ("/approvals/{name}", "operator"))

    assert len(rewrites([task])) == 1
    assert rewrites([replace(task, triggers=task.triggers[:1])]) == rewrites([task])


def test_the_command_says_in_words_what_differs_and_mends_it(tmp_path: Path) -> None:
    copy = tmp_path / "hosting"
    copy.mkdir()
    (copy / "rewrites.py").write_bytes((ROOT / "hosting" / "rewrites.py").read_bytes())
    stale = json.loads(FIREBASE_JSON.read_text(encoding="utf-8"))
    stale["hosting"]["rewrites"] = [{"source": "/gone", "run": {"serviceId": "gone"}}]
    (copy / "firebase.json").write_text(json.dumps(stale), encoding="utf-8")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hosting.rewrites", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    told = command()
    assert told.returncode == 1
    assert "/gone" in told.stderr
    assert "--write" in told.stderr
    assert command("--write").returncode == 0
    assert command().returncode == 0
    assert json.loads((copy / "firebase.json").read_text(encoding="utf-8"))["hosting"] == _hosting()


def test_every_page_is_served_with_its_guards() -> None:
    headers = {
        header["key"]: header["value"]
        for rule in _hosting()["headers"]
        if rule["source"] == "**"
        for header in rule["headers"]
    }

    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert not {"unsafe-inline", "unsafe-eval", "*", "http:", "data:"} & set(
        headers["Content-Security-Policy"].replace("'", "").split()
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert int(headers["Strict-Transport-Security"].split(";")[0].partition("=")[2]) >= 31_536_000
    assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"


def test_no_file_but_the_build_is_served() -> None:
    assert _hosting()["public"] == "dist"
    assert "**/.*" in _hosting()["ignore"]
