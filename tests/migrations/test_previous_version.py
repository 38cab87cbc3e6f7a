"""While a deployment replaces the code, the previous version's runs on the new schema: here its own tests do.

    python -m pytest -m soak tests/migrations/test_previous_version.py

PREVIOUS names the version, any ref of git; by default it is the newest tag, and before the first one the commit
before the newest migration. The tests run with the packages of this version.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.manifest import ROOT
from shared.migrations import run

# A migration that is yet to come: every table has a column more, and one table is new.
_PLANTED = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade() -> None:
    for table in sa.inspect(op.get_bind()).get_table_names(schema="groundskeeper"):
        if table not in ("schema_version", "platform_version"):
            op.add_column(table, sa.Column("planted", sa.Text()), schema="groundskeeper")
    op.create_table("planted", sa.Column("planted", sa.Text()), schema="groundskeeper")
"""

# In the process of the previous version's tests: whatever they migrate is migrated by the new code.
_PLUGIN = """
import json, os, subprocess, sys
from pathlib import Path
from shared.migrations import run

assert Path(run.__file__).is_relative_to(Path.cwd()), run.__file__
_HERE = Path(__file__).parent


def upgrade(engine, branch):
    url = engine.url.render_as_string(hide_password=False)
    code = (
        "import json, os, sqlalchemy; from shared.migrations import run;"
        f"print(json.dumps(run.upgrade(sqlalchemy.create_engine(os.environ['URL']), {branch!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=_HERE, env={"URL": url}, check=True, stdout=subprocess.PIPE)
    revisions = json.loads(done.stdout)
    with (_HERE / "migrated.jsonl").open("a") as file:
        file.write(json.dumps(revisions) + "\\n")
    return revisions


run.upgrade = upgrade
"""


# Until it was told apart, this test also counted the plans of the house's own statements over the catalogue, which any
# migration may change.
_NOT_OURS = "tests/functions/test_analyze_query_plans.py::test_a_plan_that_changed_is_told_and_one_that_did_not_is_not"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _previous() -> str:
    """The commit whose code the new schema has to serve."""
    if named := os.environ.get("PREVIOUS") or _git("tag", "--list", "--sort=-v:refname").partition("\n")[0]:
        return _git("rev-parse", f"{named}^{{commit}}")
    folders = [str(branch.folder) for branch in run.BRANCHES.values()]
    return _git("rev-parse", _git("log", "-1", "--format=%H", "--diff-filter=A", "--", *folders) + "^")


@pytest.mark.soak
@pytest.mark.timeout(5000)
def test_the_previous_versions_tests_of_tasks_pass_on_the_new_schema(tmp_path: Path) -> None:
    previous = tmp_path / "previous"
    _git("archive", "-o", str(tmp_path / "previous.zip"), _previous())
    shutil.unpack_archive(tmp_path / "previous.zip", previous)
    new = tmp_path / "new"
    shutil.copytree(ROOT / "shared", new / "shared", ignore=shutil.ignore_patterns("__pycache__"))
    (new / "shared/migrations/groundskeeper/v9999_planted.py").write_text(
        _PLANTED.format(head=run.head("groundskeeper"))
    )
    (new / "newer_schema.py").write_text(_PLUGIN)
    words = ["-q", "-p", "newer_schema", "-m", "not full and not soak", "--deselect", _NOT_OURS, "tests/functions"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=previous,
        env={k: v for k, v in os.environ.items() if k != "CI"} | {"PYTHONPATH": f"{previous}:{new}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    migrated = [json.loads(line) for line in (new / "migrated.jsonl").read_text().splitlines()]
    assert any("9999" in revisions for revisions in migrated), "the tests never saw the new schema"
