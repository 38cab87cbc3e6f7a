"""`keeper new`: a task's folder and its test, which load, run and pass before the first edit."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template

import click

from shared import manifest, schedule
from shared.errors import Refused
from shared.keeper import show
from shared.keeper.session import functions_folder
from shared.manifest import NAME, Task

# Heavy starts on one database stay this far apart; the morning hours belong to the nightly work.
_APART = timedelta(minutes=30)
_DAY = (datetime(2026, 1, 1, 6, tzinfo=UTC), datetime(2026, 1, 1, 23, tzinfo=UTC))
_OFTEN = 12  # starts in that day

_MANIFEST = Template("""\
# yaml-language-server: $$schema=../../shared/task.schema.json
summary: $summary
owner: platform
triggers:
  - {cron: "$cron"}
run: {kind: function, memory_mb: 512, cpu: 1, timeout_s: 300}
uses: []            # the rooms of shared/ that main.py imports
requires: []        # the packages it imports, beside the core's (shared/core.yaml)
tables:
  read: {}          # table: [columns]; grants and `keeper doctor --adopt` follow from it
must_succeed_within_s: 93600
params:
  limit: 100
""")

_MAIN = Template('''\
"""$summary

Say here what it never does.
"""

from dataclasses import dataclass

from sqlalchemy import text

from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    limit: int


def run(ctx: Context, params: Params) -> dict[str, int]:
    with ctx.begin() as connection:
        rows = connection.execute(text("select n from generate_series(1, :limit) n"), {"limit": params.limit}).all()
        ctx.count("rows.seen", len(rows))
    return ctx.counts


main = entrypoint(__file__, run)
''')

_TEST = Template('''\
"""$name: what it does, and what it leaves alone."""

from shared.errors import Outcome


def test_it_ends_ok_and_counts_what_it_saw(run_task):
    result = run_task("$name")
    assert result.outcome is Outcome.OK, result.error
    assert result.counts == {"rows.seen": 100}


def test_a_plan_writes_nothing(run_task):
    assert run_task("$name", planning=True).outcome is Outcome.PLANNED
''')


def free_slot(tasks: dict[str, Task]) -> str:
    """The first daily slot of the day hours that is half an hour from every other task's. Raises Refused."""
    start, end = _DAY
    slots = [list(schedule.slots(x, start, end)) for t in tasks.values() for x in t.triggers if x.kind == "cron"]
    # what runs so often is near everything, and its own reasons say why that is no harm
    taken = {slot for of_one in slots if len(of_one) < _OFTEN for slot in of_one}
    moment = start
    while moment < end:
        if all(abs(moment - other) >= _APART for other in taken):
            return f"{moment.minute} {moment.hour} * * *"
        moment += _APART / 2
    raise Refused("no daily slot is half an hour from every other: choose one in task.yaml and say why it may be near")


@click.command()
@click.argument("name")
@click.option("--summary", help="One sentence: what it does.")
def new(name: str, summary: str | None) -> None:
    """Make functions/NAME and its test: they run as they are, then you edit them."""
    if not NAME.fullmatch(name):
        raise Refused(f"{name!r} cannot be a task's name: 6 to 24 of a-z, 0-9 and _, a letter first and no _ last")
    functions = functions_folder()
    folder, test = functions / name, functions.parent / "tests" / "functions" / f"test_{name}.py"
    for path in (folder, test):
        if path.exists():
            raise Refused(f"{path} exists: choose another name or remove it")
    tasks = manifest.load_all(functions)
    words = {"name": name, "summary": summary or f"Says in one sentence what {name} does.", "cron": free_slot(tasks)}
    for path, template in ((folder / "task.yaml", _MANIFEST), (folder / "main.py", _MAIN), (test, _TEST)):
        _write(path, template.substitute(words))
    show.console.print(
        f"Edit it, then: keeper run {name} --plan; keeper run {name}; pytest tests/functions/test_{name}.py",
        soft_wrap=True,
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    show.console.print(f"wrote {path}", soft_wrap=True, highlight=False)
