"""sync_subscriptions: what one sweep repairs, what it never lowers, and when it asks first."""

from datetime import timedelta

import pytest

from shared.billing.client import DOUBLES_KEY
from shared.errors import Outcome
from shared.laptop.stripe_server import Fault
from shared.result import Result
from tests.billing.world import FOREIGN, PRO, World


def swept(world: World) -> Result:
    result = world.sweep()
    assert result.outcome is Outcome.OK, result.error
    return result


def lapsed(world: World, account_id: str) -> str:
    """An account that shows pro though its subscription ended and nobody was told; its customer."""
    world.account(account_id)
    session = world.subscribe(account_id)
    world.deliver_all()
    world.store.cancel(session["subscription"])
    world.events.clear()
    return str(session["customer"])


def test_nothing_to_do_writes_nothing(world: World) -> None:
    world.account("a1")
    world.subscribe("a1")
    world.deliver_all()
    before = world.rows("select xmin, * from user_profile")
    result = swept(world)
    assert result.counts["drift"] == 0
    assert world.rows("select xmin, * from user_profile") == before
    assert swept(world).counts["drift"] == 0


def test_an_empty_platform_and_an_empty_stripe_agree(world: World) -> None:
    assert swept(world).counts["subscriptions"] == 0


def test_a_lapsed_subscriber_is_lowered_and_an_active_one_raised(world: World) -> None:
    lapsed(world, "a1")
    world.store.customer({}, "cus_a2")
    world.account("a2", customer="cus_a2")
    subscription = world.store.subscription("cus_a2", [PRO])
    result = swept(world)
    assert (world.tier("a1"), world.profile("a2")) == ("free", ("pro", "cus_a2", subscription["id"]))
    assert (result.counts["downgraded"], result.counts["upgraded"], result.counts["drift"]) == (1, 1, 2)


def test_a_missed_checkout_is_found_by_its_session(world: World) -> None:
    world.account("a1")
    session = world.subscribe("a1")
    assert swept(world).counts["linked"] == 1
    assert world.profile("a1") == ("pro", session["customer"], session["subscription"])


def test_a_plan_shows_the_differences_by_cause_and_writes_nothing(world: World) -> None:
    lapsed(world, "a1")
    world.account("granted", tier="pro")
    result = world.sweep(planning=True)
    assert result.outcome is Outcome.PLANNED
    assert result.plan is not None
    assert [(i["unit"], i["what"], i["count"], i["why"]) for i in result.plan["items"]] == [
        ("downgrades", "canceled", 1, "a1")
    ]
    assert "1 manual grant not touched" in result.plan["notes"]
    assert world.tier("a1") == "pro"


def test_manual_grants_are_never_touched(world: World) -> None:
    world.account("granted", tier="pro")
    world.account("both", tier="pro")
    session = world.subscribe("both")
    world.deliver_all()
    world.store.cancel(session["subscription"])
    before = world.rows("select xmin, * from user_profile where account_id = 'granted'")
    swept(world)
    assert world.rows("select xmin, * from user_profile where account_id = 'granted'") == before
    assert world.profile("both") == ("pro", session["customer"], None)


def test_a_manual_grant_outlives_a_customer_that_the_platform_itself_stored(world: World) -> None:
    """The sweep put it on record while there was no customer: no event of ours ever saw the two change places."""
    world.account("granted", tier="pro")
    assert swept(world).counts["grants_recorded"] == 1
    assert swept(world).counts["grants_recorded"] == 0
    world.store.customer({}, "cus_abandoned")
    world.execute("update user_profile set stripe_customer_id = 'cus_abandoned'")  # and then no Checkout
    assert swept(world).counts["drift"] == 0
    one = world.store.subscription("cus_abandoned", [PRO])
    swept(world)
    assert world.profile("granted") == ("pro", "cus_abandoned", one["id"])
    world.store.cancel(one["id"])
    swept(world)
    assert world.profile("granted") == ("pro", "cus_abandoned", None)


def test_a_grant_taken_away_by_hand_is_no_grant_when_its_owner_subscribes_later(world: World) -> None:
    world.account("granted", tier="pro")
    swept(world)
    world.execute("update user_profile set tier = 'free'")
    assert swept(world).counts["grants_ended"] == 1
    session = world.subscribe("granted")
    world.deliver_all()
    world.store.cancel(session["subscription"])
    swept(world)
    assert world.tier("granted") == "free"
    world.account("again", tier="pro")
    assert swept(world).counts["grants_recorded"] == 1


