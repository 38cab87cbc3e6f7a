"""Write the next revision of a branch from what its tables and its revisions differ in, for a developer to edit.

    python -m shared.migrations.draft platform "Add refunds"

It runs the branch's revisions on an empty database of a PostgreSQL of its own, and touches no other.
"""

import re
import sys
from pathlib import Path
from typing import Any

from alembic import command
from sqlalchemy import Engine, create_engine

from shared.laptop.postgres import Postgres
from shared.migrations import run


def draft(engine: Engine, branch: str, message: str) -> str:
    """The path of the new revision's file; the empty database of `engine` is brought to the branch's head first."""
    known = run.BRANCHES[branch]
    for name in dict.fromkeys(("groundskeeper", branch)):
        run.upgrade(engine, name)
    number = 1 + len(list(known.folder.glob("v*.py")))
    with engine.begin() as connection:
        run.make_schema(connection)
        config = run.configuration(known, connection, include_name=only_of(branch))
        config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
        script: Any = command.revision(config, message, autogenerate=True, rev_id=f"{number:04}")
    file = Path(script.path)
    file.write_text(_tidied(file.read_text()))
    return str(file)


# What Alembic writes and nobody needs to read: its markers, and arguments at their defaults.
_NOISE = re.compile(r" *# ### .*\n|, unique=False|, nullable=True|astext_type=sa.Text\(\)|(?<=Identity\()always=False")


def _tidied(text: str) -> str:
    return _NOISE.sub("", text)


def only_of(branch: str) -> Any:
    """Alembic's filter of what belongs to `branch`: not the version tables, not the partitions."""
    partition = re.compile(r"endpoints_\d{8}")
    versions = {b.version_table for b in run.BRANCHES.values()}

    def include(name: str | None, kind: str, _parents: Any) -> bool:
        if kind == "schema":
            return name == ("groundskeeper" if branch == "groundskeeper" else None)
        return not (kind == "table" and (name in versions or partition.fullmatch(name or "")))

    return include


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in run.BRANCHES:
        sys.exit(f"usage: python -m shared.migrations.draft {{{'|'.join(run.BRANCHES)}}} MESSAGE")
    with Postgres.temporary() as server:
        sys.stdout.write(draft(create_engine(server.url), *sys.argv[1:]) + "\n")
