"""`keeper grant`: given, listed and ended by name, in the audit, and never taken for a subscription."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from shared.errors import Refused
from shared.keeper.__main__ import keeper as command
from shared.manifest import ROOT
from tests.billing.fixtures import world as world
from tests.billing.world import World

Keeper = Callable[..., Result]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "grants.json").read_text())


@pytest.fixture
def keeper(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    for name, value in {**world.settings.environ, "KEEPER_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(command, ["grant", *words])


def listed(keeper: Keeper) -> list[tuple[str, bool, bool]]:
    """(account, on record, subscribed) of every grant."""
    document = json.loads(keeper("list", "--json").stdout)
    jsonschema.validate(document, SCHEMA, format_checker=jsonschema.FormatChecker())
    return [(g["account_id"], g["recorded_at"] is not None, g["subscribed"]) for g in document["grants"]]


def told(world: World) -> list[Any]:
    return [r[0] for r in world.rows("select payload -> 'data' from groundskeeper.outbox order by created_at, id")]


def test_a_grant_outlives_a_subscription_and_ends_by_command(world: World, keeper: Keeper) -> None:
    world.account("a1")
    assert listed(keeper) == []
    assert keeper("give", "a1", "--reason", "a partner", "--as", "ann").exit_code == 0
    session = world.subscribe("a1")
    world.deliver_all()
    assert listed(keeper) == [("a1", True, True)]
    world.store.cancel(session["subscription"])
    assert world.sweep().counts["drift"] == 1
    assert (world.tier("a1"), listed(keeper)) == ("pro", [("a1", True, False)])
    ended = keeper("end", "a1", "--reason", "the contract is over", "--as", "bob")
    assert "it is free now" in ended.output
    assert (world.tier("a1"), listed(keeper)) == ("free", [])
    assert world.sweep().counts["drift"] == 0
    assert [(one["to"], one["cause"]) for one in told(world)] == [("pro", "granted"), ("free", "grant ended")]
    audit = world.rows("select actor, action, subject, why from groundskeeper.operator_audit order by at, action desc")
    assert audit == [("ann", "grant", "a1", "a partner"), ("bob", "end_grant", "a1", "the contract is over")]


def test_a_subscriber_whose_grant_ends_stays_pro(world: World, keeper: Keeper) -> None:
    world.account("a1", tier="pro")
    world.subscribe("a1")
    world.deliver_all()
    assert "it is pro now" in keeper("end", "a1", "--reason", "they pay").output
    assert (world.tier("a1"), listed(keeper)) == ("pro", [])


def test_a_grant_given_elsewhere_is_listed_and_ended_too(world: World, keeper: Keeper) -> None:
    world.account("a1", tier="pro")
    assert listed(keeper) == [("a1", False, False)]
    assert keeper("end", "a1", "--reason", "a mistake").exit_code == 0
    assert (world.tier("a1"), listed(keeper)) == ("free", [])
    world.sweep()
    assert world.tier("a1") == "free"


@pytest.mark.parametrize("word", ["give", "end"])
def test_what_is_so_already_is_refused_in_words(world: World, keeper: Keeper, word: str) -> None:
    world.account("a1")
    nobody = keeper(word, "a2", "--reason", "a test")
    assert isinstance(nobody.exception, Refused)
    assert "a2" in str(nobody.exception)
    if word == "give":
        keeper("give", "a1", "--reason", "a partner")
    again = keeper(word, "a1", "--reason", "a test")
    assert isinstance(again.exception, Refused)
    assert ("has a grant" if word == "give" else "has no grant") in str(again.exception)
