"""What every command starts from: settings, the database (an embedded one on a laptop), the clock, and who asks."""

import getpass
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from shared import manifest
from shared import settings as settings_module
from shared.clock import Clock, SystemClock
from shared.database import Database
from shared.errors import ConfigurationError
from shared.manifest import Task
from shared.settings import Settings


@dataclass
class Session:
    """One invocation of `keeper`."""

    settings: Settings
    database: Database
    actor: str
    clock: Clock = field(default_factory=SystemClock)

    @property
    def functions(self) -> Path:
        """The folder of the tasks."""
        return functions_folder()

    def tasks(self) -> dict[str, Task]:
        """Every task, by name. Raises ManifestError."""
        return manifest.load_all(self.functions)


def functions_folder() -> Path:
    """Where the tasks are: KEEPER_FUNCTIONS, or the repository's functions/."""
    return Path(os.environ.get("KEEPER_FUNCTIONS") or manifest.FUNCTIONS)


def find(tasks: dict[str, Task], name: str) -> Task:
    """The task called `name`. Raises ConfigurationError with the nearest names."""
    import difflib

    if name not in tasks:
        near = difflib.get_close_matches(name, tasks, n=3) or sorted(tasks)
        raise ConfigurationError(f"there is no task {name!r}: did you mean {', '.join(near)}?")
    return tasks[name]


@contextmanager
def session(actor: str | None = None) -> Iterator[Session]:
    """A session on DATABASE_URL, or on the laptop's embedded PostgreSQL, started for as long as it is needed."""
    with _environment() as environ:
        settings = settings_module.read(environ)
        database = Database(settings, "keeper")
        try:
            yield Session(settings, database, actor or getpass.getuser())
        finally:
            database.close()


def _environment() -> AbstractContextManager[dict[str, str]]:
    """The variables to run in: the laptop's; in the migrate job, whose source holds no laptop, the process's own."""
    if find_spec("shared.laptop") is None:
        return nullcontext(dict(os.environ))
    from shared.laptop import home

    return home.environment()
