"""A platform with a Stripe of its own: accounts in PostgreSQL, the double behind the real library, tasks."""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import text

from shared import plans
from shared.call import Call, Request, by_hand, of_request
from shared.database import Database
from shared.laptop.stripe_hooks import signed
from shared.laptop.stripe_objects import Object
from shared.laptop.stripe_server import StripeServer
from shared.laptop.stripe_store import Store
from shared.manifest import FUNCTIONS, Http
from shared.result import Result
from shared.run import Runner
from shared.secrets import LocalSecrets
from shared.settings import Settings
from shared.task import load
from tests.conftest import ManualClock, as_role

KEY, HOOK = "sk_test_0123456789", "whsec_of_the_endpoint"
PRO, YEARLY, FOREIGN = "price_pro_month", "price_pro_year", "price_of_something_else"


class World:
    """One test's world. `events` are those Stripe has told of, in order, whether delivered or not."""

    def __init__(self, db: Database, settings: Settings, clock: ManualClock, *, checked: bool = True) -> None:
        self.db, self.clock = db, clock
        self.store = Store(clock)
        self.events: list[Object] = []
        self.store.listeners.append(self.events.append)
        self.server = StripeServer(self.store, key=KEY, checked=checked)
        self.settings = settings
        self.settings = self.with_variables(STRIPE_EMULATOR_HOST=self.server.url)
        assert settings.secrets_folder is not None
        self.secrets = LocalSecrets(settings.secrets_folder)
        self.secrets.add("stripe-api-key", KEY)
        self.secrets.add("stripe-webhook-secret", HOOK)
        self._runners: dict[str, Runner] = {}
        self.prices()

    def prices(self) -> None:
        """The three prices there are."""
        self.store.price({"unit_amount": "900", "lookup_key": "pro_monthly"}, PRO)
        self.store.price({"unit_amount": "9000", "lookup_key": "pro_yearly"}, YEARLY)
        self.store.price({"unit_amount": "100"}, FOREIGN)
        self.events.clear()

    def close(self) -> None:
        self.forget_runners()
        self.server.stop()

    def forget_runners(self) -> None:
        """Let the next run read its settings anew."""
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()

    def with_variables(self, **variables: str) -> Settings:
        """The settings with more of an environment."""
        return replace(self.settings, environ={**self.settings.environ, **variables})

    # --- the platform

    def account(
        self, account_id: str, *, tier: str = "free", customer: str | None = None, uid: str | None = None
    ) -> str:
        self.execute(
            """insert into user_profile
                      (account_id, firebase_uid, email, tier, stripe_customer_id, created_at, updated_at)
               values (:id, :uid, 'shared@example.com', :tier, :customer, :now, :now)""",
            id=account_id, uid=uid or f"fb_{account_id}", tier=tier, customer=customer, now=self.clock.now(),
        )  # fmt: skip
        return account_id

    def execute(self, sql: str, **binds: Any) -> None:
        with self.db.transaction() as connection:
            connection.execute(text(sql), binds)

    def rows(self, sql: str, **binds: Any) -> list[Any]:
        with self.db.transaction() as connection:
            return list(connection.execute(text(sql), binds))

    def profile(self, account_id: str) -> tuple[str, str | None, str | None]:
        """Tier, customer and subscription of an account."""
        asked = "select tier, stripe_customer_id, stripe_subscription_id from user_profile where account_id = :id"
        [found] = self.rows(asked, id=account_id)
        return (found[0], found[1], found[2])

    def tier(self, account_id: str) -> str:
        return self.profile(account_id)[0]

    # --- Stripe

    def subscribe(
        self, account_id: str, *, price: str = PRO, customer: str | None = None, status: str = "active"
    ) -> Object:
        """Go through Checkout; the finished session."""
        lines = [{"price": price, "quantity": "1"}]
        given = {"mode": "subscription", "client_reference_id": account_id, "line_items": lines, "customer": customer}
        session = self.store.session(given, self.server.url)
        return self.store.complete(session["id"], status=status)

    # --- the tasks

    def runner(self, task: str) -> Runner:
        if task not in self._runners:
            entry = load(FUNCTIONS / task)
            self._runners[task] = entry.runner(as_role(self.settings, entry.task.slug), self.clock)
        return self._runners[task]

    def request(self, task: str, body: bytes, headers: dict[str, str]) -> Result:
        runner = self.runner(task)
        endpoint = next(t for t in runner.task.triggers if isinstance(t, Http))
        lower = {name.lower(): value for name, value in headers.items()}
        return runner.execute(of_request(Request("POST", endpoint.path, {}, lower, body), endpoint))

    def deliver(self, event: Object, *, secrets: Sequence[str] = (HOOK,), age_s: int = 0) -> Result:
        """Post an event as Stripe does."""
        body, headers = signed(event, secrets, int(self.clock.now().timestamp()) - age_s)
        return self.request("stripe_webhook", body, headers)

    def deliver_all(self) -> None:
        """Post all that has happened, in order."""
        for event in self.events:
            assert said(self.deliver(event))["received"]
        self.events.clear()

    def by_hand(
        self,
        task: str,
        *,
        planning: bool = False,
        plan_hash: str | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Result:
        with self.db.transaction() as connection:
            request_id = plans.request_run(
                connection, task=task, actor="tester", why="a test", planning=planning, plan_hash=plan_hash,
                params=params, now=self.clock.now(), request_id=uuid.uuid4(),
            )  # fmt: skip
        call: Call = by_hand(request_id)
        return self.runner(task).execute(call)

    def sweep(
        self, *, planning: bool = False, plan_hash: str | None = None, params: Mapping[str, Any] | None = None
    ) -> Result:
        return self.by_hand("sync_subscriptions", planning=planning, plan_hash=plan_hash, params=params)

    def approve(self) -> str:
        """Approve the one plan that waits; its hash."""
        now = self.clock.now()
        with self.db.transaction() as connection:
            [asked] = plans.pending(connection, now)
            plans.decide(
                connection, asked.approval_id, approve=True, by="somebody", why="they left", now=now, operators=()
            )
        return asked.plan_hash


def said(result: Result) -> dict[str, Any]:
    """What the endpoint answered."""
    assert result.reply is not None, result
    return dict(json.loads(result.reply.body))


@contextmanager
def world_of(db: Database, settings: Settings, clock: ManualClock, *, checked: bool = True) -> Iterator[World]:
    world = World(db, settings, clock, checked=checked)
    try:
        yield world
    finally:
        world.close()
