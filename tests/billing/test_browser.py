"""`make up`, then a new user in a real Chromium: subscribes, cancels, subscribes again and deletes the account."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import create_engine, text

from shared.clock import SystemClock
from shared.laptop import home
from shared.laptop.postgres import Postgres
from shared.manifest import ROOT
from tests import node
from tests.accounts.test_browser import DRIVE as DELETE
from tests.accounts.test_browser import built
from tests.parts import missing

DRIVE = Path(__file__).parent / "drive.mjs"
WAIT_S = 120.0
# The site is served from a build beside the work tree, which `npm run build` would have made in it.
_UP = """
import pathlib, sys
from shared.laptop import plane, site
site.HOSTING = pathlib.Path(sys.argv[1])
sys.exit(plane.up(demo=False))
"""
EMAIL, PASSWORD, ACCOUNT = "new@example.com", "a long password", "new-7f3a"


class Plane:
    """The plane in a process of its own; `site`, `stripe` and `firebase` are where a browser finds them."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        hosting = built(folder).parent
        environ = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")}
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", _UP, str(hosting)], cwd=ROOT, env={**environ, "KEEPER_HOME": str(self.home)},
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.said = ""
        self._up = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._up.wait(WAIT_S), self.said
        assert "the plane is up" in self.said, self.said
        variables = json.loads((self.home / "plane.json").read_text())
        self.stripe, self.firebase = (
            f"http://{variables[name]}" for name in ("STRIPE_EMULATOR_HOST", "FIREBASE_AUTH_EMULATOR_HOST")
        )
        self.site = next(line.split()[-1] for line in self.said.splitlines() if line.startswith("site "))

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.said += line
            if "the plane is up" in line:
                self._up.set()
        self._up.set()

    def rows(self, sql: str, **binds: Any) -> list[Any]:
        """Run a statement on the plane's database."""
        with Postgres.start(self.home / "postgres") as server:
            engine = create_engine(server.database_url(home.DATABASE))
            with engine.begin() as connection:
                done = connection.execute(text(sql), binds)
                found = [tuple(row) for row in done] if done.returns_rows else []
            engine.dispose()
        return found

    def until(self, tier: str) -> None:
        """Wait until the account shows that tier: the webhook is on its way."""
        clock = SystemClock()
        last = clock.monotonic() + 30
        asked = "select tier from user_profile where account_id = :account"
        while (found := self.rows(asked, account=ACCOUNT)) != [(tier,)]:
            assert clock.monotonic() < last, (
                found,
                self.rows("select type, outcome, reason from groundskeeper.billing_event"),
            )
            clock.sleep(0.2)

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) in (0, 130)
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture
def plane() -> Iterator[Plane]:
    with tempfile.TemporaryDirectory(prefix="groundskeeper-") as name:
        Path(name).chmod(0o711)  # the database's user can reach it, whoever we are
        up = Plane(Path(name))
        yield up
        up.stop()


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_new_user_subscribes_cancels_and_deletes_the_account_in_a_browser(plane: Plane, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        missing("Chromium", "install the package chromium")
    modules = node.installed("images/lighthouse")
    folder = os.environ.get("BILLING_SCREENSHOTS") or str(tmp_path)

    def drive(script: Path, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            ["node", str(script), str(modules), chromium, *words],
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = dict(json.loads(done.stdout))
        assert (found["errors"], found["violations"]) == ([], [])
        return found

    # What the platform does when somebody signs up: a user at Firebase, and a profile.
    signed_up = requests.post(
        f"{plane.firebase}/identitytoolkit.googleapis.com/v1/accounts:signUp?key=any",
        json={"email": EMAIL, "password": PASSWORD, "returnSecureToken": True},
        timeout=30,
    ).json()
    plane.rows(
        "insert into user_profile (account_id, firebase_uid, email, tier, created_at, updated_at)"
        " values (:account, :uid, :email, 'free', now(), now())",
        account=ACCOUNT, uid=signed_up["localId"], email=EMAIL,
    )  # fmt: skip

    [[first, _, status]] = drive(DRIVE, plane.stripe, folder, "subscribe", ACCOUNT)["rows"]
    assert status == "active"
    plane.until("pro")
    [[_, _, status]] = drive(DRIVE, plane.stripe, folder, "cancel", first)["rows"]
    assert status == "canceled"
    plane.until("free")
    drive(DRIVE, plane.stripe, folder, "subscribe", ACCOUNT)
    plane.until("pro")

    deleted = drive(DELETE, plane.site, EMAIL, PASSWORD, str(Path(folder) / "deleted.png"))
    assert (deleted["wrong"], deleted["right"]) == ("E-mail and password do not match.", "Your account is deleted.")
    assert not deleted["form"]
    assert ["user profile", "1", "0"] in deleted["counts"]
    assert plane.rows("select account_id from user_profile where account_id = :account", account=ACCOUNT) == []
    subscriptions = requests.get(plane.stripe, timeout=30).text
    assert (subscriptions.count("<td>canceled</td>"), subscriptions.count("<td>active</td>")) == (2, 0)
    ended = plane.rows(
        "select task, outcome from groundskeeper.task_run where task in ('stripe_webhook', 'delete_account')"
    )
    assert {task for task, _ in ended} == {"stripe_webhook", "delete_account"}
    assert {outcome for _, outcome in ended} == {"ok"}
