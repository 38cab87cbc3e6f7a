"""The page of a task, made of its task.yaml and the docstring of its main.py: purpose, schedule, rights, parameters,
what can go wrong, and what to do then."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shared.manifest import ROOT, Task
from shared.wording import counted

# Where a room's page has another name.
_PAGES = {"relay": "outbox", "analytics": "telemetry", "watch": "console"}


def overview(tasks: Mapping[str, Task]) -> str:
    """The table of all tasks: what starts each, as whom it runs, what it may use and how large it is, as Markdown."""
    lines = [
        "<!-- written by `keeper docs` from task.yaml: change those -->",
        "# Tasks",
        "",
        "What each is for stands in the [README](../../README.md#tasks), what each may touch in the database on its",
        "own page.",
        "The identity is a service account of the project; every one may also write its logs and read its own source.",
        "",
        "| task | started by (UTC) | identity | roles | secrets and keys | topics | buckets | size | at most |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task in tasks.values():
        run = task.run
        topics = (*(f"from {name}" for name in task.subscribes), *(f"to {name}" for name in task.publishes))
        cells = (
            f"[{task.name}]({task.name}.md)",
            _listed(f"`{trigger}`" for trigger in task.triggers) or "by hand",
            f"`{task.slug}`",
            _listed(task.roles),
            _listed((*task.secrets, *task.kms)),
            _listed(topics),
            _listed(f"{one.bucket} ({one.access})" for one in task.buckets),
            f"{run.kind}, {run.memory_mb} MiB, {run.cpu:g} vCPU" + (f", {run.tasks} parts" if run.tasks > 1 else ""),
            f"{run.timeout_s} s",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def page(task: Task) -> str:
    """The page, as Markdown."""
    return "\n".join(
        [*_head(task), *_when(task), *_rights(task), *_params(task), *_failures(task), *_runbook(task), ""]
    )


def _head(task: Task) -> Iterator[str]:
    yield "<!-- written by `keeper docs` from task.yaml and main.py: change those -->"
    yield f"# {task.name}"
    yield ""
    text = ast.get_docstring(ast.parse((task.folder / "main.py").read_text(encoding="utf-8"))) or task.summary
    yield text
    yield ""
    room_pages = {name for room in task.uses if (ROOT / "docs" / f"{(name := _PAGES.get(room, room))}.md").is_file()}
    more = [f"[docs/{name}.md](../{name}.md)" for name in sorted(room_pages)]
    yield f"Owner: {task.owner}. Source: [functions/{task.name}](../../functions/{task.name})." + (
        f" More: {', '.join(more)}." if more else ""
    )
    yield ""


def _when(task: Task) -> Iterator[str]:
    yield "## When and where"
    yield ""
    started = "; ".join(f"`{t}`" for t in task.triggers) or "by hand only"
    yield f"- Started by {started}; always also by `keeper run {task.name}`."
    run = task.run
    parts = f", {run.tasks} parts, {run.parallelism} at a time" if run.tasks > 1 else ""
    yield f"- Runs as a {run.kind}: {run.memory_mb} MiB, {run.cpu:g} vCPU, at most {run.timeout_s} s{parts}."
    if task.must_succeed_within_s:
        yield f"- The watchdog misses it after {task.must_succeed_within_s} s without a good ending."
    if task.destructive:
        caps = ", ".join(counted(most, unit) for unit, most in task.caps.items())
        yield f"- It deletes: at most {caps} unapproved; in observe mode it only plans."
    yield ""


def _rights(task: Task) -> Iterator[str]:
    yield "## What it may touch"
    yield ""
    for access, verb in (("read", "Reads"), ("write", "Writes"), ("own", "Owns")):
        for table, columns in task.tables.get(access, {}).items():
            yield f"- {verb} `{table}`: {', '.join(columns)}."
    for bucket in task.buckets:
        verb = "Writes" if bucket.access == "write" else "Reads"
        yield f"- {verb} the bucket `{bucket.bucket}` below `{bucket.prefix or '/'}`."
    for what, names in (
        ("Reads the secret", task.secrets),
        ("Uses the key", task.kms),
        ("Publishes to", task.publishes),
        ("Starts", task.starts if len(task.starts) < 8 else ("every other task",)),
        ("Has the role", task.roles),
    ):
        for name in names:
            yield f"- {what} `{name}`."
    if not any((*task.tables.values(), task.buckets, task.secrets, task.kms, task.publishes, task.starts)):
        yield "- Nothing but its own rows of the ledger."
    yield ""


def _params(task: Task) -> Iterator[str]:
    if not task.params:
        return
    yield "## Parameters"
    yield ""
    yield "| parameter | value | set by |"
    yield "|---|---|---|"
    for name, value in _flat(task.params):
        if isinstance(value, dict):
            yield f"| {name} | `{value['default']}` | the variable {value['env']} |"
        else:
            yield f"| {name} | `{_cell(value)}` | task.yaml |"
    yield ""


def _flat(params: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, dict) and "env" not in value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _cell(value: Any) -> str:
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return f"{len(value)}: " + ", ".join(str(one.get("name", "…")) for one in value if isinstance(one, dict))
    return str(value).replace("|", "\\|").replace("`", "'")


def _failures(task: Task) -> Iterator[str]:
    yield "## What can go wrong"
    yield ""
    yield "| it ends | because | what happens |"
    yield "|---|---|---|"
    yield "| retry | the database or a service it asks did not answer | it is called again; nothing is lost |"
    yield "| stopped | its time was up, or somebody paused it | progress is kept, the next run goes on |"
    if task.destructive:
        yield "| refused | above its cap, or no fresh verified backup | nothing was written; decide |"
    if task.secrets or task.kms or task.buckets:
        yield "| unavailable | a secret, key or bucket is not set up; the words name it | alert; set it up |"
    yield "| partial | some items failed; the words name them | the others are done; they are tried again |"
    yield "| failed | a defect | alert; the log has the way to it |"
    yield ""


def _runbook(task: Task) -> Iterator[str]:
    yield "## Runbook"
    yield ""
    yield f"1. What happened: `keeper history {task.name}`, or its page on the console."
    yield f"2. What would it do now: `keeper run {task.name} --plan` writes nothing."
    yield f'3. Stop it: `keeper pause {task.name} --reason "…"`; go on: `keeper resume {task.name}`.'
    yield f'4. Run it again once the cause is gone: `keeper run {task.name} --reason "…"`. Twice does no harm.'
    if task.destructive:
        yield '5. Above its cap: `keeper approvals list`, look at the plan, `keeper approvals approve ID --reason "…"`.'
        yield "6. It took too much: `keeper restore RUN_ID` where its rule archives; else the newest verified backup."
    else:
        yield "5. Nothing helps: see [operations](../operations.md), and tell the owner with the run's id."
