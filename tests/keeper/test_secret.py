"""`keeper secret`: versions of the secrets tasks name, their values never shown."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from shared.manifest import ROOT
from shared.secrets import store
from shared.settings import Settings
from tests.keeper.test_commands import document

Secret = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def secret(settings: Settings) -> Secret:
    def run(*words: str, value: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "shared.keeper", "secret", *words],
            cwd=ROOT, env={**os.environ, **settings.environ}, input=value, text=True, capture_output=True, check=False,
        )  # fmt: skip

    return run


def test_a_value_piped_in_is_a_new_version_and_is_never_shown(
    secret: Secret, settings: Settings, rows: Callable[..., object]
) -> None:
    done = secret("add", "stripe-api-key", "--reason", "rolled", "--as", "ann", value="sk_test_piped_in\n")
    assert (done.returncode, "version 1 added" in done.stdout) == (0, True), done.stderr
    assert store(settings).get("stripe-api-key") == "sk_test_piped_in"
    assert "piped_in" not in done.stdout + done.stderr
    listed = secret("versions", "stripe-api-key", "--json")
    assert document(listed, "versions")["versions"] == [{"number": 1, "state": "enabled"}]
    assert rows("select actor, action, subject, why from groundskeeper.operator_audit") == [
        ("ann", "add_secret", "stripe-api-key", "rolled")
    ]


def test_secrets_are_listed_with_who_reads_them(secret: Secret) -> None:
    found = {s["secret"]: s for s in document(secret("list", "--json"), "secrets")["secrets"]}
    assert "rotate_secrets" in found["stripe-api-key"]["tasks"]
    assert found["internal-api-token"]["enabled"] == 0


def test_a_secret_nobody_names_and_an_empty_value_are_refused(secret: Secret) -> None:
    assert "keeper secret list" in " ".join(secret("add", "strip-api-key", value="x").stderr.split())
    refused = secret("add", "stripe-api-key", value="\n")
    assert (refused.returncode, "empty" in refused.stderr) == (3, True)
