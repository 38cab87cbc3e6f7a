"""The secret with which Stripe signs its events. Stripe tells it once, when an endpoint is made.

So a second endpoint is made at the same address, and until the grace is over the secret holds both, the new one
first: the receiver takes either, and knows an event that comes twice by its id.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import stripe

from shared.errors import Refused, Retry, Unavailable
from shared.redaction import register
from shared.rotation.rotator import Details, Made, Target
from shared.secrets import Secret

_TIMEOUT_S = 20


class StripeWebhook:
    """Endpoints of one account, asked for with `key` at `address`."""

    def __init__(self, target: Target, key: Callable[[], str], address: str) -> None:
        """`key` gives the API key when it is needed; `address` is Stripe's, or a laptop's double's."""
        self._target, self._key, self._address = target, key, address

    def _hooks(self) -> Any:
        return stripe.StripeClient(
            self._key().strip(),
            base_addresses={"api": self._address},
            http_client=stripe.RequestsClient(timeout=_TIMEOUT_S),
            max_network_retries=0,
        ).v1.webhook_endpoints

    def _here(self) -> list[Any]:
        """The endpoints at our address. Raises Refused where it cannot be told which that is."""
        url, path = self._target.endpoint_url, self._target.endpoint_path
        every = _asked(lambda: list(self._hooks().list({"limit": 100}).auto_paging_iter()))
        found = [hook for hook in every if (hook.url == url if url else urlsplit(hook.url).path == path)]
        if len({hook.url for hook in found}) > 1:
            raise Refused(f"Stripe has endpoints at several addresses ending in {path}: set STRIPE_WEBHOOK_URL to ours")
        return found

    def prepare(self, old: str | None) -> Details:
        found = self._here()
        if not found:
            raise Refused(
                f"Stripe has no endpoint at {self._target.endpoint_url or self._target.endpoint_path}: make the first "
                f"one in its dashboard and add its secret with `keeper secret add {self._target.secret}`"
            )
        return {"before": sorted(hook.id for hook in found)}

    def create(self, secret: Secret, old: str | None, details: Details) -> Made | None:
        here = self._here()
        kept = [hook for hook in here if hook.id in details["before"]]
        if not kept or old is None:
            raise Refused("the endpoint that was to be replaced is gone from Stripe: make one and add its secret")
        self._delete([hook.id for hook in here if hook.id not in details["before"]])  # a killed attempt's
        made = _asked(
            lambda: self._hooks().create(
                {
                    "url": kept[0].url,
                    "enabled_events": kept[0].enabled_events,
                    "api_version": stripe.api_version,
                }
            )
        )
        register(made.secret)
        return Made(f"{made.secret} {old.split()[0]}", {"made": made.id})

    def test(self, value: str, details: Details) -> None:
        if details["made"] not in {hook.id for hook in self._here() if hook.status == "enabled"}:
            raise Refused("the endpoint that was made is not there or not enabled")

    def confirm(self, value: str, details: Details) -> None:
        self.test(value, details)

    def disable(self, value: str, details: Details) -> str | None:
        self._delete([hook.id for hook in self._here() if hook.id in details["before"]])
        return value.split()[0]

    def destroy(self, details: Details) -> None:
        """Nothing is left: Stripe forgets an endpoint with its secret."""

    def undo(self, details: Details) -> None:
        self._delete([hook.id for hook in self._here() if hook.id not in details["before"]])

    def revive(self, details: Details) -> None:
        raise Refused("Stripe has forgotten the endpoint before, and its secret: rotate again instead")

    def _delete(self, endpoints: list[str]) -> None:
        for endpoint in endpoints:
            _asked(partial(self._hooks().delete, endpoint))


def _asked(question: Callable[[], Any]) -> Any:
    """What Stripe answers, its errors in our words."""
    try:
        return question()
    except (stripe.AuthenticationError, stripe.PermissionError):
        raise Unavailable("Stripe's key may not manage webhook endpoints: give it that right, or add another") from None
    except (stripe.APIConnectionError, stripe.RateLimitError):
        raise Retry("Stripe did not answer") from None
    except stripe.StripeError as error:
        if error.http_status is not None and error.http_status >= 500:
            raise Retry("Stripe did not answer") from None
        raise Refused(f"Stripe refused with status {error.http_status}, code {error.code}") from None
