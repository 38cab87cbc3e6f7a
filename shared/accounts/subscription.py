"""The account's subscriptions at Stripe, ended by policy. Its customers stay there: invoices must be kept."""

from collections.abc import Iterable
from typing import Any, Literal

from shared.errors import Refused, Retry, Unavailable

Ending = Literal["cancel_now", "cancel_prorated", "period_end"]

# https://docs.stripe.com/api/subscriptions/object#subscription_object-status: nothing is left to cancel
_ENDED = ("canceled", "incomplete_expired")
_TIMEOUT_S = 10.0


def end(
    *,
    key: str,
    emulator: str,
    livemode: bool,
    customers: Iterable[str],
    subscription: str | None,
    policy: Ending,
    run: str,
) -> dict[str, int]:
    """End every subscription of `customers`, and `subscription`; {cancelled, ended_before}.

    `run` names the deletion: Stripe does the same request of the same deletion once. What is gone is done. Raises
    Retry, Unavailable, Refused.
    """
    import stripe

    _check_mode(key, livemode)
    address = f"http://{emulator.removeprefix('http://')}" if emulator else "https://api.stripe.com"
    web = stripe.RequestsClient(timeout=_TIMEOUT_S)
    client: Any = stripe.StripeClient(key, base_addresses={"api": address}, http_client=web, max_network_retries=2)
    subscriptions = client.v1.subscriptions
    try:
        found = {s.id: s for customer in customers for s in _of_customer(subscriptions, customer)}
        if subscription and subscription not in found and (one := _one(subscriptions, subscription)) is not None:
            found[one.id] = one
        open_ones = [s for s in found.values() if s.status not in _ENDED]
        for each in open_ones:
            _end_one(subscriptions, each, policy, {"idempotency_key": f"{run}:{each.id}:{policy}"})
    except (stripe.AuthenticationError, stripe.PermissionError):
        raise Unavailable("Stripe refuses the secret stripe-api-key: store one that is valid") from None
    except (stripe.RateLimitError, stripe.APIConnectionError, stripe.IdempotencyError):
        raise Retry("Stripe did not answer, or asked us to slow down") from None
    except stripe.InvalidRequestError as error:
        raise Refused(f"Stripe refuses to end the subscription ({error.code}): end it in the dashboard") from None
    except stripe.StripeError:
        raise Retry("Stripe failed") from None
    return {"cancelled": len(open_ones), "ended_before": len(found) - len(open_ones)}


def _check_mode(key: str, livemode: bool) -> None:
    if ("_live_" in key) != livemode:
        raise Unavailable(
            "the secret stripe-api-key is of the other mode than this environment: store the "
            + ("live" if livemode else "test")
            + " mode's"
        )


def _of_customer(subscriptions: Any, customer: str) -> list[Any]:
    import stripe

    try:
        page = subscriptions.list({"customer": customer, "status": "all", "limit": 100})
        return list(page.auto_paging_iter())
    except stripe.InvalidRequestError as error:
        if error.code == "resource_missing":
            return []
        raise


def _one(subscriptions: Any, subscription: str) -> Any:
    import stripe

    try:
        return subscriptions.retrieve(subscription)
    except stripe.InvalidRequestError as error:
        if error.code == "resource_missing":
            return None
        raise


def _end_one(subscriptions: Any, subscription: Any, policy: Ending, options: dict[str, str]) -> None:
    import stripe

    try:
        if policy == "period_end":
            subscriptions.update(subscription.id, {"cancel_at_period_end": True}, options)
        else:
            prorated = policy == "cancel_prorated"
            subscriptions.cancel(subscription.id, {"prorate": prorated, "invoice_now": prorated}, options)
    except stripe.InvalidRequestError as error:
        if error.code != "resource_missing":  # somebody ended it a moment before
            raise
