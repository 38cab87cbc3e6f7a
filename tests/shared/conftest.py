"""Throwaway tasks for the wrapper's tests: a body in a line or two, run in this process or killed in another."""

import logging
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared import logs
from shared.call import of_slot
from shared.clock import Clock
from shared.manifest import Cron
from shared.run import Runner
from shared.settings import Settings
from shared.task import load

MANIFEST = """\
summary: A task of a test.
owner: tests
triggers: [{trigger}]
run: {{kind: function, memory_mb: 128, cpu: 1, timeout_s: {timeout_s}}}
{extra}
uses: []
requires: []
tables: {{}}
must_succeed_within_s: 93600
params: {{limit: 10}}
"""

MAIN = '''\
"""A task of a test."""

from dataclasses import dataclass

from sqlalchemy import text

from shared.errors import Partial, Refused, Retry, Unavailable
from shared.plans import Item, Plan
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    limit: int


def run(ctx: Context, params: Params) -> dict[str, int]:
{body}


main = entrypoint(__file__, run)
'''

DAILY = '{cron: "0 6 * * *"}'
SLOT = of_slot(Cron("0 6 * * *"), datetime(2026, 6, 15, 6, tzinfo=UTC))
MakeTask = Callable[..., Runner]
Rows = Callable[..., list[Any]]


@pytest.fixture(autouse=True)
def _log_lines_on_standard_output() -> None:
    """Where the cloud's log lines go; another test of this process may have sent them elsewhere."""
    logs.configure("stdout", logging.INFO)


@pytest.fixture
def task_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a task and give its folder."""

    def write(
        body: str, *, name: str = "sample_task", trigger: str = DAILY, extra: str = "", timeout_s: int = 300
    ) -> Path:
        folder = tmp_path / "functions" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "task.yaml").write_text(MANIFEST.format(trigger=trigger, extra=extra, timeout_s=timeout_s))
        (folder / "main.py").write_text(MAIN.format(body=textwrap.indent(textwrap.dedent(body).strip(), "    ")))
        return folder

    return write


@pytest.fixture
def make(task_folder: Callable[..., Path], settings: Settings, clock: Clock) -> Iterator[MakeTask]:
    """A runner of a throwaway task on the test's database, as superuser."""
    made: list[Runner] = []

    def runner(body: str, *, using: Settings | None = None, at: Clock | None = None, **declared: Any) -> Runner:
        made.append(load(task_folder(body, **declared)).runner(using or settings, at or clock))
        return made[-1]

    yield runner
    for each in made:
        each.close()
