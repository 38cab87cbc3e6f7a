"""task.yaml: what is accepted, what is refused and in which words, and that the JSON Schema judges alike."""

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from shared.manifest import FUNCTIONS, ROOT, Cron, Every, Http, Task, Topic, code_version, load, load_all
from shared.strict_yaml import ManifestError, parse

GOOD = """\
summary: Does a thing.
owner: platform
triggers:
  - {cron: "0 6 * * *"}
run: {kind: function, memory_mb: 512, cpu: 1, timeout_s: 300}
uses: []
requires: []
tables: {}
must_succeed_within_s: 93600
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def task(text: str, name: str = "sample_task") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "task.yaml").write_text(text, encoding="utf-8")
        return folder

    return task


def test_a_small_declaration_gives_a_whole_task(write: Write) -> None:
    task = load(write(GOOD))
    assert task.name == "sample_task"
    assert task.slug == "sample-task"
    assert task.triggers == (Cron("0 6 * * *"),)
    assert (task.run.kind, task.run.max_instances, task.run.ingress) == ("function", 1, "internal")
    assert not task.destructive


def test_every_kind_of_trigger_is_read(write: Write) -> None:
    text = GOOD.replace(
        '  - {cron: "0 6 * * *"}\n',
        """\
  - {every_s: 5}
  - {topic: app-events}
  - http: {path: /api/v1/x, methods: [POST, DELETE], auth: service}
