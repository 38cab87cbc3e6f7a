"""Every command that a page prints exists as it is printed: its name, its options, and in blocks what it requires."""

import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from shared.keeper.__main__ import keeper
from shared.manifest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "terraform").glob("*.md")])
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
BENCHES = {file.stem for file in (ROOT / "bench").glob("*.py")}


def printed(page: Path) -> Iterator[tuple[str, bool]]:
    """The lines of the page's blocks of shell, and its inline code: what is printed, and whether as a block."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.strip(), True
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        yield code, False


def commands() -> Iterator[tuple[str, list[str], bool]]:
    """Page, words without what stands before the program, and whether it is a line of a block."""
    for page in PAGES:
        for line, block in printed(page):
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z][A-Z0-9_]*=.*", words[0]):
                words = words[1:]
            if words and words[0].rpartition("/")[2] in ("keeper", "make", "python"):
                words[0] = words[0].rpartition("/")[2]
                for each in itertools.product(*(word.split("|") for word in words)):  # `keeper secret add|list`
                    yield page.relative_to(ROOT).as_posix(), list(each), block


def unlike(words: list[str], *, block: bool) -> str:
    """How a command of `keeper` is not one it has; empty where it is."""
    command: click.Command = keeper
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.commands.get(words[0])
        if found is None:
            return f"there is no {words[0]!r}"
        command, words = found, words[1:]
    known: dict[str, click.Parameter | None] = {"--help": None}
    known |= {name: p for p in command.params for name in p.opts + p.secondary_opts}
    given: list[click.Parameter | None] = []
    places = 0
    while words:
        word, *words = words
        option, _, value = word.partition("=")
        if not option.startswith("--"):
            places += 1
            continue
        if option not in known:
            return f"{command.name} has no {option}"
        given.append(found := known[option])
        if isinstance(found, click.Option) and not (found.is_flag or value) and words and words[0][:1] != "-":
            words = words[1:]
    wanted = [p for p in command.params if p.required and p not in given]
    if block and None not in given:
        arguments = [p for p in wanted if isinstance(p, click.Argument)]
        options = [p.opts[0] for p in wanted if isinstance(p, click.Option)]
        if options:
            return f"{command.name} needs {', '.join(options)}"
        if places < len(arguments):
            return f"{command.name} needs {len(arguments)} words, {places} are there"
    return ""


def test_there_are_commands_to_look_at() -> None:
    assert sum(block for _, _, block in commands()) > 20


@pytest.mark.parametrize("program", ["keeper", "make", "python"])
def test_every_printed_command_exists_as_it_is_printed(program: str) -> None:
    wrong = []
    for page, (name, *words), block in commands():
        if name != program:
            continue
        if name == "keeper":
            why = unlike(words, block=block)
        elif name == "make":
            why = next((f"no target {w}" for w in words if "=" not in w and w not in TARGETS), "")
        else:
            why = f"no benchmark {words[2]}" if words[:2] == ["-m", "bench"] and _no_bench(words[2:]) else ""
        if why:
            wrong.append(f"{page}: {program} {' '.join(words)}: {why}")
    assert wrong == []


def _no_bench(words: list[str]) -> bool:
    return bool(words) and words[0].islower() and not words[0].startswith("-") and words[0] not in BENCHES


def with_json(group: click.Group, *path: str) -> Iterator[str]:
    """The commands that answer with a document, as they are typed."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from with_json(command, *path, name)
        elif any("--json" in option.opts for option in command.params):
            yield " ".join((*path, name))


def test_every_document_has_a_published_schema() -> None:
    """Each schema's title names the commands it is of: `keeper inbox list|discard --json`."""
    published = set()
    for file in (ROOT / "docs" / "schemas").glob("*.json"):
        for words in re.findall(r"keeper ([a-z| ]+?)(?: \[[A-Z]+\])? --json", json.loads(file.read_text())["title"]):
            published |= {" ".join(each) for each in itertools.product(*(word.split("|") for word in words.split()))}
    assert published == set(with_json(keeper))
