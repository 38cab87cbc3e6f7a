"""stripe_webhook: what is Stripe's, what an event makes of an account, and what it never does."""

import json
import logging
import threading
from datetime import timedelta

import pytest

from shared.errors import Outcome
from shared.laptop.stripe_hooks import signed
from shared.laptop.stripe_server import Fault
from shared.result import Result
from tests.billing.world import FOREIGN, HOOK, PRO, YEARLY, World, said


def outcomes(world: World) -> list[tuple[str, str]]:
    return [
        tuple(r) for r in world.rows("select type, outcome from groundskeeper.billing_event order by received_at, type")
    ]


def test_a_checkout_makes_the_account_pro_and_tells_of_it(world: World) -> None:
    world.account("a1")
    session = world.subscribe("a1")
    world.deliver_all()
    assert world.profile("a1") == ("pro", session["customer"], session["subscription"])
    [[payload]] = world.rows("select payload from groundskeeper.outbox where topic = 'billing-events'")
    assert payload["type"] == "account.tier_changed"
    assert payload["account_id"] == "a1"
    assert payload["data"] == {"from": "free", "to": "pro", "cause": "active"}


def test_a_canceled_subscription_makes_the_account_free(world: World) -> None:
    world.account("a1")
    session = world.subscribe("a1")
    world.deliver_all()
    world.store.cancel(session["subscription"])
    world.deliver_all()
    assert world.profile("a1") == ("free", session["customer"], None)


def test_the_event_of_a_subscription_before_that_of_its_checkout_waits_for_it(world: World) -> None:
    world.account("a1")
    world.subscribe("a1")
    _, subscribed, completed = world.events  # customer.created first
    assert said(world.deliver(subscribed))["outcome"] == "unmatched"
    assert world.tier("a1") == "free"
    assert said(world.deliver(completed))["outcome"] == "done"
    assert world.tier("a1") == "pro"


def test_an_event_delivered_again_changes_nothing(world: World) -> None:
    world.account("a1")
    world.subscribe("a1")
    event = world.events[-1]
    world.deliver(event)
    calls = len(world.server.calls)
    assert said(world.deliver(event)) == {"received": True, "outcome": "duplicate"}
    assert len(world.server.calls) == calls
    assert len(world.rows("select 1 from groundskeeper.outbox")) == 1


def test_a_late_event_does_not_bring_the_past_back(world: World) -> None:
    world.account("a1")
    session = world.subscribe("a1")
    old = list(world.events)
    world.store.cancel(session["subscription"])
    for event in [*world.events[len(old) :], *old]:
        world.deliver(event)
    assert world.tier("a1") == "free"


def test_of_several_subscriptions_the_best_counts(world: World) -> None:
    world.account("a1")
    first = world.subscribe("a1")
    second = world.subscribe("a1", price=YEARLY, customer=first["customer"])
    world.deliver_all()
    world.store.cancel(first["subscription"])
    world.deliver_all()
    assert world.profile("a1") == ("pro", first["customer"], second["subscription"])
    world.store.cancel(second["subscription"])
    world.deliver_all()
    assert world.tier("a1") == "free"


def test_an_account_with_two_customers_is_pro_while_either_pays(world: World) -> None:
    world.account("a1")
    first = world.subscribe("a1")
    world.clock.advance(timedelta(seconds=5))
    second = world.subscribe("a1")
    world.deliver_all()
    assert world.profile("a1") == ("pro", second["customer"], second["subscription"])
    world.store.cancel(second["subscription"])
    world.deliver_all()
    assert world.profile("a1") == ("pro", first["customer"], first["subscription"])


def test_a_late_payer_keeps_the_tier_for_the_days_of_grace(world: World) -> None:
    world.account("a1")
    session = world.subscribe("a1")
    world.store.renew(session["subscription"], paid=False)
    world.deliver_all()
    assert world.tier("a1") == "pro"
    world.clock.advance(timedelta(days=7) - timedelta(seconds=1))
    world.store.change(session["subscription"], metadata={"n": "1"})
    world.deliver_all()
    assert world.tier("a1") == "pro"
    world.clock.advance(timedelta(seconds=1))
    world.store.change(session["subscription"], metadata={"n": "2"})
    world.deliver_all()
    assert world.tier("a1") == "free"


@pytest.mark.parametrize("status", ["incomplete", "incomplete_expired", "unpaid", "paused", "canceled"])
def test_a_status_that_is_over_gives_nothing(world: World, status: str) -> None:
    world.account("a1")
    world.subscribe("a1", status=status)
    world.deliver_all()
    assert world.tier("a1") == "free"


def test_a_price_nobody_told_of_changes_nothing_and_is_kept_as_a_failure(world: World) -> None:
    world.account("a1")
    session = world.subscribe("a1")
    world.deliver_all()
    world.store.switch(session["subscription"], [FOREIGN])
    [event] = world.events
    assert said(world.deliver(event))["outcome"] == "failed"
    assert world.tier("a1") == "pro"
    [[reason]] = world.rows("select reason from groundskeeper.billing_event where outcome = 'failed'")
    assert FOREIGN in reason