""",
    )
    assert load(write(text)).triggers == (
        Every(5),
        Topic("app-events"),
        Http("/api/v1/x", ("POST", "DELETE"), "service"),
    )


def test_a_public_endpoint_says_why(write: Write) -> None:
    text = GOOD.replace('{cron: "0 6 * * *"}', "{http: {path: /x, methods: [GET], auth: stripe, reason: signed calls}}")
    assert load(write(text)).triggers == (Http("/x", ("GET",), "stripe", "signed calls"),)


def test_a_star_under_starts_is_every_other_task(write: Write, tmp_path: Path) -> None:
    write(GOOD.replace("owner: platform", 'owner: platform\nstarts: ["*"]'), "the_console")
    write(GOOD, "one_task")
    write(GOOD, "other_task")
    assert load_all(tmp_path)["the_console"].starts == ("one_task", "other_task")
    assert load(tmp_path / "the_console").starts == ("*",)


def test_only_a_task_of_operators_pages_alone_is_for_operators(write: Write) -> None:
    page = "{http: {path: /x, methods: [GET], auth: operator, reason: a page}}"
    assert load(write(GOOD.replace('{cron: "0 6 * * *"}', page))).for_operators
    assert not load(write(GOOD)).for_operators


# (what is changed, the change, the words the error must hold)
WRONG: list[tuple[str, str, tuple[str, ...]]] = [
    ("owner: platform\n", "", ("task.yaml.owner", "missing")),
    ("owner: platform", "ownr: platform", ("owner", "missing")),
    ("owner: platform", "owner: platform\ncolour: blue", ("colour", "known keys")),
    ("owner: platform", "owner: 7", ("owner", "text", "7")),
    ("owner: platform", "owner: platform\nowner: other", ("line 3", "owner", "twice")),
    ("timeout_s: 300", "timeout_s: '300'", ("run.timeout_s", "whole number", "'300'")),
    ("timeout_s: 300", "timeout_s: true", ("run.timeout_s", "whole number", "True")),
    ("timeout_s: 300", "timeout_s: 1801", ("run.timeout_s", "1 to 1800", "1801")),
    ("kind: function", "kind: lambda", ("run.kind", "function, job", "lambda")),
    ("cpu: 1", "cpu: 9", ("run.cpu", "9")),
    ("cpu: 1", "cpu: 0.5, concurrency: 2", ("run.concurrency", "cpu")),
    ('{cron: "0 6 * * *"}', '{cron: "0 6 * *"}', ("triggers[0].cron", "five fields")),
    ('{cron: "0 6 * * *"}', '{cron: "61 6 * * *"}', ("triggers[0].cron", "61 6")),
    ('{cron: "0 6 * * *"}', "{every_s: 7}", ("triggers[0].every_s", "divisor of 60", "7")),
    ('{cron: "0 6 * * *"}', '{cron: "0 6 * * *", topic: abc}', ("triggers[0]", "exactly one")),
    ('{cron: "0 6 * * *"}', "{topic: A}", ("triggers[0].topic", "'A'")),
    ('{cron: "0 6 * * *"}', "{http: {path: /x, methods: [POST], auth: firebase}}", ("reason", "internet")),
    ('{cron: "0 6 * * *"}', "{http: {path: /x, methods: [], auth: service}}", ("methods", "empty")),
    (
        'triggers:\n  - {cron: "0 6 * * *"}',
        'triggers:\n  - {http: {path: /x, methods: [GET], auth: stripe, reason: signed}}\n  - {cron: "0 6 * * *"}',
        ("triggers", "/x", "a task of its own"),
    ),
    ("kind: function", "kind: job, ingress: all", ("run.ingress", "not a key")),
    ("must_succeed_within_s: 93600\n", "", ("must_succeed_within_s", "watchdog")),
    ("tables: {}", "tables: {}\ndestructive: true", ("caps", "destructive")),
    ("tables: {}", "tables: {write: {Endpoints: []}}", ("tables.write.Endpoints", "lower case")),
    ("tables: {}", "tables: {}\nroles: [owner]", ("roles[0]", "owner")),
    ("tables: {}", "tables: {}\ndatabase_roles: [pg_write_all_data]", ("database_roles[0]", "pg_write_all_data")),
    ("tables: {}", "tables: {}\nroles: [roles/a, roles/a]", ("roles", "twice")),
    ("tables: {}", "tables: {}\nparams: {a: {env: lower, default: 1}}", ("params.a.env", "lower")),
    ("tables: {}", "tables: {}\nparams: {a: {env: NAME}}", ("params.a.default", "missing")),
]


@pytest.mark.parametrize(("old", "new", "words"), WRONG, ids=[w[1][:40] or w[0][:40] for w in WRONG])
def test_a_wrong_declaration_is_refused_in_words(write: Write, old: str, new: str, words: tuple[str, ...]) -> None:
    assert old in GOOD
    with pytest.raises(ManifestError) as caught:
        load(write(GOOD.replace(old, new)))
    for word in ("functions/sample_task/task.yaml", *words):
        assert word in str(caught.value)


# Read differently by PyYAML and Terraform, or not at all what they look like.
AMBIGUOUS = ["017", "0x1F", "12:30:00", "1_000", "1e3", "2026-01-01", "yes", "No", "on", "y", "True", "~", ".5", "+1"]


@pytest.mark.parametrize("scalar", AMBIGUOUS)
def test_a_scalar_that_readers_read_differently_must_be_quoted(scalar: str) -> None:
    with pytest.raises(ManifestError, match="quotes"):
        parse(f"a: {scalar}\n", "x.yaml")
    assert parse(f"a: '{scalar}'\n", "x.yaml") == {"a": scalar}


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x\n", "a: [1\n", "a: !!python/name:os.system x\n", "1: a\n"])
def test_yaml_that_is_no_declaration_is_refused(text: str) -> None:
    with pytest.raises(ManifestError, match=r"x\.yaml: line \d"):
        parse(text, "x.yaml")


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "sample_task"
    folder.mkdir()
    with pytest.raises(ManifestError, match="keeper new sample_task"):
        load(folder)
    (folder / "task.yaml").write_bytes(b"summary: \xff\n")
    with pytest.raises(ManifestError, match="UTF-8"):
        load(folder)


@pytest.mark.parametrize("name", ["short", "Upper_case", "ends_in_", "1_begins", "a" * 25])
def test_a_folder_whose_name_cannot_be_a_service_account_is_refused(write: Write, name: str) -> None:
    with pytest.raises(ManifestError, match="name"):
        load(write(GOOD, name))


def _valid(text: str) -> bool:
    schema = json.loads((ROOT / "shared" / "task.schema.json").read_text())
    try:
        jsonschema.validate(yaml.safe_load(text), schema)
    except jsonschema.ValidationError:
        return False
    return True


def test_the_json_schema_accepts_what_the_loader_accepts(write: Write) -> None:
    assert _valid(GOOD)
    for task in load_all().values():
        assert _valid((task.folder / "task.yaml").read_text())


# Judged by the loader alone: YAML itself, and relations between values.
LOADER_ONLY = ("owner: other", "61 6", "cpu: 0.5", "lower", "env: NAME")


@pytest.mark.parametrize(("old", "new", "words"), [w for w in WRONG if not any(x in w[1] for x in LOADER_ONLY)])
def test_the_json_schema_refuses_what_the_loader_refuses(old: str, new: str, words: tuple[str, ...]) -> None:
    assert not _valid(GOOD.replace(old, new))


def test_the_code_version_follows_every_file_of_the_task(write: Write) -> None:
    folder = write(GOOD)
    task: Task = load(folder)
    before = code_version(task)
    assert before == code_version(task)
    (folder / "main.py").write_text("x = 1\n")
    assert code_version(task) != before


def test_the_repository_has_tasks_and_all_of_them_load() -> None:
    assert "db_cleanup" in load_all(FUNCTIONS)
