"""After a deletion, and while it is under way: late events, tokens and restores bring nothing of the account back."""

import base64
import itertools
import json
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared import erasure, secrets
from shared.accounts import progress
from shared.call import Call, Request, of_message, of_request
from shared.clock import rfc3339
from shared.errors import Outcome
from shared.laptop.stripe_hooks import signed
from shared.manifest import FUNCTIONS, Http, load_all
from shared.result import Result
from shared.retention.restore import restore
from shared.settings import Settings
from tests.accounts.fixtures import Answer
from tests.accounts.fixtures import ask as ask
from tests.accounts.fixtures import using as using
from tests.accounts.fixtures import world as world
from tests.accounts.world import KEY, World
from tests.conftest import ManualClock, RunTask
from tests.killing import killer

Ask = Callable[..., Answer]
HOOK = "whsec_of_the_endpoint"


class Late:
    """What may arrive late of an account that subscribed by Checkout: Stripe's events, telemetry, its owner's calls."""

    def __init__(self, world: World, using: Settings, run_task: RunTask) -> None:
        self._world, self._using, self._run = world, using, run_task
        self._told: list[Any] = []
        assert using.secrets_folder is not None
        secrets.LocalSecrets(using.secrets_folder).add("stripe-webhook-secret", HOOK)
        world.stripe_store.listeners.append(self._told.append)

    def subscribe(self, name: str) -> None:
        """A second customer, by a Checkout that names the account; its events are on their way."""
        price = self._world.stripe_store.price({"unit_amount": "900", "lookup_key": "pro_monthly"})
        given = {"mode": "subscription", "client_reference_id": name, "line_items": [{"price": price["id"]}]}
        session = self._world.stripe_store.session(given, self._world.stripe.url)
        self._world.stripe_store.complete(session["id"])

    def events(self) -> list[Result]:
        """Deliver everything Stripe has told so far, the newest first."""
        endpoint = next(t for t in load_all()["stripe_webhook"].triggers if isinstance(t, Http))
        results = []
        for event in reversed(self._told):
            body, headers = signed(event, [HOOK], int(self._world.clock.now().timestamp()))
            lower = {name.lower(): value for name, value in headers.items()}
            results.append(
                self._done("stripe_webhook", of_request(Request("POST", endpoint.path, {}, lower, body), endpoint))
            )
        return results

    def forget(self) -> None:
        """What Stripe has told was delivered often enough."""
        self._told.clear()

    def telemetry(self, name: str, ends: Outcome = Outcome.OK) -> Result:
        """A request and a bug report of the account."""
        base = {"occurred_at": rfc3339(self._world.clock.now()), "account_id": name}
        many = [
            {**base, "id": str(uuid.uuid4()), "type": "request.completed", "data": {"url": "https://one.example/a"}},
            {
                **base,
                "id": str(uuid.uuid4()),
                "type": "issue.reported",
                "data": {"title": "It breaks", "reporter_email": f"{name}@example.com"},
            },
        ]
        data = base64.b64encode(json.dumps(many).encode()).decode()
        return self._done(
            "telemetry_ingest",
            of_message({"message": {"messageId": str(uuid.uuid4()), "data": data}, "subscription": "app-events"}),
            ends,
        )

    def sync(self, name: str) -> int:
        """The owner asks billing_sync with a token that is still good; the answer's status."""
        endpoint = next(t for t in load_all()["billing_sync"].triggers if isinstance(t, Http))
        headers = {"authorization": f"Bearer {self._world.token(name)}"}
        result = self._done("billing_sync", of_request(Request("POST", endpoint.path, {}, headers, b""), endpoint))
        assert result.reply is not None
        return result.reply.status

    def sweep(self) -> Result:
        return self._done("sync_subscriptions", None)

    def _done(self, task: str, call: Call | None, ends: Outcome = Outcome.OK) -> Result:
        result = self._run(task, call, using=self._using)
        assert result.outcome is ends, (task, result.error)
        return result


@pytest.fixture
def late(world: World, using: Settings, run_task: RunTask) -> Late:
    return Late(world, using, run_task)