def test_above_the_cap_nobody_is_lowered_until_somebody_approves(world: World) -> None:
    for n in range(26):
        world.store.customer({}, f"cus_{n}")
        world.account(f"a{n:02}", tier="pro", customer=f"cus_{n}")
        world.store.subscription(f"cus_{n}", [PRO], status="canceled")
    refused = world.sweep()
    assert refused.outcome is Outcome.REFUSED
    assert "26 downgrades (at most 25)" in (refused.error or "")
    assert world.rows("select count(*) from user_profile where tier = 'pro'") == [(26,)]
    done = world.sweep(plan_hash=world.approve())
    assert done.outcome is Outcome.OK, done.error
    assert done.counts["downgraded"] == 26


def test_an_approval_is_for_those_accounts_and_no_others(world: World) -> None:
    lapsed(world, "a1")
    planned = world.sweep(planning=True)
    lapsed(world, "a2")
    assert world.sweep(plan_hash=planned.plan_hash).outcome is Outcome.REFUSED
    assert (world.tier("a1"), world.tier("a2")) == ("pro", "pro")


# --- trouble: nobody is lowered, and the next run converges


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault("429", path="/v1/subscriptions", times=99), Outcome.RETRY),
        (Fault("500", path="/v1/subscriptions", times=99), Outcome.RETRY),
        (Fault("truncated", path="/v1/subscriptions", times=99), Outcome.RETRY),
        (Fault("cut", path="/v1/subscriptions", times=99), Outcome.RETRY),
        (Fault("cut", path="/v1/subscriptions", times=99, skip=1), Outcome.RETRY),
        (Fault("empty", path="/v1/subscriptions"), Outcome.REFUSED),
        (Fault("wrong_mode", path="/v1/subscriptions"), Outcome.REFUSED),
    ],
    ids=lambda value: f"{value.kind}-{value.skip}" if isinstance(value, Fault) else "",
)
def test_trouble_lowers_nobody_and_the_next_run_converges(world: World, fault: Fault, outcome: Outcome) -> None:
    world.account("a1")
    world.subscribe("a1")
    world.deliver_all()
    customer = lapsed(world, "a2")
    for _ in range(100):  # a second page
        world.store.subscription(customer, [PRO], status="canceled")
    world.server.faults = [fault]
    assert world.sweep().outcome is outcome
    assert (world.tier("a1"), world.tier("a2")) == ("pro", "pro")
    world.server.faults = []
    swept(world)
    assert (world.tier("a1"), world.tier("a2")) == ("pro", "free")


def test_a_listing_that_lacks_a_page_lowers_nobody(world: World) -> None:
    """The first page says there is nothing more, though there is: those who are missing are asked about."""
    for n in range(3):
        world.account(f"a{n}")
        world.subscribe(f"a{n}")
        world.clock.advance(timedelta(seconds=1))
    world.deliver_all()
    newest = world.profile("a2")[1]
    for _ in range(100):
        world.store.subscription(str(newest), [PRO], status="canceled")
    world.server.faults = [Fault("last", path="/v1/subscriptions")]
    result = world.sweep()
    assert result.outcome in (Outcome.REFUSED, Outcome.OK)
    assert {world.tier(f"a{n}") for n in range(3)} == {"pro"}


@pytest.mark.parametrize("key", ["sk_live_0123456789", "rk_live_0123456789", "nonsense"])
def test_a_key_of_the_other_mode_is_refused_before_anything_is_asked(world: World, key: str) -> None:
    lapsed(world, "a1")
    world.secrets.add("stripe-api-key", key)
    calls = len(world.server.calls)
    assert world.sweep().outcome is Outcome.REFUSED
    assert len(world.server.calls) == calls
    assert world.tier("a1") == "pro"


def test_a_key_that_stripe_does_not_take_is_named(world: World) -> None:
    lapsed(world, "a1")
    world.secrets.add("stripe-api-key", "sk_test_expired0")
    result = world.sweep()
    assert result.outcome is Outcome.UNAVAILABLE
    assert "stripe-api-key" in (result.error or "")
    assert world.tier("a1") == "pro"


