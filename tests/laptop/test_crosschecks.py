"""The laptop's doubles beside somebody else's of the same services: the same story, told to both, ends the same.

By hand (`make soak`), where they are installed: `localstripe` (PyPI; GPL, so no dependency of ours) and `firebase`
(npm's firebase-tools) on the PATH.
"""

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import requests
import stripe

from shared import settings as settings_module
from shared.billing import events
from shared.clock import SystemClock
from shared.identity import Identity, NotSignedIn
from shared.laptop.firebase import VARIABLE, FirebaseAuth
from shared.laptop.ports import free_ports
from shared.laptop.processes import Child
from shared.laptop.stripe_server import StripeServer
from shared.laptop.stripe_store import Store
from tests.parts import missing

pytestmark = pytest.mark.soak
KEY = "sk_test_0123456789"
PROJECT = "demo-groundskeeper"
SECRET = "whsec_0123456789"


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).status_code > 0
    except requests.ConnectionError:
        return False


@pytest.fixture
def localstripe(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("localstripe") or missing("localstripe", "python -m pip install localstripe")
    port = next(free_ports())
    child = Child.start("localstripe", [program, "--port", str(port), "--from-scratch"], folder=tmp_path, cwd=tmp_path)
    url = f"http://127.0.0.1:{port}"
    try:
        child.wait_until(lambda: answers(url))
        yield url
    finally:
        child.stop()


@pytest.fixture
def ours() -> Iterator[str]:
    store = Store(SystemClock())
    store.price({"unit_amount": "900", "lookup_key": "pro_monthly"}, "price_pro")
    made = StripeServer(store, key=KEY)
    yield made.url
    made.stop()


def client(url: str) -> Any:
    return stripe.StripeClient(KEY, base_addresses={"api": url}, max_network_retries=0).v1


def refused(ask: Any, *given: Any) -> tuple[str, int | None]:
    with pytest.raises(stripe.StripeError) as caught:
        ask(*given)
    return type(caught.value).__name__, caught.value.http_status


def bought(stripe_: Any, item: dict[str, str], *, card: bool) -> tuple[str, str]:
    """A new customer, and what it subscribed to; localstripe wants a card first."""
    customer = stripe_.customers.create({"email": "ann@example.com"}).id
    if card:
        number = {"number": "4242424242424242", "exp_month": "12", "exp_year": "2035", "cvc": "123"}
        method = stripe_.payment_methods.create({"type": "card", "card": number}).id
        stripe_.payment_methods.attach(method, {"customer": customer})
        stripe_.customers.update(customer, {"invoice_settings": {"default_payment_method": method}})
    return customer, stripe_.subscriptions.create({"customer": customer, "items": [item]}).id


def told(stripe_: Any, item: dict[str, str], *, card: bool) -> dict[str, Any]:
    """Subscribe five, end two, end a third later; what the listings then say.

    What localstripe does otherwise than Stripe documents is left out: it forgets deleted customers and leaves their
    subscriptions alive, and ends a subscription twice.
    """
    customers, subscriptions = zip(*(bought(stripe_, item, card=card) for _ in range(5)), strict=True)
    numbers = {subscription: n for n, subscription in enumerate(subscriptions)}
    ended = [stripe_.subscriptions.cancel(subscriptions[n]).status for n in (1, 3)]
    later = stripe_.subscriptions.update(subscriptions[2], {"cancel_at_period_end": True})
    listed = [one.id for one in stripe_.subscriptions.list({"status": "all", "limit": 2}).auto_paging_iter()]
    return {
        "ended": ended,
        "later": (later.status, later.cancel_at_period_end),
        "each once": len(listed) == len(set(listed)),
        "all": sorted(numbers[one] for one in listed),
        "alive": sorted(numbers[one.id] for one in stripe_.subscriptions.list({}).data),
        "canceled": sorted(numbers[one.id] for one in stripe_.subscriptions.list({"status": "canceled"}).data),
        "one's": [numbers[s.id] for s in stripe_.subscriptions.list({"customer": customers[3], "status": "all"}).data],
        "status": [stripe_.subscriptions.retrieve(one).status for one in subscriptions],
        "nobody": refused(stripe_.customers.retrieve, "cus_none"),
        "nothing": refused(stripe_.subscriptions.retrieve, "sub_none"),
    }


def test_both_stripes_tell_the_same_story(ours: str, localstripe: str) -> None:
    there = client(localstripe)
    product = there.products.create({"name": "Pro"}).id
    plan = {"id": "pro", "amount": 900, "currency": "eur", "interval": "month", "product": product}
    assert told(client(ours), {"price": "price_pro"}, card=False) == told(
        there, {"plan": there.plans.create(plan).id}, card=True
    )


def test_an_event_that_somebody_else_signed_is_believed_and_another_secret_is_not(localstripe: str) -> None:
    received: Queue[tuple[bytes, str]] = Queue()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.put((body, self.headers["Stripe-Signature"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", next(free_ports())), Hook)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        hook = {"url": f"http://127.0.0.1:{server.server_port}/", "secret": SECRET}
        requests.post(f"{localstripe}/_config/webhooks/ours", data=hook, timeout=5).raise_for_status()
        client(localstripe).customers.create({"email": "ann@example.com"})
        body, header = received.get(timeout=10)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    now, tolerance = SystemClock().now(), timedelta(minutes=5)
    events.verified(body, header, ["whsec_old", SECRET], now=now, tolerance=tolerance)
    with pytest.raises(events.Rejected):
        events.verified(body, header, ["whsec_other"], now=now, tolerance=tolerance)


@dataclass(frozen=True)
class People:
    """Users of one Firebase Auth, by its public methods alone."""

    host: str

    def call(self, method: str, **body: Any) -> Any:
        url = f"http://{self.host}/identitytoolkit.googleapis.com/v1/{method}?key=any"
        return requests.post(url, json=body, headers={"Authorization": "Bearer owner"}, timeout=10).json()

    def signed_up(self, address: str) -> dict[str, Any]:
        given = {"email": address, "password": "secret-one", "returnSecureToken": True}
        # `accounts:signUp` with an administrator's token would make a user without a session
        url = f"http://{self.host}/identitytoolkit.googleapis.com/v1/accounts:signUp?key=any"
        return dict(requests.post(url, json=given, timeout=10).json())


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("firebase") or missing("firebase-tools", "npm install --global firebase-tools")
    ports = free_ports()
    auth, hub, logging = next(ports), next(ports), next(ports)
    settings = {
        "auth": {"host": "127.0.0.1", "port": auth},
        "hub": {"host": "127.0.0.1", "port": hub},
        "logging": {"host": "127.0.0.1", "port": logging},
        "ui": {"enabled": False},
    }
    (tmp_path / "firebase.json").write_text(json.dumps({"emulators": settings}))
    child = Child.start(
        "firebase",
        [program, "emulators:start", "--only", "auth", "--project", PROJECT],
        folder=tmp_path,
        cwd=tmp_path,
        env={"PATH": f"{Path(program).parent}:/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path), "CI": "1"},
    )
    try:
        child.wait_until(lambda: answers(f"http://127.0.0.1:{auth}/"), seconds=90)
        yield f"127.0.0.1:{auth}"
    finally:
        child.stop()


def seen(host: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What our own check of callers says of users that sign up, are disabled, are signed out and are deleted."""
    monkeypatch.setenv(VARIABLE, host)
    people, clock = People(host), SystemClock()
    identity = Identity(settings_module.read({VARIABLE: host, "GOOGLE_CLOUD_PROJECT": PROJECT}), clock)

    def verdict(token: str) -> str:
        try:
            person = identity.by_token(token, fresh_within=timedelta(minutes=5))
        except NotSignedIn as error:
            return str(error)
        return f"signed in, {'with' if person.email else 'without'} a verified address"

    path = f"projects/{PROJECT}/accounts"
    story: dict[str, Any] = {}
    ann, bob, cid, dot = (people.signed_up(f"{name}@example.com") for name in ("ann", "bob", "cid", "dot"))
    story["new"] = verdict(ann["idToken"])
    people.call(f"{path}:update", localId=ann["localId"], emailVerified=True)
    story["verified"] = verdict(ann["idToken"])
    people.call(f"{path}:update", localId=bob["localId"], disableUser=True)
    story["disabled"] = verdict(bob["idToken"])
    later = int(clock.now().timestamp()) + 5
    people.call(f"{path}:update", localId=cid["localId"], validSince=str(later))
    story["signed out"] = verdict(cid["idToken"])
    people.call(f"{path}:delete", localId=dot["localId"])
    story["deleted"] = verdict(dot["idToken"])
    story["deleted twice"] = people.call(f"{path}:delete", localId=dot["localId"])["error"]["message"].split(" ")[0]
    story["nonsense"] = verdict("nonsense")
    story["taken"] = people.signed_up("ann@example.com")["error"]["message"].split(" ")[0]
    return story


def test_both_firebases_tell_the_same_of_their_users(emulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = FirebaseAuth(PROJECT, SystemClock())
    try:
        here = seen(double.host, monkeypatch)
    finally:
        double.stop()
    assert here == seen(emulator, monkeypatch)
    assert here["verified"] == "signed in, with a verified address"
