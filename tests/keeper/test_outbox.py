"""`keeper outbox`: dead letters listed, planned, sent again and dropped, with reason and audit."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from shared.keeper.__main__ import keeper as command
from shared.manifest import ROOT
from shared.settings import Settings
from tests.conftest import NOW
from tests.relay.fixtures import Write
from tests.relay.fixtures import write as write

Rows = Callable[..., list[Any]]
Keeper = Callable[..., Result]

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "outbox.json").read_text())


@pytest.fixture
def keeper(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    for name, value in {**settings.environ, "KEEPER_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(command, ["outbox", *words])


def document(done: Result) -> dict[str, Any]:
    assert done.exception is None, done.exception
    found = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA, format_checker=jsonschema.FormatChecker())
    return dict(found)


def attempts(rows: Rows) -> dict[str, int]:
    """By event id, of both outboxes."""
    both = "select id, attempts from outbox_event union all select id, attempts from groundskeeper.outbox"
    return {str(row[0]): row[1] for row in rows(both)}


@pytest.fixture
def dead(write: Write) -> list[str]:
    """Three dead letters, the last in our own outbox; a waiting event and one that failed four times besides."""
    write(1)
    write(1, attempts=4, next_attempt_at=NOW)
    return [
        *write(1, attempts=5, topic="app-events"),
        *write(1, attempts=5, topic="billing-events", key="a1"),
        *write(1, attempts=5, topic="billing-events", table="groundskeeper.outbox"),
    ]


def test_only_dead_letters_are_listed_oldest_first(keeper: Keeper, dead: list[str]) -> None:
    listed = document(keeper("list", "--json"))["dead_letters"]
    assert [letter["event_id"] for letter in listed] == dead
    assert [letter["outbox"] for letter in listed] == ["outbox_event", "outbox_event", "groundskeeper.outbox"]
    one_topic = document(keeper("list", "--topic", "billing-events", "--json"))["dead_letters"]
    assert [letter["event_id"] for letter in one_topic] == dead[1:]
    assert dead[0] in keeper("list").stdout


def test_a_plan_shows_what_would_be_done_and_writes_nothing(keeper: Keeper, dead: list[str], rows: Rows) -> None:
    before = attempts(rows)
    for deed in ("replay", "discard"):
        planned = document(keeper(deed, "--all", "--plan", "--json"))
        assert (planned["planned"], len(planned["dead_letters"])) == (True, 3)
        assert "3 would be" in keeper(deed, "--all", "--plan").stdout
    assert attempts(rows) == before
    assert rows("select 1 from groundskeeper.operator_audit") == []


def test_a_replayed_letter_has_five_attempts_more_and_the_audit_says_why(
    keeper: Keeper, dead: list[str], rows: Rows
) -> None:
    done = document(keeper("replay", dead[0], dead[2], "--reason", "the topic exists now", "--as", "alma", "--json"))
    assert done["events"] == {"outbox_event": 1, "groundskeeper.outbox": 1}
    assert [attempts(rows)[one] for one in dead] == [0, 5, 0]
    actor, action, why, details = rows("select actor, action, why, details from groundskeeper.operator_audit")[0]
    assert (actor, action, why) == ("alma", "outbox replay", "the topic exists now")
    assert sorted(details["ids"]) == sorted([dead[0], dead[2]])


def test_discarding_a_topics_letters_deletes_exactly_those(keeper: Keeper, dead: list[str], rows: Rows) -> None:
    assert keeper("discard", "--all", "--topic", "billing-events", "--reason", "a test's leftovers").exit_code == 0
    left = attempts(rows)
    assert len(left) == 3
    assert dead[0] in left
    assert rows("select action from groundskeeper.operator_audit")[0][0] == "outbox discard"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("replay", "--reason", "x"), "say which"),
        (("replay", "--all"), "needs --reason"),
        (("discard", "--all"), "needs --reason"),
        (("discard", str(uuid.UUID(int=7)), "--reason", "x"), "no dead letter has the id"),
        (("replay", str(uuid.UUID(int=7)), "--all", "--reason", "x"), "say which"),
    ],
)
def test_a_choice_or_reason_that_is_missing_is_refused_in_words(
    keeper: Keeper, dead: list[str], rows: Rows, words: tuple[str, ...], complaint: str
) -> None:
    before = attempts(rows)
    assert complaint in str(keeper(*words).exception)
    assert attempts(rows) == before


def test_a_waiting_event_is_never_discarded(keeper: Keeper, write: Write, rows: Rows) -> None:
    (waiting,) = write(1)
    assert "no dead letter has the id" in str(keeper("discard", waiting, "--reason", "x").exception)
    assert waiting in attempts(rows)