def test_a_manual_grant_outlives_a_subscription(world: World) -> None:
    world.account("a1", tier="pro")
    session = world.subscribe("a1")
    world.deliver_all()
    assert world.rows("select account_id, tier, ended_at from groundskeeper.billing_grant") == [("a1", "pro", None)]
    world.store.cancel(session["subscription"])
    world.deliver_all()
    assert world.profile("a1") == ("pro", session["customer"], None)
    world.execute("update groundskeeper.billing_grant set ended_at = :now", now=world.clock.now())
    world.store.change(session["subscription"], metadata={"n": "1"})
    world.deliver_all()
    assert world.tier("a1") == "free"


def test_accounts_of_one_address_are_not_taken_for_each_other(world: World) -> None:
    world.account("a1")
    world.account("a2")
    world.subscribe("a1")
    world.deliver_all()
    assert (world.tier("a1"), world.tier("a2")) == ("pro", "free")


def test_a_customer_stays_whose_it_is(world: World) -> None:
    world.account("a1")
    world.account("a2")
    session = world.subscribe("a1")
    world.deliver_all()
    world.subscribe("a2", customer=session["customer"])
    *_, completed = world.events
    assert said(world.deliver(completed))["outcome"] == "failed"
    assert world.tier("a2") == "free"
    assert world.profile("a1")[1] == session["customer"]


@pytest.mark.parametrize("reference", ["nobody", "owner@example.com", "a" * 300])
def test_a_session_that_names_no_account_is_kept_with_the_reason_and_nothing_personal(
    world: World, reference: str
) -> None:
    world.subscribe(reference)
    assert said(world.deliver(world.events[-1]))["outcome"] == "failed"
    kept = world.rows("select * from groundskeeper.billing_event")
    assert "@" not in str(kept)


def test_types_that_are_not_handled_are_recorded_and_ignored(world: World) -> None:
    world.store.customer({"email": "a@example.com"})
    session = world.store.session({"mode": "payment"}, "http://x")
    world.store.complete(session["id"])
    world.deliver_all()
    assert {o for _, o in outcomes(world)} == {"ignored"}


# --- what is not Stripe's


def rejected(result: Result, name: str, status: int = 400) -> bool:
    assert result.reply is not None
    return result.counts == {f"rejected.{name}": 1} and result.reply.status == status


def test_what_is_not_signed_by_the_endpoints_secret_is_refused_and_stored_nowhere(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.account("a1")
    world.subscribe("a1")
    event = world.events[-1]
    body, headers = signed(event, [HOOK], int(world.clock.now().timestamp()))
    with caplog.at_level(logging.INFO, "groundskeeper"):
        assert rejected(world.deliver(event, secrets=["whsec_of_somebody_else"]), "signature")
        assert rejected(world.request("stripe_webhook", body.replace(b"a1", b"a2"), headers), "signature")
        assert rejected(world.request("stripe_webhook", body, {}), "signature")
        assert rejected(world.request("stripe_webhook", body, {"stripe-signature": "t=1,t=2,v1=00"}), "signature")
        assert rejected(world.request("stripe_webhook", b"\xff\xfe", headers), "signature")
    assert outcomes(world) == []
    assert world.tier("a1") == "free"
    assert "whsec" not in caplog.text


def test_a_signature_is_good_for_five_minutes_either_way(world: World) -> None:
    world.subscribe("nobody")
    event = world.events[0]
    assert rejected(world.deliver(event, age_s=301), "stale")
    assert rejected(world.deliver(event, age_s=-301), "stale")
    assert said(world.deliver(event, age_s=300))["received"]


def test_during_a_rotation_either_secret_is_good(world: World) -> None:
    world.secrets.add("stripe-webhook-secret", f"whsec_the_new_one\n{HOOK}\n")
    world.subscribe("nobody")
    assert said(world.deliver(world.events[0]))["received"]
    assert said(world.deliver(world.events[1], secrets=["whsec_the_new_one"]))["received"]
    assert said(world.deliver(world.events[2], secrets=["whsec_foreign", HOOK]))["received"]


def test_what_is_too_large_is_refused_unread(world: World) -> None:
    assert rejected(world.request("stripe_webhook", b"x" * (1 << 20 | 1), {}), "oversized", 413)


def test_an_event_of_the_other_mode_is_refused(world: World) -> None:
    world.subscribe("nobody")
    assert rejected(world.deliver({**world.events[0], "livemode": True}), "livemode")


@pytest.mark.parametrize("body", [b"[]", b"{}", b"null", b'{"id": 1}', b"[" * 100_000])
def test_a_signed_body_that_is_no_event_is_refused(world: World, body: bytes) -> None:
    import stripe

    moment = int(world.clock.now().timestamp())
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), HOOK, moment)
    assert rejected(world.request("stripe_webhook", body, {"stripe-signature": header}), "malformed")