def test_the_doubles_key_is_never_sent_to_stripe(world: World) -> None:
    world.secrets.add("stripe-api-key", DOUBLES_KEY)
    world.settings = world.with_variables(STRIPE_EMULATOR_HOST="")
    result = world.sweep()
    assert result.outcome is Outcome.UNAVAILABLE
    assert "make up" in (result.error or "")


def test_without_a_key_the_task_is_unavailable_and_says_so(world: World) -> None:
    for version in (world.secrets.folder / "stripe-api-key").iterdir():
        version.unlink()
    assert world.sweep().outcome is Outcome.UNAVAILABLE


def test_a_customer_stripe_does_not_know_is_named_and_not_lowered(world: World) -> None:
    for n in range(4):
        world.account(f"a{n}")
        world.subscribe(f"a{n}")
    world.deliver_all()
    world.account("a9", tier="pro", customer="cus_of_another_mode")
    result = world.sweep()
    assert result.outcome is Outcome.PARTIAL
    assert "account a9" in (result.error or "")
    assert world.tier("a9") == "pro"


def test_a_deleted_customer_ends_the_tier(world: World) -> None:
    world.account("a1")
    session = world.subscribe("a1")
    world.deliver_all()
    world.store.delete_customer(session["customer"])
    swept(world)
    assert world.tier("a1") == "free"


def test_an_unknown_price_is_named_and_lowers_nobody(world: World) -> None:
    world.account("a1")
    session = world.subscribe("a1")
    world.deliver_all()
    world.store.switch(session["subscription"], [FOREIGN])
    result = world.sweep()
    assert result.outcome is Outcome.PARTIAL
    assert FOREIGN in (result.error or "")
    assert world.tier("a1") == "pro"


def test_grace_ends_without_any_event(world: World) -> None:
    world.account("a1")
    session = world.subscribe("a1")
    world.store.renew(session["subscription"], paid=False)
    world.deliver_all()
    world.clock.advance(timedelta(days=7) - timedelta(seconds=1))
    assert swept(world).counts["drift"] == 0
    world.clock.advance(timedelta(seconds=1))
    swept(world)
    assert world.tier("a1") == "free"


def test_stored_failures_are_tried_again(world: World) -> None:
    session = world.subscribe("late")  # the account comes into being after its payment
    world.deliver_all()
    assert world.rows("select outcome from groundskeeper.billing_event where type like 'checkout%'") == [("failed",)]
    world.account("late")
    swept(world)
    assert world.profile("late") == ("pro", session["customer"], session["subscription"])
    assert swept(world).counts.get("replay_failed", 0) == 0
    assert world.rows("select count(*) from groundskeeper.billing_event where outcome = 'failed'") == [(0,)]


def test_what_was_settled_during_the_listing_is_left_alone(world: World) -> None:
    """The listing still shows the subscription; it ends, and its event is settled, before the sweep acts."""
    import threading

    world.store.customer({}, "cus_a1")
    world.account("a1", customer="cus_a1")
    subscription = world.store.subscription("cus_a1", [PRO])
    world.server.faults = [Fault("slow", path="/v1/subscriptions")]
    results: list[Result] = []
    sweep = threading.Thread(target=lambda: results.append(world.sweep()))
    sweep.start()
    assert world.server.reached.wait(10)
    world.store.cancel(subscription["id"])
    world.deliver(world.events[-1])
    world.server.release.set()
    sweep.join()
    assert results[0].outcome is Outcome.OK, results[0].error
    assert world.tier("a1") == "free"


def test_the_listing_takes_a_call_for_each_hundred_subscriptions(world: World) -> None:
    world.store.customer({}, "cus_many")
    world.account("a1", customer="cus_many")
    for _ in range(250):
        world.store.subscription("cus_many", [PRO])
    world.sweep()
    world.server.calls.clear()
    assert swept(world).counts["stripe_calls"] == 3
    assert len(world.server.calls) == 3


def test_the_three_tasks_share_one_table_of_tiers() -> None:
    from shared.manifest import load_all

    tasks = load_all()
    tables = [tasks[name].params["tiers"] for name in ("stripe_webhook", "sync_subscriptions", "billing_sync")]
    assert tables[0] == tables[1] == tables[2]