def test_late_events_valid_tokens_and_the_sweep_bring_nothing_back(world: World, ask: Ask, late: Late) -> None:
    world.account("gone7f3a", customer=False)
    world.account("kept91bc", customer=False)
    late.subscribe("gone7f3a")
    receipt = ask(token=world.token("gone7f3a"))
    assert receipt[0] == 200
    assert {one.reply.status for one in late.events() if one.reply} == {200}
    assert late.telemetry("gone7f3a").counts["erased"] == 2
    assert late.sync("gone7f3a") == 404
    late.sweep()
    late.events()
    late.sweep()
    assert world.traces("gone7f3a") == {}
    assert ask(token=world.token("gone7f3a")) == receipt
    assert late.telemetry("kept91bc").counts["erased"] == 0
    assert world.traces("kept91bc")["endpoints"] == 3


def test_without_the_key_that_tells_the_erased_nothing_is_taken_until_it_is_back(
    world: World, ask: Ask, late: Late, using: Settings
) -> None:
    world.account("gone7f3a", customer=False)
    assert ask(token=world.token("gone7f3a"))[0] == 200
    assert using.secrets_folder is not None
    key, aside = using.secrets_folder / erasure.KEY, using.secrets_folder / "aside"
    key.rename(aside)
    refused = late.telemetry("gone7f3a", Outcome.RETRY)
    assert f"without the secret {erasure.KEY}" in (refused.error or "")
    assert world.traces("gone7f3a") == {}
    aside.rename(key)
    assert late.telemetry("gone7f3a").counts["erased"] == 2


def test_whoever_pays_for_an_erased_account_is_named_in_a_warning(
    world: World, ask: Ask, late: Late, caplog: pytest.LogCaptureFixture
) -> None:
    world.account("gone7f3a", rows=1, customer=False)
    ask(token=world.token("gone7f3a"))
    late.subscribe("gone7f3a")  # its page was still open
    late.events()
    assert "somebody pays for an erased account" in caplog.text
    assert "gone7f3a" not in caplog.text
    assert world.traces("gone7f3a") == {}


def test_a_restore_of_archived_events_leaves_the_erased_account_out(
    world: World, ask: Ask, run_task: RunTask, using: Settings, clock: ManualClock
) -> None:
    for name in ("gone7f3a", "kept91bc"):
        world.account(name, rows=1, customer=False)
    with world.db.transaction() as connection:
        for table in ("outbox_event", "groundskeeper.outbox"):
            connection.execute(
                text(f"update {table} set created_at = :then, published_at = :then"),
                {"then": clock.now() - timedelta(400)},
            )
    archived = run_task("db_cleanup", using=using)
    assert archived.outcome is Outcome.OK, archived.error
    assert archived.counts["outbox_event_published.archived"] == 2
    assert ask(token=world.token("gone7f3a"))[0] == 200
    until = clock.now() + timedelta(days=9)
    done = restore(
        world.db.transaction,
        archived.run_id,
        actor="ann",
        why="a test",
        now=clock.now(),
        hold_until=until,
        erasure_key=KEY,
    )
    assert done.restored >= 1
    assert world.traces("gone7f3a") == {}
    assert world.traces("kept91bc")["outbox_event"] == 1


def _while_killed(world: World, using: Settings, late: Late, steps: Iterable[int]) -> int:
    """Kill the deletion at a step, let everything arrive, finish it, let everything arrive again; the last step."""
    with killer(dict(using.environ), FUNCTIONS / "finish_deletions") as kill:
        for number, step in enumerate(steps):
            name, slot = f"gone{number:05d}x", rfc3339(world.clock.now() + timedelta(minutes=5 + number))
            world.account(name, rows=1, customer=False)
            late.subscribe(name)
            with world.db.transaction() as connection:
                progress.begin(connection, name, f"uid-{name}", KEY, world.clock.now())
            if not kill.run(slot=slot, now=slot, step=step).killed:
                return step
            late.events()
            late.telemetry(name)
            late.sync(name)
            with world.db.transaction() as connection:
                connection.exec_driver_sql(
                    "update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s'"
                )
            again = kill.run(slot=slot, now=slot)
            assert again.outcome in ("ok", "skipped"), (step, again)
            late.events()
            late.forget()
            late.telemetry(name)
            assert world.traces(name) == {}, step
            assert world.files(name) == [], step
    return step


def test_what_arrives_while_a_killed_deletion_waits_goes_with_it(world: World, using: Settings, late: Late) -> None:
    assert _while_killed(world, using, late, [110]) == 110


@pytest.mark.full
@pytest.mark.timeout(900)
def test_what_arrives_while_a_deletion_killed_at_every_24th_step_waits_goes_with_it(
    world: World, using: Settings, late: Late
) -> None:
    assert _while_killed(world, using, late, itertools.count(1, 24)) > 150
