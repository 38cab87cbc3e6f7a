"""billing_sync: an owner's own account and nobody else's, and not too often."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from shared.errors import Outcome
from shared.laptop.firebase import VARIABLE, FirebaseAuth
from shared.laptop.stripe_server import Fault
from shared.result import Result
from tests.billing.world import FOREIGN, PRO, World, said


@pytest.fixture
def firebase(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[FirebaseAuth]:
    server = FirebaseAuth("demo-groundskeeper", world.clock)
    monkeypatch.setenv(VARIABLE, server.host)
    world.settings = world.with_variables(**{VARIABLE: server.host})
    server.users.add("owner@example.com", "secret-one", uid="u1")
    yield server
    server.stop()


def ask(world: World, token: str | None, body: bytes = b"", **headers: str) -> Result:
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return world.request("billing_sync", body, headers)


def status(result: Result) -> int:
    assert result.reply is not None, result
    return result.reply.status


def test_an_owner_gets_what_was_paid_for_at_once(world: World, firebase: FirebaseAuth) -> None:
    world.store.customer({}, "cus_1")
    world.account("a1", uid="u1", customer="cus_1")
    world.store.subscription("cus_1", [PRO])
    result = ask(world, firebase.users.token("u1"))
    assert (status(result), said(result)) == (200, {"tier": "pro", "subscribed": True})
    assert world.tier("a1") == "pro"


def test_an_account_without_a_customer_asks_stripe_nothing(world: World, firebase: FirebaseAuth) -> None:
    world.account("a1", uid="u1", tier="pro")
    calls = len(world.server.calls)
    assert said(ask(world, firebase.users.token("u1"))) == {"tier": "pro", "subscribed": False}
    assert len(world.server.calls) == calls


def test_whom_to_look_at_is_not_the_callers_to_say(world: World, firebase: FirebaseAuth) -> None:
    world.account("a1", uid="u1")
    world.account("a2")
    world.subscribe("a2")
    body = b'{"account_id": "a2", "customer": "%s"}' % world.events[0]["data"]["object"]["id"].encode()
    result = ask(world, firebase.users.token("u1"), body, **{"Content-Type": "application/json"})
    assert said(result) == {"tier": "free", "subscribed": False}
    assert (world.tier("a1"), world.tier("a2")) == ("free", "free")


def test_an_account_may_ask_every_ten_seconds(world: World, firebase: FirebaseAuth) -> None:
    world.store.customer({}, "cus_1")
    world.account("a1", uid="u1", customer="cus_1")
    token = firebase.users.token("u1")
    assert status(ask(world, token)) == 200
    calls = len(world.server.calls)
    again = ask(world, token)
    assert status(again) == 429
    assert again.reply is not None
    assert again.reply.headers["Retry-After"] == "10"
    world.clock.advance(timedelta(seconds=9.5))
    assert status(ask(world, token)) == 429
    assert len(world.server.calls) == calls
    world.clock.advance(timedelta(seconds=0.5))
    assert status(ask(world, token)) == 200


@pytest.mark.parametrize("token", [None, "", "nonsense", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1MSJ9."])
def test_who_is_not_signed_in_is_turned_away(world: World, firebase: FirebaseAuth, token: str | None) -> None:
    world.account("a1", uid="u1")
    assert status(ask(world, token)) == 401


def test_a_revoked_token_is_turned_away(world: World, firebase: FirebaseAuth) -> None:
    world.account("a1", uid="u1")
    token = firebase.users.token("u1")
    world.clock.advance(timedelta(seconds=5))
    firebase.users.update({"localId": "u1", "validSince": str(int(world.clock.now().timestamp()))})
    assert status(ask(world, token)) == 401


def test_a_user_without_an_account_is_told_so(world: World, firebase: FirebaseAuth) -> None:
    assert status(ask(world, firebase.users.token("u1"))) == 404


def test_a_verdict_that_is_not_possible_lowers_nobody(world: World, firebase: FirebaseAuth) -> None:
    world.store.customer({}, "cus_1")
    world.account("a1", uid="u1", customer="cus_1", tier="pro")
    world.store.subscription("cus_1", [FOREIGN])
    assert status(ask(world, firebase.users.token("u1"))) == 409
    assert world.tier("a1") == "pro"


def test_while_stripe_is_in_trouble_the_caller_is_told_to_come_again(world: World, firebase: FirebaseAuth) -> None:
    world.store.customer({}, "cus_1")
    world.account("a1", uid="u1", customer="cus_1")
    world.server.faults = [Fault("500", times=99)]
    assert ask(world, firebase.users.token("u1")).outcome is Outcome.RETRY


def test_a_run_by_hand_is_refused_in_words(world: World, firebase: FirebaseAuth) -> None:
    assert world.by_hand("billing_sync").outcome is Outcome.REFUSED
