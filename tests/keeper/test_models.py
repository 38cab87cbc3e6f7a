"""`keeper models`: versions listed by their schema, promoted and rolled back with an entry in the audit."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from shared import objects
from shared.manifest import ROOT
from shared.models.net import Net
from shared.models.registry import Registry
from shared.settings import Settings

Models = Callable[..., "subprocess.CompletedProcess[str]"]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "models.json").read_text())


@pytest.fixture
def models(settings: Settings) -> Models:
    """The command on two whole versions of ces."""
    one = np.ones((1, 1))
    net = Net("level", ("a",), one[0], one[0], one, one, one, one[0], one, one[0], np.array([50.0, 1.0]))
    registry = Registry(objects.at(settings.bucket("models")))
    for version in ("v1", "v2"):
        files = {"ces.npz": net.save(), "card.md": f"# ces {version}".encode()}
        registry.store("ces", version, files, {"decision": "kept", "trained_at": "2026-06-15T12:00:00Z"})

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "shared.keeper", "models", *words],
            cwd=ROOT, env={**os.environ, **settings.environ}, text=True, capture_output=True, check=False,
        )  # fmt: skip

    return run


@pytest.mark.full
def test_a_version_is_promoted_shown_rolled_back_and_exported(
    models: Models, rows: Callable[..., list[Any]], tmp_path: Path
) -> None:
    for version in ("v1", "v2"):
        done = models("promote", "ces", version, "--reason", "a test", "--as", "ann")
        assert done.returncode == 0, done.stderr
    listed = json.loads(models("list", "--json").stdout)
    jsonschema.validate(listed, SCHEMA)
    assert [(one["version"], one["current"]) for one in listed["models"]] == [("v1", False), ("v2", True)]
    assert models("rollback", "ces", "--reason", "worse", "--as", "ann").stdout == "ces: v1 is current\n"
    assert models("show", "ces").stdout == "# ces v1\n"
    assert models("export", str(tmp_path / "out")).returncode == 0
    assert sorted(f.name for f in (tmp_path / "out" / "ces").iterdir()) == ["card.md", "ces.npz", "manifest.json"]
    assert models("export", str(tmp_path / "out")).returncode == 3
    assert [tuple(r) for r in rows("select actor, action, why from groundskeeper.operator_audit order by at")] == [
        ("ann", "model_promote", "a test"),
        ("ann", "model_promote", "a test"),
        ("ann", "model_rollback", "worse"),
    ]


def test_what_is_no_version_is_refused_and_not_in_the_audit(models: Models, rows: Callable[..., list[Any]]) -> None:
    assert models("promote", "ces", "v9", "--reason", "a test").returncode == 3
    assert not rows("select 1 from groundskeeper.operator_audit")
