"""kill -9 between every two steps of a sweep: the next delivery of its slot leaves everything as undisturbed."""

from typing import Any

import pytest
from sqlalchemy import text

from tests.billing.world import PRO, World
from tests.conftest import FUNCTIONS
from tests.killing import Killer, killer

SLOT = "2026-06-15T04:00:00Z"


def arrange(world: World) -> None:
    """One to lower, one to raise, one whose Checkout was missed, one whose event had failed, one granted by hand."""
    with world.db.transaction() as connection:
        for table in ("task_run", "plan", "billing_customer", "billing_event", "billing_grant", "outbox"):
            connection.execute(text(f"truncate groundskeeper.{table} cascade"))
        connection.execute(text("delete from user_profile"))
    world.account("lapsed", tier="pro", customer="cus_lapsed")
    world.account("back", customer="cus_back")
    world.account("missed")
    world.account("late")
    world.account("granted", tier="pro")
    world.execute(
        """insert into groundskeeper.billing_event (event_id, type, customer_id, account_id, linked_at, occurred_at,
                                                    received_at, outcome, reason, attempts)
           values ('evt_late', 'checkout.session.completed', 'cus_late', 'late', :now, :now, :now, 'failed', '', 1)""",
        now=world.clock.now(),
    )


def state(world: World) -> dict[str, Any]:
    return {
        "profiles": world.rows(
            "select account_id, tier, stripe_customer_id, stripe_subscription_id from user_profile order by 1"
        ),
        "customers": world.rows("select customer_id, account_id from groundskeeper.billing_customer order by 1"),
        "events": world.rows("select event_id, outcome from groundskeeper.billing_event order by 1"),
        "grants": world.rows("select account_id, tier from groundskeeper.billing_grant order by 1"),
        "told": world.rows("select payload ->> 'account_id', payload -> 'data' from groundskeeper.outbox order by 1"),
        "run": world.rows("select outcome from groundskeeper.task_run"),
    }


def each(world: World, kill: Killer, *, every: int, start: int) -> int:
    world.store.customer({}, "cus_lapsed")
    world.store.subscription("cus_lapsed", [PRO], status="canceled")
    world.store.customer({}, "cus_back")
    world.store.subscription("cus_back", [PRO])
    world.store.customer({}, "cus_late")
    world.store.subscription("cus_late", [PRO])
    world.subscribe("missed")
    arrange(world)
    undisturbed = kill.run(slot=SLOT, now=SLOT)
    assert (undisturbed.outcome, undisturbed.killed) == ("ok", False), undisturbed.error
    wanted = state(world)
    assert [row[:2] for row in wanted["profiles"]] == [
        ("back", "pro"), ("granted", "pro"), ("lapsed", "free"), ("late", "pro"), ("missed", "pro"),
    ]  # fmt: skip
    assert len(wanted["told"]) == 4
    for step in range(start, undisturbed.steps + 1, every):
        arrange(world)
        assert kill.run(slot=SLOT, step=step, now=SLOT).killed, step
        world.execute("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s'")
        again = kill.run(slot=SLOT, now=SLOT)
        assert again.outcome in ("ok", "skipped"), (step, again)
        assert state(world) == wanted, step
    return undisturbed.steps


def test_a_sweep_killed_at_some_steps_is_finished_by_the_next_delivery(world: World) -> None:
    with killer(dict(world.settings.environ), FUNCTIONS / "sync_subscriptions") as kill:
        each(world, kill, every=37, start=40)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_sweep_killed_before_every_fifth_step_is_finished_by_the_next_delivery(world: World) -> None:
    with killer(dict(world.settings.environ), FUNCTIONS / "sync_subscriptions") as kill:
        assert each(world, kill, every=5, start=1) > 100
