"""Each rotator through each step: killed anywhere in it the credential in use goes on working and the next run ends
right; and from each step there is a way back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from shared import plans
from shared.clock import rfc3339
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.stripe_server import StripeServer
from shared.manifest import FUNCTIONS
from shared.rotation.postgres import verifier
from shared.secrets import LocalSecrets
from shared.settings import Settings
from tests.conftest import ManualClock
from tests.killing import killer
from tests.rotating import DATABASE, DAY, LOGINS, MANUAL, TOKEN, URL, WEBHOOK, Rotate, Web, connects, states
from tests.rotating import clock as clock
from tests.rotating import database_login as database_login
from tests.rotating import rotate as rotate
from tests.rotating import store as store
from tests.rotating import stripe as stripe
from tests.rotating import web as web

KINDS = {"postgres": DATABASE, "generated": TOKEN, "stripe_webhook": WEBHOOK, "manual": MANUAL}
BY_HAND = "the value an operator fetched"


@dataclass
class World:
    """One kind of secret, with its rotations and its service."""

    kind: str
    rotations: Rotate
    store: LocalSecrets
    settings: Settings
    db: Database
    stripe: StripeServer
    clock: ManualClock
    old: str

    @property
    def name(self) -> str:
        return str(KINDS[self.kind]["secret"])

    def works(self, value: str) -> bool:
        """Whether the service the value is for takes it."""
        if self.kind == "postgres":
            return connects(value, self.settings) is not None
        if self.kind == "stripe_webhook":
            hooks = {hook["id"] for hook in self.stripe.store.newest("webhook_endpoint") if hook["url"] == URL}
            return value in {self.stripe.store.webhook_secrets[hook] for hook in hooks}
        enabled = [v.number for v in self.store.versions(self.name) if v.state == "enabled"]
        return value in {self.store.get(self.name, str(number)) for number in enabled}

    @property
    def in_use(self) -> str:
        return (
            self.store.get(self.name).split("\n")[0].split(" ")[0]
            if self.kind == "stripe_webhook"
            else (self.store.get(self.name))
        )

    def step(self) -> str:
        with self.db.transaction() as connection:
            return str(connection.execute(text("select step from groundskeeper.secret_rotation")).scalar_one())

    def afresh(self) -> None:
        """As before any rotation: the old value in use, at its service too."""
        with self.db.transaction() as connection:
            connection.execute(
                text("truncate groundskeeper.secret_rotation, groundskeeper.approval, groundskeeper.task_run cascade")
            )
            if self.kind == "postgres":
                connection.exec_driver_sql(
                    f"alter role {LOGINS[0]} login password '{verifier('first', b'salt of sixteen')}'"
                )
                connection.exec_driver_sql(f"drop role if exists {LOGINS[1]}")
        for hook in self.stripe.store.newest("webhook_endpoint"):
            if hook["url"] == URL:
                self.stripe.store.delete_endpoint(hook["id"])
        self.stripe.store.endpoint(URL, ["customer.subscription.updated"], secret="whsec_the_first_one")
        for version in self.store.versions(self.name):
            self.store.destroy(self.name, version.number)
        self.store.add(self.name, self.old)

    def request(self, plan_hash: str | None = None, **params: Any) -> str:
        with self.db.transaction() as connection:
            wanted = plans.stored(connection, plan_hash).params if plan_hash else {**self.rotations.params, **params}
            return str(
                plans.request_run(
                    connection, task="rotate_secrets", actor="t", why="a test", now=self.clock.now(), params=wanted,
                    plan_hash=plan_hash,
                )
            )  # fmt: skip

    def before(self, step: str) -> str:
        """Bring a fresh rotation to where its next run takes it to `step`; that run's request."""
        self.afresh()
        assert self.rotations.run().outcome is Outcome.WAITING
        approved = self.rotations.decide()
        if step == "promoted" and self.kind != "manual":
            return self.request(approved.plan_hash)
        assert self.rotations.approved().outcome is Outcome.OK
        if self.kind == "manual":
            self.store.add(self.name, BY_HAND)
            if step == "promoted":
                return self.request()
            assert self.rotations.run().counts["promoted"] == 1
        self.clock.advance(DAY)
        if step == "destroyed":
            assert self.rotations.run().counts["disabled"] == 1
            self.clock.advance(7 * DAY)
        return self.request()


@pytest.fixture(params=KINDS)
def world(
    request: pytest.FixtureRequest, rotate: Callable[..., Rotate], store: LocalSecrets, settings: Settings,
    db: Database, stripe: StripeServer, clock: ManualClock, web: Web,
) -> World:  # fmt: skip
    kind = request.param
    old = request.getfixturevalue("database_login") if kind == "postgres" else "whsec_the_first_one"
    target = {**KINDS[kind], **({"check_url": web.check} if kind in ("generated", "manual") else {})}
    return World(kind, rotate(target, stripe_emulator=stripe.url), store, settings, db, stripe, clock, old)


def _killed(world: World, step: str, *, kills: int) -> None:
    with killer(dict(world.settings.environ), FUNCTIONS / "rotate_secrets") as kill:
        undisturbed = kill.run(request=world.before(step), now=rfc3339(world.clock.now()))
        assert (undisturbed.outcome, world.step()) == ("ok", step)
        for at in range(1, undisturbed.steps + 1, -(-undisturbed.steps // kills)):
            request = world.before(step)
            now = rfc3339(world.clock.now())
            assert kill.run(request=request, now=now, step=at).killed, at
            assert world.works(world.in_use), at
            assert step != "promoted" or world.works(world.old), at
            with world.db.transaction() as connection:
                connection.execute(
                    text("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s'")
                )
            again = kill.run(request=request, now=now)
            assert again.outcome in ("ok", "skipped"), (at, again)
            assert world.step() == step, at
            assert world.works(world.in_use), at
            assert world.in_use != world.old, at
            assert world.works(world.old) is (step == "promoted"), at


@pytest.mark.full
@pytest.mark.parametrize("step", ["promoted", "disabled", "destroyed"])
def test_killed_within_a_step_the_value_in_use_works_and_the_next_run_ends_right(world: World, step: str) -> None:
    _killed(world, step, kills=2)


@pytest.mark.soak
@pytest.mark.parametrize("step", ["promoted", "disabled", "destroyed"])
def test_killed_before_every_second_step_the_value_in_use_works(world: World, step: str) -> None:
    _killed(world, step, kills=40)


@pytest.mark.parametrize("step", ["promoted", "disabled"])
def test_from_each_step_there_is_a_way_back(world: World, step: str) -> None:
    world.before("disabled" if step == "promoted" else "destroyed")
    result = world.rotations.run(back=[world.name])
    if (world.kind, step) == ("stripe_webhook", "disabled"):
        assert (result.outcome, "Stripe has forgotten" in (result.error or "")) == (Outcome.PARTIAL, True)
        assert world.works(world.in_use)
        return
    assert (result.outcome, world.step()) == (Outcome.OK, "rolled_back"), result.error
    assert world.in_use == world.old
    assert world.works(world.old)


def test_a_rotation_that_waits_for_its_operator_can_be_called_off(
    rotate: Callable[..., Rotate], store: LocalSecrets
) -> None:
    store.add("stripe-api-key", "the old key")
    key = rotate(MANUAL)
    assert key.through().counts["awaiting_operator"] == 1
    assert key.run(back=["stripe-api-key"]).outcome is Outcome.OK
    assert (store.get("stripe-api-key"), states(store, "stripe-api-key")) == ("the old key", ["enabled"])