def test_an_endpoint_of_another_api_version_is_told_in_the_stored_failure(world: World) -> None:
    world.account("a1")
    world.subscribe("a1")
    assert said(world.deliver({**world.events[-1], "api_version": "2017-08-15"}))["outcome"] == "failed"
    [[reason]] = world.rows("select reason from groundskeeper.billing_event")
    assert "API version" in reason


# --- trouble


@pytest.mark.parametrize("kind", ["429", "500", "truncated", "cut"])
def test_while_stripe_is_in_trouble_the_event_comes_again(world: World, kind: str) -> None:
    world.account("a1")
    world.subscribe("a1")
    world.server.faults = [Fault(kind, times=99)]
    assert world.deliver(world.events[-1]).outcome is Outcome.RETRY
    assert outcomes(world) == []
    world.server.faults = [Fault("429", times=2)]
    assert said(world.deliver(world.events[-1]))["outcome"] == "done"
    assert world.tier("a1") == "pro"


def test_without_secrets_or_with_a_wrong_key_the_event_comes_again(world: World) -> None:
    world.account("a1")
    world.subscribe("a1")
    world.secrets.add("stripe-api-key", "sk_test_of_nobody")
    assert world.deliver(world.events[-1]).outcome is Outcome.RETRY
    for version in (world.secrets.folder / "stripe-webhook-secret").iterdir():
        version.unlink()
    assert world.deliver(world.events[-1]).outcome is Outcome.RETRY
    assert outcomes(world) == []


def test_answers_of_the_other_mode_change_nothing_and_the_event_comes_again(world: World) -> None:
    world.account("a1")
    world.subscribe("a1")
    world.server.faults = [Fault("wrong_mode")]
    assert world.deliver(world.events[-1]).outcome is Outcome.RETRY
    assert outcomes(world) == []
    assert world.tier("a1") == "free"


def test_events_of_one_customer_at_once_end_in_what_stripe_says(world: World) -> None:
    world.account("a1")
    session = world.subscribe("a1")
    for n in range(6):
        world.store.change(session["subscription"], metadata={"n": str(n)})
    world.store.cancel(session["subscription"])
    world.runner("stripe_webhook")
    results: list[Result] = []
    threads = [threading.Thread(target=lambda e=e: results.append(world.deliver(e))) for e in world.events]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {r.outcome for r in results} <= {Outcome.OK, Outcome.RETRY}
    for event in world.events:  # Stripe tries again what was not taken
        world.deliver(event)
    assert world.profile("a1") == ("free", session["customer"], None)


def test_state_that_grew_old_while_it_was_fetched_is_fetched_again(world: World) -> None:
    """Stripe answers one delivery slowly; meanwhile the subscription ends, and that event is settled first."""
    world.account("a1")
    session = world.subscribe("a1")
    completed = world.events[-1]
    world.server.faults = [Fault("slow", path="/v1/subscriptions")]
    slow = threading.Thread(target=world.deliver, args=(completed,))
    slow.start()
    assert world.server.reached.wait(10)
    world.store.cancel(session["subscription"])
    world.deliver(world.events[-1])
    world.server.release.set()
    slow.join()
    assert world.tier("a1") == "free"
    assert world.rows("select outcome from groundskeeper.billing_event where type = 'checkout.session.completed'") == [
        ("done",)
    ]


def test_what_was_erased_stays_erased(world: World) -> None:
    from shared import erasure

    world.secrets.add(erasure.KEY, "a key for tombstones")
    world.account("a1")
    world.subscribe("a1")
    with world.db.transaction() as connection:
        erasure.tombstone(connection, "a1", "a key for tombstones", world.clock.now())
    assert said(world.deliver(world.events[-1]))["outcome"] == "ignored"
    assert world.profile("a1") == ("free", None, None)


def test_nothing_of_an_event_but_its_ids_is_kept(world: World) -> None:
    world.account("a1")
    world.store.customer({"email": "payer@example.com", "name": "Payer"}, "cus_named")
    world.subscribe("a1", customer="cus_named")
    world.deliver_all()
    everything = world.rows(
        "select to_jsonb(e) from groundskeeper.billing_event e"
        " union all select to_jsonb(t) from groundskeeper.task_run t"
    )
    assert "payer" not in json.dumps([r[0] for r in everything]).lower()


def test_a_run_by_hand_is_refused_in_words(world: World) -> None:
    result = world.by_hand("stripe_webhook")
    assert result.outcome is Outcome.REFUSED
    assert "sync_subscriptions" in (result.error or "")


def test_the_price_is_known_by_its_id_too(world: World) -> None:
    world.settings = world.with_variables(STRIPE_PRO_PRICES=f"{FOREIGN} {PRO}")
    world.account("a1")
    world.subscribe("a1", price=FOREIGN)
    world.deliver_all()
    assert world.tier("a1") == "pro"
