"""Settle one customer: fetch what Stripe says now, and write it unless somebody wrote meanwhile.

Nothing is fetched inside a transaction. Each customer's row carries a generation; it is read, Stripe is asked, and
what came is written only where the generation is still the same, else everything begins again. So events that come
late, twice, together or in any order end in the state Stripe had when the last of them was settled.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from shared import erasure
from shared.billing import accounts
from shared.billing.accounts import Changed, Link
from shared.billing.client import Stripe, UnknownCustomer
from shared.billing.tiers import NOTHING, TIERS, Rules, Standing, standing
from shared.context import Context
from shared.errors import Retry

_ROUNDS = 8


@dataclass(frozen=True)
class Settled:
    """How it went: done, unmatched (nobody's customer yet), failed (asking again alone cannot help; `reason` says
    why), withheld (the account would be lowered, which was not allowed)."""

    outcome: str
    reason: str | None = None
    change: accounts.Change | None = None
    wrote: bool = False


Record = Callable[[Connection, Settled], None]


def _nothing(_connection: Connection, _settled: Settled) -> None: ...


def settle(
    ctx: Context,
    stripe: Stripe,
    rules: Rules,
    customer_id: str,
    *,
    link: Link | None = None,
    may_lower: bool = True,
    record: Record = _nothing,
) -> Settled:
    """Bring the customer's account to what Stripe says of all the account's customers.

    `record` writes in the same transaction how it ended. Raises Retry, Refused, Unavailable, Stopped.
    """
    for _ in range(_ROUNDS):
        with ctx.read() as connection:
            seen = accounts.view(connection, customer_id, link)
        standings = {one.customer_id: _standing(ctx, stripe, rules, one.customer_id) for one in seen.customers}
        try:
            with ctx.begin() as connection:
                profile = accounts.locked(connection, seen.account_id) if seen.account_id else None
                if accounts.view(connection, customer_id, link) != seen:
                    raise Changed
                settled = _written(ctx, connection, seen, profile, standings, link, customer_id, may_lower=may_lower)
                record(connection, settled)
                return settled
        except Changed:
            continue
    raise Retry(f"customer {customer_id} was written by others each time Stripe was asked")


def _written(
    ctx: Context,
    connection: Connection,
    seen: accounts.View,
    profile: accounts.Profile | None,
    standings: dict[str, Standing],
    link: Link | None,
    customer_id: str,
    *,
    may_lower: bool,
) -> Settled:
    now = ctx.clock.now()
    if seen.account_id is not None and is_erased(ctx, connection, seen.account_id):
        if any(one.tier != TIERS[0] for one in standings.values()):  # a Checkout that was finished after the deletion
            ctx.log.warning("somebody pays for an erased account: end it at Stripe", customer=customer_id)
        return Settled("ignored", "the account is erased")
    if seen.account_id is not None and profile is None:
        return Settled("failed", "there is no such account")
    if link is not None and seen.account_id != link.account_id:
        return Settled("failed", f"customer {customer_id} is another account's already")
    if profile is None:
        for one in seen.customers:
            accounts.take(connection, one, account_id=None, linked_at=None, now=now)
        return Settled("unmatched", "no account has this customer yet")
    customers = tuple(_dated(one, link) if one.customer_id == customer_id else one for one in seen.customers)
    change, unknown = accounts.change_of(connection, profile, customers, standings)
    if unknown is not None:
        return Settled("failed", f"no verdict on {unknown}", change)
    if change.lowers and not may_lower:
        return Settled("withheld", "the account would be lowered", change)
    for one in customers:
        accounts.take(connection, one, account_id=profile.account_id, linked_at=one.linked_at, now=now)
    return Settled("done", None, change, accounts.write(ctx, connection, change))


def _dated(one: accounts.Customer, link: Link | None) -> accounts.Customer:
    """The customer with the earliest moment a session gave it to the account."""
    if link is None:
        return one
    return replace(one, linked_at=min(one.linked_at or link.linked_at, link.linked_at))


def _standing(ctx: Context, stripe: Stripe, rules: Rules, customer_id: str) -> Standing:
    """What a customer's subscriptions give now; no verdict where Stripe does not know the customer."""
    try:
        return standing(stripe.of_customer(customer_id), rules, ctx.now)
    except UnknownCustomer:
        return NOTHING._replace(unknown=f"customer {customer_id}, whom Stripe does not know here")


def is_erased(ctx: Context, connection: Connection, account_id: str) -> bool:
    """Whether the account was erased, so that nothing about it may be written."""
    return bool(erasure.seen(ctx, connection, [account_id]))
