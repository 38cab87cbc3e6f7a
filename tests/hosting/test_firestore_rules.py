"""Firestore refuses everyone everything: the official emulator with our rules, asked over HTTP."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from shared.laptop.ports import answers, free_ports
from shared.manifest import ROOT
from tests.parts import missing

RULES = ROOT / "hosting" / "firestore.rules"
OWNER = {"Authorization": "Bearer owner"}  # the emulator's word for IAM: rules do not apply

Start = Callable[[Path], str]


def _jar() -> Path | None:
    gcloud = shutil.which("gcloud")
    jar = (
        Path(gcloud).resolve().parents[1] / "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
        if gcloud
        else None
    )
    return jar if jar and jar.is_file() else None


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Start an emulator with the rules of a file; the URL of its documents."""
    java, jar = shutil.which("java"), _jar()
    if java is None or jar is None:
        missing("the Firestore emulator", "gcloud components install cloud-firestore-emulator, and Java")
    started: list[subprocess.Popen[bytes]] = []

    def launch(rules: Path) -> str:
        port = next(free_ports())
        program = [java, "-Xmx256m", "-cp", str(jar), "com.google.cloud.datastore.emulator.firestore.CloudFirestore"]
        child = subprocess.Popen(
            [*program, "--host=127.0.0.1", f"--port={port}", f"--rules={rules}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(child)
        until = time.monotonic() + 60
        while not answers(port):
            assert child.poll() is None, f"the emulator ended {child.returncode}"
            assert time.monotonic() < until, "the emulator did not start within a minute"
            time.sleep(0.1)
        return f"http://127.0.0.1:{port}/v1/projects/demo-keeper/databases/(default)/documents"

    yield launch
    for child in started:
        child.kill()
        child.wait()


@pytest.fixture(scope="module")
def documents(start: Start) -> str:
    """Our rules, with documents in it that somebody could want."""
    url = start(RULES)
    for path in ("users/u1", "public/notice", "a/b/c/d"):
        requests.patch(f"{url}/{path}", json={"fields": {}}, headers=OWNER, timeout=60).raise_for_status()
    return url


def _signed_in(uid: str, **claims: object) -> dict[str, str]:
    def part(value: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    body = {
        "sub": uid,
        "user_id": uid,
        "iss": "https://securetoken.google.com/demo-keeper",
        "aud": "demo-keeper",
        "iat": 1,
        "exp": 4_102_444_800,
        **claims,
    }
    return {"Authorization": f"Bearer {part({'alg': 'none', 'typ': 'JWT'})}.{part(body)}."}


WHO = {
    "a stranger": {},
    "a user": _signed_in("u1"),
    "an operator": _signed_in("u2", operator=True, admin=True, email_verified=True),
}


def _refused(answer: requests.Response) -> bool:
    return answer.status_code == 403 and '"PERMISSION_DENIED"' in answer.text.replace(" ", "")


def test_nobody_reads_writes_deletes_lists_or_queries_anything(documents: str) -> None:
    query = {"structuredQuery": {"from": [{"collectionId": "users", "allDescendants": True}]}}
    for who, headers in WHO.items():
        for path in ("users/u1", "public/notice", "a/b/c/d", "not/there"):
            url = f"{documents}/{path}"
            for answer in (
                requests.get(url, headers=headers, timeout=60),
                requests.patch(url, json={"fields": {}}, headers=headers, timeout=60),
                requests.delete(url, headers=headers, timeout=60),
            ):
                assert _refused(answer), f"{who}: {answer.request.method} {path}: {answer.status_code}"
        assert _refused(requests.get(f"{documents}/users", headers=headers, timeout=60)), who
        answer = requests.post(f"{documents}:runQuery", json=query, headers=headers, timeout=60)
        assert "PERMISSION_DENIED" in answer.text, who


def test_a_rule_that_opened_something_would_be_noticed(start: Start, tmp_path: Path) -> None:
    opened = tmp_path / "firestore.rules"
    text = RULES.read_text(encoding="utf-8")
    opened.write_text(text.replace("if false", "if request.auth != null"), encoding="utf-8")
    url = start(opened)

    assert _refused(requests.patch(f"{url}/users/u1", json={"fields": {}}, timeout=60))
    assert requests.patch(f"{url}/users/u1", json={"fields": {}}, headers=WHO["a user"], timeout=60).status_code == 200
