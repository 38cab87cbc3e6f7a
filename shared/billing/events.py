"""Stripe's events: whether one is Stripe's at all, what it is about, and what became of it.

Only ids are taken from an event and only ids are kept: what a subscription is, Stripe is asked.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from shared.billing.accounts import ACCOUNT_ID, Link

SECRET = "stripe-webhook-secret"  # noqa: S105 - its name

_ID = re.compile(r"[A-Za-z0-9_]{1,255}")

SESSION = "checkout.session.completed"
HANDLED = (
    SESSION,
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
)


class Rejected(Exception):
    """Not a delivery of Stripe's to us: nothing is stored. `status` is the answer's, `name` the count's."""

    def __init__(self, name: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.name, self.status = name, status


@dataclass(frozen=True)
class Event:
    """What counts of an event. `link`: a session's word on whose the customer is."""

    event_id: str
    kind: str
    occurred_at: datetime
    api_version: str | None
    customer_id: str | None
    link: Link | None
    about_us: bool  # of a type we handle, and about subscriptions
    unusable: str | None = None  # why nothing can be made of it


def verified(body: bytes, header: str, secrets: Sequence[str], *, now: datetime, tolerance: timedelta) -> None:
    """Raises Rejected unless one of `secrets` signed these very bytes, at most `tolerance` ago.

    Stripe's own library compares the signatures; the time is compared with ours, in both directions.
    """
    import stripe

    moments = re.findall(r"(?:^|,)t=(\d{1,12})(?=,|$)", header)
    if len(moments) != 1:
        raise Rejected("signature", "Stripe-Signature is missing or none of Stripe's")
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(body, header, secret)
        except (stripe.SignatureVerificationError, UnicodeDecodeError):
            continue
        if abs(now - datetime.fromtimestamp(int(moments[0]), UTC)) > tolerance:
            raise Rejected("stale", "the signature is too old: check this machine's clock and Stripe's delays")
        return
    raise Rejected("signature", "the signature is of none of the endpoint's secrets")


def parsed(body: bytes, *, livemode: bool) -> Event:
    """The event in a verified body. Raises Rejected for what is no event, or of the other mode."""
    try:
        document = json.loads(body)
        data = document["data"]["object"]
        event_id, kind = document["id"], document["type"]
        occurred_at = datetime.fromtimestamp(int(document["created"]), UTC)
        mode = document["livemode"]
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        raise Rejected("malformed", "the body is no event of Stripe's") from None
    if not (isinstance(event_id, str) and _ID.fullmatch(event_id) and isinstance(kind, str) and len(kind) <= 100):
        raise Rejected("malformed", "the body is no event of Stripe's")
    if mode is not livemode:
        raise Rejected("livemode", "the event is of the other mode: this endpoint's secret belongs elsewhere")
    version = document.get("api_version")
    event = Event(event_id, kind, occurred_at, version if isinstance(version, str) else None, None, None, False)
    return _about(event, data) if kind in HANDLED and isinstance(data, dict) else event


def _about(event: Event, data: Mapping[str, Any]) -> Event:
    session = event.kind == SESSION
    if session and data.get("mode") != "subscription":
        return event  # a payment or a set-up: not ours
    customer = data.get("customer")
    customer = customer.get("id") if isinstance(customer, dict) else customer
    link, unusable = None, None
    if not (isinstance(customer, str) and _ID.fullmatch(customer)):
        customer, unusable = None, "it names no customer"
    if session and (reference := data.get("client_reference_id")) is not None:
        if isinstance(reference, str) and ACCOUNT_ID.fullmatch(reference) and isinstance(data.get("created"), int):
            link = Link(reference, datetime.fromtimestamp(data["created"], UTC))
        else:
            unusable = "its client_reference_id is no account's id"
    return replace(event, customer_id=customer, link=link, about_us=True, unusable=unusable)


# --- what became of them

_SEEN = text("select outcome from groundskeeper.billing_event where event_id = :event")

_KEEP = text("""
    insert into groundskeeper.billing_event as e
           (event_id, type, customer_id, account_id, linked_at, occurred_at, received_at, outcome, reason, attempts)
    values (:event, :type, :customer, :account, :linked, :occurred, :now, :outcome, :reason, 1)
    on conflict (event_id) do update
       set outcome = excluded.outcome, reason = excluded.reason, attempts = e.attempts + 1
     where e.outcome = 'failed'""")


def outcome_of(connection: Connection, event_id: str) -> str | None:
    """How an event ended that was here before."""
    found: str | None = connection.execute(_SEEN, {"event": event_id}).scalar_one_or_none()
    return found


def keep(connection: Connection, event: Event, *, outcome: str, reason: str | None, now: datetime) -> None:
    """Write down how the event ended; what ended before stands, unless it had failed.

    Whose it is, is forgotten where it was ignored: the account may be erased.
    """
    link = event.link if outcome != "ignored" else None
    connection.execute(
        _KEEP,
        {
            "event": event.event_id,
            "type": event.kind,
            "customer": event.customer_id,
            "account": link.account_id if link else None,
            "linked": link.linked_at if link else None,
            "occurred": event.occurred_at,
            "now": now,
            "outcome": outcome,
            "reason": reason,
        },
    )


@dataclass(frozen=True)
class Failure:
    """A stored failure, as far as it can be tried again."""

    event_id: str
    customer_id: str
    link: Link | None


_FAILED = text("""
    select event_id, customer_id, account_id, linked_at
      from groundskeeper.billing_event
     where outcome = 'failed'
       and customer_id is not null
       and attempts < :attempts
     order by received_at
     limit :most""")

_AGAIN = text("""
    update groundskeeper.billing_event
       set outcome = :outcome, reason = :reason, attempts = attempts + 1
     where event_id = :event
       and outcome = 'failed'""")


def failures(connection: Connection, *, attempts: int, most: int) -> list[Failure]:
    """Stored failures that were tried fewer than `attempts` times, the oldest first."""
    rows = connection.execute(_FAILED, {"attempts": attempts, "most": most})
    return [Failure(r[0], r[1], Link(r[2], r[3]) if r[2] is not None and r[3] is not None else None) for r in rows]


def tried_again(connection: Connection, event_id: str, *, outcome: str, reason: str | None) -> None:
    """Write down how a stored failure ended this time."""
    connection.execute(_AGAIN, {"event": event_id, "outcome": outcome, "reason": reason})


def sdk_version() -> str:
    """The API version of the installed library, which webhook endpoints must have too."""
    import stripe

    return str(stripe.api_version)
