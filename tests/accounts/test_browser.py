"""An account deleted in a real Chromium: the built page with its real headers, Firebase's Web SDK, the endpoint."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from shared.clock import SystemClock
from shared.laptop.functions import Functions, OneProcess
from shared.laptop.ports import free_ports
from shared.laptop.site import Site
from shared.manifest import ROOT, load_all
from shared.settings import Settings
from tests import node
from tests.accounts.fixtures import using as using
from tests.accounts.fixtures import world as world
from tests.accounts.world import PROJECT, World
from tests.conftest import ManualClock, as_role
from tests.parts import missing

DRIVE = Path(__file__).parent / "drive.mjs"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SystemClock().now())  # the browser's and the functions' clock is the machine's


def built(folder: Path) -> Path:
    """The site's build, on the packages of its lock file."""
    copy = folder / "hosting"
    shutil.copytree(ROOT / "hosting", copy, ignore=shutil.ignore_patterns("node_modules", "dist", ".*"))
    (copy / "node_modules").symlink_to(node.installed("hosting"))
    (folder / "functions").symlink_to(ROOT / "functions")
    ended = node.run("hosting", "vite", "build", cwd=copy)
    assert ended.returncode == 0, ended.stderr
    return copy / "dist"


@pytest.mark.full
def test_people_delete_their_account_in_a_browser(
    world: World, using: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        missing("Chromium", "install the package chromium")
    modules = node.installed("images/lighthouse")
    gone, kept = world.account("gone7f3a"), world.account("kept91bc")
    role = as_role(using, "delete-account").database_url or ""
    for name, value in {**using.environ, "DATABASE_URL": role}.items():
        monkeypatch.setenv(name, value)
    functions = Functions(port=next(free_ports()))
    functions.serve({"delete_account": load_all()["delete_account"]}, OneProcess())
    site = Site(
        functions.base, project=PROJECT, firebase=world.firebase.host, dist=built(tmp_path), port=next(free_ports())
    )
    try:
        ended = subprocess.run(
            ["node", DRIVE, modules, chromium, site.base, f"{gone}@example.com", "a password"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        site.stop()
        functions.stop()
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["wrong"] == "E-mail and password do not match."
    assert (found["right"], found["form"]) == ("Your account is deleted.", False)
    assert (found["errors"], found["violations"]) == ([], [])
    assert len(found["number"]) == 36
    assert ["endpoints", "2", "0"] in found["counts"]
    assert found["remains"] >= 4
    assert world.traces(gone) == {}
    assert not world.firebase.users.has(f"uid-{gone}")
    assert world.firebase.users.has(f"uid-{kept}")
    assert world.traces(kept)["user_profile"] == 1
