"""Stripe as billing uses it: a customer's subscriptions, all of them, and its Checkout sessions. Reads only.

The stripe library is imported when the first client is made. Its errors become outcomes without their messages, which
may quote what Stripe sent.
"""

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shared.billing.tiers import Price, Subscription
from shared.clock import Clock
from shared.context import Context
from shared.errors import Refused, Retry, Unavailable

if TYPE_CHECKING:
    import stripe

KEY = "stripe-api-key"

# What the laptop's double takes. It opens nothing at Stripe, and is never sent there.
DOUBLES_KEY = "sk_test_ofthelaptopsdouble"

PAGE = 100  # Stripe's most
_TIMEOUT_S = 20.0
_PATIENCE = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between tries when Stripe asks us to slow down or fails


class UnknownCustomer(Exception):
    """Stripe does not know the customer, in this account and mode."""


@functools.lru_cache(maxsize=4)
def _client(key: str, address: str) -> "stripe.StripeClient":
    """One client a key and address: its connections are used again."""
    import stripe

    return stripe.StripeClient(
        key,
        base_addresses={"api": address},
        http_client=stripe.RequestsClient(timeout=_TIMEOUT_S),
        max_network_retries=0,
    )


class Stripe:
    """Reads of one run. `calls` counts the requests made."""

    def __init__(self, ctx: Context, emulator: str) -> None:
        """`emulator` is the address of a double, which no function in the cloud starts with; empty: Stripe itself.

        Raises Unavailable where there is no key, Refused for a key of the other mode.
        """
        key = ctx.recent_secret(KEY).strip()
        if key == DOUBLES_KEY and not emulator:
            raise Unavailable(f"secret {KEY} is that of the laptop's double, which is not up: `make up`")
        mode = "live" if ctx.settings.livemode else "test"
        if f"_{mode}_" not in key[:9]:
            raise Refused(f"secret {KEY} is no key of Stripe's {mode} mode, which this environment is of: replace it")
        self._ctx, self._livemode, self.calls = ctx, ctx.settings.livemode, 0
        self._clock: Clock = ctx.clock
        address = f"http://{emulator.removeprefix('http://')}" if emulator else "https://api.stripe.com"
        self._v1 = _client(key, address).v1

    def of_customer(self, customer_id: str) -> list[Subscription]:
        """Every subscription the customer ever had; none of a deleted customer's are alive.

        Raises UnknownCustomer, Retry, Refused, Unavailable.
        """
        try:
            return [one for page in self.pages(customer=customer_id) for one in page]
        except UnknownCustomer:
            if self._deleted(customer_id):
                return []
            raise

    def pages(self, **filters: Any) -> Iterator[list[Subscription]]:
        """All subscriptions of every status, 100 at a time. Raises as `of_customer` does.

        A listing that breaks off is an error: what it lacks must not look as if it had ended.
        """
        after: dict[str, str] = {}
        while True:
            page = self._asked(self._v1.subscriptions.list, {"status": "all", "limit": PAGE, **filters, **after})
            if not isinstance(page.data, list) or (page.has_more and not page.data):
                raise Retry("Stripe's listing broke off: it said there was more and gave nothing")
            yield [self._subscription(one) for one in page.data]
            if not page.has_more:
                return
            if after.get("starting_after") == page.data[-1].id:
                raise Retry("Stripe's listing goes in a circle")
            after = {"starting_after": page.data[-1].id}

    def references(self, customer_id: str) -> list[tuple[str, int]]:
        """The client_reference_id and time of the customer's finished Checkouts of subscriptions, the oldest first."""
        given = {"customer": customer_id, "status": "complete", "limit": PAGE}
        try:
            found = self._asked(self._v1.checkout.sessions.list, given).data
        except UnknownCustomer:
            return []
        for one in found:
            self._same_mode(one.livemode)
        named = [one for one in found if one.client_reference_id and one.mode == "subscription"]
        return sorted(((one.client_reference_id, one.created) for one in named), key=lambda pair: pair[1])

    def _deleted(self, customer_id: str) -> bool:
        return bool(getattr(self._asked(self._v1.customers.retrieve, customer_id), "deleted", False))

    def _same_mode(self, livemode: bool) -> None:
        if livemode is not self._livemode:
            raise Refused("Stripe answered with objects of the other mode: check stripe-api-key and this environment")

    def _subscription(self, one: "stripe.Subscription") -> Subscription:
        self._same_mode(one.livemode)
        # `items` is also a method's name
        items = one["items"]
        return Subscription(
            subscription_id=one.id,
            customer_id=one.customer if isinstance(one.customer, str) else one.customer.id,
            status=one.status,
            created=one.created,
            period_start=max((item.current_period_start for item in items.data), default=one.created),
            prices=tuple(Price(item.price.id, item.price.lookup_key) for item in items.data),
            whole=not items.has_more,
        )

    def _asked(self, ask: Any, given: Any) -> Any:
        import stripe

        for pause in (*_PATIENCE, None):
            self._ctx.check()
            self.calls += 1
            try:
                return ask(given)
            except (stripe.RateLimitError, stripe.APIConnectionError, stripe.APIError) as error:
                if pause is None or pause > self._ctx.time_left():
                    raise Retry(f"Stripe did not answer ({type(error).__name__}), though asked again") from None
                self._clock.sleep(pause * self._ctx.random.uniform(0.5, 1.0))
            except stripe.InvalidRequestError as error:
                if error.code == "resource_missing":
                    raise UnknownCustomer from None
                raise Refused(
                    f"Stripe refused the request (HTTP {error.http_status}): its API may have changed"
                ) from None
            except stripe.PermissionError:
                raise Refused(
                    f"the key in {KEY} may not read subscriptions, sessions and customers: give it that"
                ) from None
            except stripe.AuthenticationError:
                raise Unavailable(f"Stripe does not take the key in secret {KEY}: put a valid one there") from None
        raise AssertionError("the last try returns or raises")
