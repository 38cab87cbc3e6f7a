"""`keeper inbox`: what could never be handled is listed, planned and dropped, with reason and audit."""

import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from shared.database import Database
from shared.ingest import letters
from shared.ingest.events import Poison
from shared.keeper.__main__ import keeper as command
from shared.manifest import ROOT
from shared.settings import Settings
from tests.conftest import NOW

Rows = Callable[..., list[Any]]
Keeper = Callable[..., Result]

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "inbox.json").read_text())


@pytest.fixture
def keeper(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    for name, value in {**settings.environ, "KEEPER_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(command, ["inbox", *words])


def document(done: Result) -> dict[str, Any]:
    assert done.exception is None, done.exception
    found = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA, format_checker=jsonschema.FormatChecker())
    return dict(found)


@pytest.fixture
def dead(db: Database) -> list[str]:
    """Three letters of two consumers, the oldest first."""
    with db.transaction() as connection:
        for number, consumer in enumerate(("telemetry_ingest", "ml_events", "telemetry_ingest")):
            poison = Poison(
                source=f"topic/{number}", reason="not JSON", event_id=None, content="jo@example.com {", size=16
            )
            letters.keep(connection, consumer, [poison], NOW + timedelta(minutes=number))
        ids = connection.exec_driver_sql("select letter_id from groundskeeper.dead_letter order by received_at")
        return [str(one) for (one,) in ids]


def test_letters_are_listed_oldest_first_without_what_nobody_may_read(keeper: Keeper, dead: list[str]) -> None:
    listed = document(keeper("list", "--json"))["dead_letters"]
    assert [letter["letter_id"] for letter in listed] == dead
    assert listed[0]["payload"] == "<e-mail> {"
    (one,) = document(keeper("list", "--consumer", "ml_events", "--json"))["dead_letters"]
    assert one["letter_id"] == dead[1]
    assert "not JSON" in keeper("list").stdout


def test_a_plan_deletes_nothing_and_a_reason_is_on_record(keeper: Keeper, dead: list[str], rows: Rows) -> None:
    planned = document(keeper("discard", "--all", "--plan", "--json"))
    assert (planned["planned"], len(planned["dead_letters"])) == (True, 3)
    assert len(rows("select 1 from groundskeeper.dead_letter")) == 3
    done = keeper("discard", "--all", "--consumer", "telemetry_ingest", "--reason", "sent again", "--as", "alma")
    assert "2 were discarded" in done.stdout
    assert [str(r.letter_id) for r in rows("select letter_id from groundskeeper.dead_letter")] == [dead[1]]
    ((actor, action, subject, why, details),) = rows(
        "select actor, action, subject, why, details from groundskeeper.operator_audit"
    )
    assert (actor, action, subject, why) == ("alma", "inbox discard", "telemetry_ingest", "sent again")
    assert sorted(details["ids"]) == sorted([dead[0], dead[2]])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--reason", "x"), "say which"),
        (("--all",), "needs --reason"),
        ((str(uuid.UUID(int=7)), "--reason", "x"), "no dead letter has the id"),
    ],
)
def test_a_choice_or_reason_that_is_missing_is_refused_in_words(
    keeper: Keeper, dead: list[str], rows: Rows, words: tuple[str, ...], complaint: str
) -> None:
    assert complaint in str(keeper("discard", *words).exception)
    assert len(rows("select 1 from groundskeeper.dead_letter")) == len(dead)
