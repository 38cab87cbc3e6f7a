"""What the Stripe double knows: customers, prices, subscriptions, Checkout sessions, events, webhook endpoints.

Time moves only with its clock, and nothing bills: a test or a person at the laptop says when a payment fails. Every
change of a subscription and every finished Checkout makes an event, told to whoever listens.
"""

import json
import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import stripe

from shared.clock import Clock
from shared.laptop import stripe_objects as make
from shared.laptop.stripe_objects import Object

PERIOD_S = 30 * 86400
KINDS = ("customer", "product", "price", "subscription", "checkout.session", "event", "webhook_endpoint")
_PREFIXES = {"checkout.session": "cs_test", "event": "evt", "webhook_endpoint": "we", "customer": "cus"} | {
    "subscription": "sub",
    "price": "price",
    "product": "prod",
}


class NoSuch(Exception):
    """There is no object of this id; the message is Stripe's."""


class NotPossible(Exception):
    """The object's state does not allow it; the message is what Stripe would say."""


class Store:
    """All objects by kind and id, in the order of their making. Safe to use from several threads."""

    def __init__(self, clock: Clock, *, livemode: bool = False, file: Path | None = None) -> None:
        """With `file`, what it knows is read from there and kept there."""
        self.clock, self.livemode, self._file = clock, livemode, file
        self.lock = threading.RLock()
        self.listeners: list[Callable[[Object], None]] = []
        self._kinds: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        self._line_items: dict[str, list[str]] = {}  # the prices of each session
        self.webhook_secrets: dict[str, str] = {}  # by endpoint's id; shown once, when it is made
        if file is not None:
            with suppress(FileNotFoundError):
                kept = json.loads(file.read_text(encoding="utf-8"))
                self._kinds, self._line_items = kept["objects"], kept["line_items"]
                self.webhook_secrets = kept["webhook_secrets"]

    def save(self) -> None:
        """Keep everything in the file, whole or not at all."""
        if self._file is None:
            return
        with self.lock:
            kept = {"objects": self._kinds, "line_items": self._line_items, "webhook_secrets": self.webhook_secrets}
            beside = self._file.with_suffix(".new")
            beside.write_text(json.dumps(kept), encoding="utf-8")
            beside.chmod(0o600)
            os.replace(beside, self._file)

    # --- reading

    def get(self, kind: str, object_id: str) -> Object:
        """The object itself. Raises NoSuch."""
        found = self._kinds[kind].get(object_id)
        if found is None:
            raise NoSuch(f"No such {kind.rpartition('.')[2].replace('_', ' ')}: '{object_id}'")
        return found

    def newest(self, kind: str, matches: Callable[[Object], bool] = lambda _: True) -> list[Object]:
        """The objects that match, the newest first."""
        with self.lock:
            found = [one for one in reversed(self._kinds[kind].values()) if matches(one)]
        return sorted(found, key=lambda one: -int(one["created"]))

    def of_customer(self, customer_id: str) -> list[Object]:
        """The customer's subscriptions, the newest first."""
        return self.newest("subscription", lambda one: bool(one["customer"] == customer_id))

    # --- making and changing

    def _id(self, kind: str, wished: str | None = None) -> str:
        return wished or f"{_PREFIXES[kind]}_{uuid.uuid4().hex[:20]}"

    def _now(self) -> int:
        return int(self.clock.now().timestamp())

    def _keep(self, one: Object) -> Object:
        self._kinds[one["object"]][one["id"]] = one
        return one

    def _tell(self, kind: str, of: Object, previous: Mapping[str, Any] | None = None) -> Object:
        told = make.event(
            self._id("event"),
            created=self._now(),
            livemode=self.livemode,
            kind=kind,
            of=deepcopy(of),
            previous=previous,
            api_version=stripe.api_version,
        )
        self._keep(told)
        self.save()
        for listener in self.listeners:
            listener(deepcopy(told))
        return told

    def customer(self, given: Mapping[str, Any], wished: str | None = None) -> Object:
        with self.lock:
            one = make.customer(self._id("customer", wished), created=self._now(), livemode=self.livemode, given=given)
            self._tell("customer.created", self._keep(one))
            return one

    def delete_customer(self, customer_id: str) -> Object:
        """The customer is gone and its subscriptions end; the ids stay known."""
        with self.lock:
            one = self.get("customer", customer_id)
            if not one.get("deleted"):
                for subscription in self.of_customer(customer_id):
                    if subscription["status"] not in make.ENDED:
                        self.cancel(subscription["id"])
                before = dict(one)
                one.clear()
                one.update(
                    id=customer_id, object="customer", deleted=True, created=before["created"], livemode=self.livemode
                )
                self._tell("customer.deleted", before)
            return {"id": customer_id, "object": "customer", "deleted": True}

    def price(self, given: Mapping[str, Any], wished: str | None = None) -> Object:
        """A recurring price of the product `given` names, or of one made for it."""
        with self.lock:
            product_id = given.get("product")
            if product_id is None:
                name = (given.get("product_data") or {}).get("name", "Plan")
                product = make.product(self._id("product"), created=self._now(), livemode=self.livemode, name=name)
                product_id = self._keep(product)["id"]
            self.get("product", str(product_id))
            one = make.price(
                self._id("price", wished),
                created=self._now(),
                livemode=self.livemode,
                product_id=str(product_id),
                given=given,
            )
            self._tell("price.created", self._keep(one))
            return one

    def subscription(
        self,
        customer_id: str,
        prices: Sequence[str],
        *,
        status: str = "active",
        wished: str | None = None,
        metadata: Mapping[str, str] | None = None,
        since: int | None = None,
    ) -> Object:
        """A subscription of the customer to the prices, as if made at `since`. Raises NoSuch."""
        with self.lock:
            if self.get("customer", customer_id).get("deleted"):
                raise NoSuch(f"No such customer: '{customer_id}'")
            now, subscription_id = self._now(), self._id("subscription", wished)
            since = now if since is None else since
            begun = now - (now - since) % PERIOD_S
            items = [self._item(subscription_id, price_id, begun) for price_id in prices]
            one = make.subscription(
                subscription_id,
                created=since,
                livemode=self.livemode,
                customer_id=customer_id,
                status=status,
                items=items,
            )
            one["metadata"] = dict(metadata or {})
            self._tell("customer.subscription.created", self._keep(one))
            return one

    def _item(self, subscription_id: str, price_id: str, start: int) -> Object:
        return make.item(
            f"si_{uuid.uuid4().hex[:14]}",
            subscription_id,
            deepcopy(self.get("price", price_id)),
            created=start,
            start=start,
            end=start + PERIOD_S,
        )

    def change(self, subscription_id: str, **fields: Any) -> Object:
        """Give a subscription other fields, `status` say, and tell of it."""
        with self.lock:
            one = self.get("subscription", subscription_id)
            previous = {name: one[name] for name, value in fields.items() if one[name] != value}
            if previous:
                one.update(fields)
                self._tell("customer.subscription.updated", one, previous)
            return one

    def switch(self, subscription_id: str, prices: Sequence[str]) -> Object:
        """Another price, from now on, in a period of its own."""
        items = [self._item(subscription_id, price_id, self._now()) for price_id in prices]
        return self.change(
            subscription_id, items=make.page(items, f"/v1/subscription_items?subscription={subscription_id}")
        )

    def renew(self, subscription_id: str, *, paid: bool) -> Object:
        """A new period begins now; unpaid, the subscription is past due."""
        one = deepcopy(self.get("subscription", subscription_id))
        for item in one["items"]["data"]:
            item.update(current_period_start=self._now(), current_period_end=self._now() + PERIOD_S)
        return self.change(subscription_id, items=one["items"], status="active" if paid else "past_due")

    def cancel(self, subscription_id: str) -> Object:
        """End a subscription at once. Raises NoSuch where it has ended already, as Stripe does."""
        with self.lock:
            one = self.get("subscription", subscription_id)
            if one["status"] in make.ENDED:
                raise NoSuch(f"No such subscription: '{subscription_id}'")
            now = self._now()
            one.update(status="canceled", canceled_at=now, ended_at=now, cancel_at_period_end=False)
            one["cancellation_details"] = {"comment": None, "feedback": None, "reason": "cancellation_requested"}
            self._tell("customer.subscription.deleted", one)
            return one

    def session(self, given: Mapping[str, Any], base: str) -> Object:
        """An open Checkout session whose page is below `base`. Raises NoSuch for a customer or price unknown."""
        with self.lock:
            if given.get("customer"):
                self.get("customer", str(given["customer"]))
            prices = [str(line["price"]) for line in given.get("line_items") or []]
            for price_id in prices:
                self.get("price", price_id)
            session_id = self._id("checkout.session")
            one = make.session(
                session_id,
                created=self._now(),
                livemode=self.livemode,
                url=f"{base}/c/pay/{session_id}",
                given=given,
            )
            self._keep(one)
            self._line_items[session_id] = prices
            self.save()
            return one

    def complete(self, session_id: str, *, status: str = "active") -> Object:
        """The visitor paid: customer and subscription come into being. Raises NotPossible unless it is open."""
        with self.lock:
            one = self.get("checkout.session", session_id)
            if one["status"] != "open":
                raise NotPossible("This Checkout session is no longer open.")
            if one["customer"] is None:
                one["customer"] = self.customer({"email": one["customer_email"]})["id"]
            if one["mode"] == "subscription":
                made = self.subscription(one["customer"], self._line_items[session_id], status=status)
                one["subscription"] = made["id"]
            one.update(status="complete", payment_status="paid", url=None)
            self._tell("checkout.session.completed", one)
            return one

    def expire(self, session_id: str) -> Object:
        with self.lock:
            one = self.get("checkout.session", session_id)
            if one["status"] != "open":
                raise NotPossible("Only Checkout sessions with a status of open can be expired.")
            one.update(status="expired", url=None)
            self._tell("checkout.session.expired", one)
            return one

    def endpoint(
        self, url: str, kinds: Sequence[str], *, version: str | None = None, secret: str | None = None
    ) -> Object:
        """A webhook endpoint; its secret is in the answer to its making only."""
        with self.lock:
            one = make.endpoint(
                self._id("webhook_endpoint"),
                created=self._now(),
                livemode=self.livemode,
                url=url,
                kinds=kinds,
                version=version or stripe.api_version,
            )
            self.webhook_secrets[one["id"]] = secret or f"whsec_{uuid.uuid4().hex}"
            self._keep(one)
            self.save()
            return {**one, "secret": self.webhook_secrets[one["id"]]}

    def delete_endpoint(self, endpoint_id: str) -> Object:
        with self.lock:
            self.get("webhook_endpoint", endpoint_id)
            del self._kinds["webhook_endpoint"][endpoint_id]
            self.webhook_secrets.pop(endpoint_id, None)
            self.save()
            return {"id": endpoint_id, "object": "webhook_endpoint", "deleted": True}
