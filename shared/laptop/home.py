"""Where the laptop's plane keeps its state, and the environment in which its parts and `keeper` run.

Everything is below one folder, `.groundskeeper` in the repository (KEEPER_HOME elsewhere). With DATABASE_URL set,
somebody's own database is used and nothing is started or enforced for it.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from shared import manifest
from shared.errors import ConfigurationError
from shared.laptop.objects import folders
from shared.laptop.postgres import Postgres

PROJECT = "demo-groundskeeper"
DATABASE = "platform"

# The demo's data is nobody's: its purges act, and no backup has to be verified first.
DEMO = {"KEEPER_MODE": "enforce", "KEEPER_BACKUP_GATE_HOURS": "0", "THREAT_FEEDS": "samples", "DARK_WEB": "samples"}


def folder() -> Path:
    """The folder of the plane's state."""
    return Path(os.environ.get("KEEPER_HOME") or manifest.ROOT / ".groundskeeper").absolute()


def functions() -> Path:
    """The folder of the tasks: KEEPER_FUNCTIONS, or the repository's functions/."""
    return Path(os.environ.get("KEEPER_FUNCTIONS") or manifest.FUNCTIONS).absolute()


def embedded() -> bool:
    """Whether the database is the laptop's own."""
    return not os.environ.get("DATABASE_URL")


def defaults(home: Path) -> dict[str, str]:
    """What the cloud's Terraform would set, for the parts below `home`; what is set already goes before it."""
    tasks = manifest.load_all(functions()).values()
    buckets = {bucket.bucket for task in tasks for bucket in task.buckets}
    keys = {key for task in tasks for key in task.kms}
    return {
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "KEEPER_SECRETS": str(home / "secrets"),
        **folders(home / "objects", buckets),
        **{f"KEEPER_KEY_{key.upper().replace('-', '_')}": str(home / "keyring" / key) for key in keys},
        **_running_plane(home),
    }


@contextmanager
def environment() -> Iterator[dict[str, str]]:
    """The variables to run in, with the embedded PostgreSQL up for as long as the block lasts."""
    home = folder()
    given = defaults(home)  # before anything starts: a broken task.yaml is said at once
    if not embedded():
        yield {**given, **os.environ}
        return
    with Postgres.start(home / "postgres") as server:
        url = server.create_database(DATABASE)
        yield {**given, **DEMO, **os.environ, "DATABASE_URL": url}


# --- one plane a folder


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Be the only plane of `home`. Raises ConfigurationError when there is one already."""
    home.mkdir(mode=0o700 if os.geteuid() else 0o711, parents=True, exist_ok=True)
    with (home / "plane.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"a plane is up already in {home}: end it with Ctrl-C where it runs, "
                "or set KEEPER_HOME to another folder"
            ) from None
        try:
            yield
        finally:
            _published(home).unlink(missing_ok=True)


def publish(home: Path, variables: Mapping[str, str]) -> None:
    """Let `keeper` in another terminal find the parts of this plane while it is up."""
    _published(home).touch(mode=0o600)  # Slack's address, say, may be among them
    _published(home).write_text(json.dumps(dict(variables)), encoding="utf-8")


def _published(home: Path) -> Path:
    return home / "plane.json"


def _running_plane(home: Path) -> dict[str, str]:
    """What the plane that is up has published; a killed one's words count no more."""
    with suppress(FileNotFoundError), (home / "plane.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(FileNotFoundError):
                return dict(json.loads(_published(home).read_text(encoding="utf-8")))
    return {}
