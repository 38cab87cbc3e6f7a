"""The laptop's Stripe, by the real library: what Stripe promises, and what it is held to."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import stripe
from stripe.params import SubscriptionListParams

from shared.database import Database
from shared.laptop import billing
from shared.laptop.stripe_hooks import Deliveries, signed
from shared.laptop.stripe_server import Fault, StripeServer
from shared.laptop.stripe_store import Store
from shared.laptop.stripe_types import Mismatch, check_answer, check_request
from tests.conftest import NOW, ManualClock

KEY = "sk_test_0123456789"


@pytest.fixture
def store(clock: ManualClock) -> Store:
    made = Store(clock)
    made.price({"unit_amount": "900", "lookup_key": "pro_monthly"}, "price_pro")
    made.customer({"email": "a@example.com"}, "cus_1")
    return made


@pytest.fixture
def double(store: Store) -> Iterator[StripeServer]:
    made = StripeServer(store, key=KEY)
    yield made
    made.stop()


@pytest.fixture
def client(double: StripeServer) -> Any:
    return stripe.StripeClient(KEY, base_addresses={"api": double.url}, max_network_retries=0).v1


def test_pages_cover_everything_once_the_newest_first(store: Store, client: Any, clock: ManualClock) -> None:
    made = []
    for _ in range(7):
        made.append(store.subscription("cus_1", ["price_pro"])["id"])
        clock.advance(timedelta(seconds=1))
    listed = client.subscriptions.list({"status": "all", "limit": 3})
    assert [one.id for one in listed.auto_paging_iter()] == made[::-1]
    before = client.subscriptions.list({"ending_before": made[0], "limit": 2})
    assert [one.id for one in before.data] == [made[2], made[1]]


def test_only_living_subscriptions_are_listed_unless_asked_for(store: Store, client: Any) -> None:
    ended = store.subscription("cus_1", ["price_pro"])["id"]
    store.cancel(ended)
    store.subscription("cus_1", ["price_pro"])
    assert len(client.subscriptions.list({}).data) == 1
    assert [one.id for one in client.subscriptions.list({"status": "canceled"}).data] == [ended]
    assert len(client.subscriptions.list({"status": "all", "customer": "cus_1"}).data) == 2


def test_a_request_with_the_same_idempotency_key_is_done_once(client: Any) -> None:
    given = {"customer": "cus_1", "items": [{"price": "price_pro"}]}
    first = client.subscriptions.create(given, {"idempotency_key": "one"})
    assert client.subscriptions.create(given, {"idempotency_key": "one"}).id == first.id
    with pytest.raises(stripe.IdempotencyError):
        client.subscriptions.create({**given, "metadata": {"a": "b"}}, {"idempotency_key": "one"})


def test_a_subscription_can_be_changed_and_ended_once(client: Any) -> None:
    made = client.subscriptions.create({"customer": "cus_1", "items": [{"price": "price_pro"}]})
    changed = client.subscriptions.update(made.id, {"cancel_at_period_end": True, "metadata": {"a": "b"}})
    assert changed.cancel_at_period_end
    assert client.subscriptions.cancel(made.id).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription"):
        client.subscriptions.cancel(made.id)
    kinds = [event.type for event in client.events.list({"types": ["customer.subscription.updated"]}).data]
    assert kinds == ["customer.subscription.updated"]


def test_a_deleted_customers_subscriptions_end_and_stay_listed(client: Any) -> None:
    client.subscriptions.create({"customer": "cus_1", "items": [{"price": "price_pro"}]})
    assert client.customers.delete("cus_1").deleted
    assert client.customers.retrieve("cus_1").deleted
    assert [one.status for one in client.subscriptions.list({"status": "all"}).data] == ["canceled"]


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda c: c.subscriptions.retrieve("sub_none"), stripe.InvalidRequestError),
        (lambda c: c.subscriptions.list({"customer": "cus_none"}), stripe.InvalidRequestError),
        (lambda c: c.subscriptions.list({"status": "lively"}), stripe.InvalidRequestError),
        (lambda c: c.subscriptions.list({"limit": 101}), stripe.InvalidRequestError),
        (lambda c: c.customers.create({"colour": "red"}), stripe.InvalidRequestError),
        (lambda c: c.subscriptions.create({"items": []}), stripe.InvalidRequestError),
        (lambda c: c.refunds.list({}), stripe.InvalidRequestError),
    ],
)
def test_what_stripe_would_refuse_is_refused(client: Any, ask: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        ask(client)


def test_a_foreign_key_opens_nothing(double: StripeServer) -> None:
    for key in ("sk_test_other", "sk_live_0123456789", "nonsense"):
        other = stripe.StripeClient(key, base_addresses={"api": double.url}, max_network_retries=0).v1
        with pytest.raises(stripe.AuthenticationError):
            other.customers.list({})


def test_more_requests_than_the_limit_are_told_to_slow_down(store: Store) -> None:
    limited = StripeServer(store, key=KEY, per_second=5)
    try:
        hasty = stripe.StripeClient(KEY, base_addresses={"api": limited.url}, max_network_retries=0).v1
        with pytest.raises(stripe.RateLimitError):
            list(map(hasty.customers.retrieve, ["cus_1"] * 50))
    finally:
        limited.stop()


def test_a_fault_happens_as_often_as_told(double: StripeServer, client: Any) -> None:
    double.faults = [Fault("500", times=1)]
    with pytest.raises(stripe.APIError):
        client.customers.list({})
    assert client.customers.list({}).data


def test_answers_and_requests_that_are_not_stripes_are_noticed(store: Store) -> None:
    good = store.subscription("cus_1", ["price_pro"])
    check_answer(good, stripe.Subscription)
    for spoiled in (
        {**good, "status": "lively"},
        {**good, "colour": "red"},
        {**good, "items": None},
        {**good, "created": "today"},
        {name: value for name, value in good.items() if name != "livemode"},
    ):
        with pytest.raises(Mismatch):
            check_answer(spoiled, stripe.Subscription)
    check_request({"status": "all", "limit": "100", "created": {"gte": "5"}}, SubscriptionListParams)
    for wrong in ({"status": "lively"}, {"limit": "ten"}, {"created": {"after": "5"}}):
        with pytest.raises(Mismatch):
            check_request(wrong, SubscriptionListParams)


def test_a_webhook_is_signed_as_stripe_signs(store: Store) -> None:
    event = store.newest("event")[0]
    body, headers = signed(event, ["whsec_old", "whsec_new"], int(NOW.timestamp()))
    for secret in ("whsec_old", "whsec_new"):
        assert stripe.WebhookSignature.verify_header(body, headers["Stripe-Signature"], secret)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header(body, headers["Stripe-Signature"], "whsec_other")


def test_everything_survives_a_restart(clock: ManualClock, tmp_path: Path) -> None:
    first = Store(clock, file=tmp_path / "stripe.json")
    first.price({"lookup_key": "pro_monthly"}, "price_pro")
    lines = [{"price": "price_pro", "quantity": "1"}]
    session = first.session({"mode": "subscription", "client_reference_id": "a1", "line_items": lines}, "http://x")
    second = Store(clock, file=tmp_path / "stripe.json")
    assert second.complete(session["id"])["subscription"].startswith("sub_")


def test_the_page_leads_through_checkout_and_ends_subscriptions(double: StripeServer, store: Store) -> None:
    with requests.Session() as web:
        page = web.post(f"{double.url}/subscribe", data={"account": "a1", "price": "price_pro"}, allow_redirects=False)
        pay = page.headers["Location"]
        assert "Subscribe" in web.get(pay).text
        assert web.post(pay, data={"pay": ""}).status_code == 200
        [subscription] = store.newest("subscription")
        web.post(f"{double.url}/subscriptions/{subscription['id']}", data={"fate": "cancel"})
        assert store.get("subscription", subscription["id"])["status"] == "canceled"
        assert web.get(f"{double.url}/c/pay/cs_none").status_code == 404


def test_an_endpoint_gets_every_event_until_it_takes_it(store: Store) -> None:
    """The first answer is 503, as while a database is down."""
    import threading

    from werkzeug.serving import make_server
    from werkzeug.wrappers import Request, Response

    from shared.clock import SystemClock
    from shared.laptop.ports import free_ports

    got: list[tuple[str, str]] = []
    taken = threading.Event()

    @Request.application
    def hook(request: Request) -> Response:
        got.append((request.headers["Stripe-Signature"], request.get_json()["type"]))
        if len(got) == 1:
            return Response("", 503)
        taken.set()
        return Response("")

    listener = make_server("127.0.0.1", next(free_ports()), hook)
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    store.endpoint(f"http://127.0.0.1:{listener.server_port}/", ["customer.subscription.created"])
    deliveries = Deliveries(store, SystemClock())
    try:
        store.subscription("cus_1", ["price_pro"])
        assert taken.wait(20)
    finally:
        deliveries.stop()
        listener.shutdown()
        thread.join()
        listener.server_close()
    assert {kind for _, kind in got} == {"customer.subscription.created"}


def test_the_laptops_double_knows_the_accounts_customers(db: Database, clock: ManualClock) -> None:
    from sqlalchemy import text

    with db.transaction() as connection:
        connection.execute(
            text("""insert into user_profile (account_id, firebase_uid, email, tier, stripe_customer_id,
                                              stripe_subscription_id, created_at, updated_at)
                    values ('a1', 'f1', 'x@example.com', 'pro', 'cus_a', 'sub_a', :then, :then),
                           ('a2', 'f2', 'x@example.com', 'pro', 'cus_b', 'sub_b', :then, :then),
                           ('a3', 'f3', 'x@example.com', 'free', 'cus_c', null, :then, :then)"""),
            {"then": NOW - timedelta(days=400)},
        )
    store = Store(clock)
    for _ in range(2):  # the second start changes nothing
        with db.transaction(read_only=True) as connection:
            billing.fill(store, connection)
        assert [store.get("subscription", one)["status"] for one in ("sub_a", "sub_b")] == ["active", "canceled"]
        assert sorted(one["status"] for one in store.of_customer("cus_c")) == ["active", "canceled"]
        assert len(store.newest("subscription")) == 4
