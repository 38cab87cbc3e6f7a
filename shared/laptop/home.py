"""Where the laptop's plane keeps its state, and the environment in which its parts and `keeper` run.

Everything is below one folder, `.groundskeeper` in the repository (KEEPER_HOME elsewhere). With DATABASE_URL set,
somebody's own database is used and nothing is started or enforced for it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared import manifest
from shared.laptop.postgres import Postgres

PROJECT = "demo-groundskeeper"
DATABASE = "platform"


def folder() -> Path:
    """The folder of the plane's state."""
    return Path(os.environ.get("KEEPER_HOME") or manifest.ROOT / ".groundskeeper").absolute()


def defaults(home: Path) -> dict[str, str]:
    """What the cloud's Terraform would set, for the parts below `home`; what is set already goes before it."""
    buckets = {bucket.bucket for task in manifest.load_all().values() for bucket in task.buckets}
    return {
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "KEEPER_SECRETS": str(home / "secrets"),
        **{f"KEEPER_BUCKET_{b.upper().replace('-', '_')}": str(home / "objects" / b) for b in sorted(buckets)},
    }


# The demo's data is nobody's: its purges act, and no backup has to be verified first.
DEMO = {"KEEPER_MODE": "enforce", "KEEPER_BACKUP_GATE_HOURS": "0"}


@contextmanager
def environment() -> Iterator[dict[str, str]]:
    """The variables to run in, with the embedded PostgreSQL up for as long as the block lasts."""
    home = folder()
    if os.environ.get("DATABASE_URL"):
        yield {**defaults(home), **os.environ}
        return
    with Postgres.start(home / "postgres") as server:
        exists = server.execute("select 1 from pg_database where datname = 'platform'")
        url = server.database_url(DATABASE) if exists else server.create_database(DATABASE)
        yield {**defaults(home), **DEMO, **os.environ, "DATABASE_URL": url}
