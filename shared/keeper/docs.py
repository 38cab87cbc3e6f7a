"""`keeper docs`: write the generated parts of the documentation from the manifests; `--check` for CI."""

import sys
from pathlib import Path

import click

from shared.errors import ConfigurationError
from shared.keeper import show, task_pages
from shared.manifest import ROOT, Task, load_all

_README = ROOT / "README.md"
_PAGES = ROOT / "docs" / "tasks"


def readme_table(tasks: dict[str, Task]) -> str:
    """The README's table of tasks."""
    lines = ["| task | what it does | started by | runs as |", "|---|---|---|---|"]
    for task in tasks.values():
        started = ", ".join(f"`{t}`" for t in task.triggers) or "by hand"
        lines.append(f"| [{task.name}](docs/tasks/{task.name}.md) | {task.summary} | {started} | {task.run.kind} |")
    return "\n".join(lines)


def between(text: str, name: str, content: str) -> str:
    """`text` with what stands between the markers `name` replaced. Raises ConfigurationError without them."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, opened, rest = text.partition(start)
    _, closed, tail = rest.partition(end)
    if not opened or not closed:
        raise ConfigurationError(f"the markers {start} and {end} are missing: put them where the text belongs")
    return f"{head}{start}\n{content}\n{end}{tail}"


def generated() -> dict[Path, str]:
    """Every file with a generated part, as it should be."""
    tasks = load_all()
    pages = {_PAGES / f"{name}.md": task_pages.page(task) for name, task in tasks.items()}
    pages[_PAGES / "README.md"] = task_pages.overview(tasks)
    return {_README: between(_README.read_text(encoding="utf-8"), "tasks", readme_table(tasks)), **pages}


def _as_it_is(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where a file is out of date.")
def docs(check: bool) -> None:
    """Write the parts of the documentation that follow from task.yaml."""
    wanted = generated()
    stale = [path for path, text in wanted.items() if _as_it_is(path) != text]
    for path in stale:
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        show.console.print(f"{'out of date' if check else 'wrote'}: {path.relative_to(ROOT)}")
    if stale and check:
        show.complain("run `keeper docs`")
        sys.exit(1)
