"""Accounts and their Stripe customers in the database: who is whose, what was granted, and the one place that writes.

A customer is an account's because the platform stored it, or because a Checkout session named the account; never by
its e-mail address. All writes to an account take its row first, so that two of them come one after the other.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from shared.billing.tiers import NOTHING, TIERS, Standing, better
from shared.context import Context

TOPIC = "billing-events"

# An account id as a session may name it: anybody can write that into a payment link's address.
ACCOUNT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class Changed(Exception):
    """Somebody else wrote meanwhile: what was fetched may be old, and the transaction is to be given up."""


@dataclass(frozen=True)
class Link:
    """A Checkout session's word that a customer is an account's, and when it was given."""

    account_id: str
    linked_at: datetime


@dataclass(frozen=True)
class Customer:
    """A customer as we know it; no generation: nothing was ever written about it."""

    customer_id: str
    generation: int | None
    linked_at: datetime | None


@dataclass(frozen=True)
class View:
    """What a decision rests on: the customer's account (None: nobody's) and all customers of that account."""

    account_id: str | None
    customers: tuple[Customer, ...]


@dataclass(frozen=True)
class Profile:
    """What the platform shows of an account."""

    account_id: str
    tier: str
    customer_id: str | None
    subscription_id: str | None


@dataclass(frozen=True)
class Change:
    """An account before and after. Equal: nothing to write."""

    before: Profile
    after: Profile
    cause: str
    granted: bool  # the tier is kept by a manual grant

    @property
    def lowers(self) -> bool:
        return TIERS.index(self.after.tier) < TIERS.index(self.before.tier)

    @property
    def raises(self) -> bool:
        return TIERS.index(self.after.tier) > TIERS.index(self.before.tier)


_OWNER = text("""
    select coalesce(
        (select account_id from user_profile where stripe_customer_id = :customer),
        (select account_id from groundskeeper.billing_customer where customer_id = :customer))""")

_CUSTOMERS = text("""
    select p.stripe_customer_id, b.generation, b.linked_at
      from user_profile p
      left join groundskeeper.billing_customer b on b.customer_id = p.stripe_customer_id
     where p.account_id = :account
       and p.stripe_customer_id is not null
     union
    select b.customer_id, b.generation, b.linked_at
      from groundskeeper.billing_customer b
     where b.account_id = :account
       and not exists (select 1 from user_profile p
                        where p.stripe_customer_id = b.customer_id and p.account_id <> :account)
     order by 1""")

_KNOWN = text("select generation, linked_at from groundskeeper.billing_customer where customer_id = :customer")


def view(connection: Connection, customer_id: str, link: Link | None = None) -> View:
    """What is known of a customer; with `link`, as if it had been made. A customer stays whose it is."""
    account_id: str | None = connection.execute(_OWNER, {"customer": customer_id}).scalar_one()
    if account_id is None and link is not None:
        account_id = link.account_id
    if account_id is None:
        known = connection.execute(_KNOWN, {"customer": customer_id}).one_or_none() or (None, None)
        return View(None, (Customer(customer_id, *known),))
    customers = {c.customer_id: c for c in customers_of(connection, account_id)}
    if customer_id not in customers:
        known = connection.execute(_KNOWN, {"customer": customer_id}).one_or_none() or (None, None)
        customers[customer_id] = Customer(customer_id, *known)
    return View(account_id, tuple(customers[name] for name in sorted(customers)))


def customers_of(connection: Connection, account_id: str) -> list[Customer]:
    """The account's customers, by id."""
    return [Customer(*row) for row in connection.execute(_CUSTOMERS, {"account": account_id})]


_PROFILE = text("""
    select account_id, tier, stripe_customer_id, stripe_subscription_id
      from user_profile
     where account_id = :account
       for update""")


def locked(connection: Connection, account_id: str) -> Profile | None:
    """The account's profile, kept from others until the transaction ends; None where there is no such account."""
    row = connection.execute(_PROFILE, {"account": account_id}).one_or_none()
    return Profile(*row) if row else None


_GRANT = text("select tier from groundskeeper.billing_grant where account_id = :account and ended_at is null")


def _seniority(one: Customer) -> tuple[float, str]:
    """Whom the platform stored itself comes before whom a session named."""
    return (one.linked_at.timestamp() if one.linked_at else 0.0, one.customer_id)


def decided(
    profile: Profile, customers: tuple[Customer, ...], standings: Mapping[str, Standing], grant: str | None
) -> tuple[Change, str | None]:
    """What the account should be, and what is unknown about it. `standings` by customer.

    The customer shown is the one whose subscription counts; of equals, the one that was the account's first.
    """
    best, total = None, NOTHING
    for one in sorted(customers, key=_seniority):
        given = standings.get(one.customer_id, NOTHING)
        total = better(total, given)
        if best is None or given.rank > standings.get(best, NOTHING).rank:
            best = one.customer_id
    if grant is None and profile.customer_id is None and profile.tier != TIERS[0]:
        grant = profile.tier  # granted by hand until now
    tier = max(total.tier, grant or TIERS[0], key=TIERS.index)
    after = Profile(profile.account_id, tier, best or profile.customer_id, total.subscription_id)
    return Change(profile, after, total.cause, granted=tier != total.tier), total.unknown


def change_of(
    connection: Connection, profile: Profile, customers: tuple[Customer, ...], standings: Mapping[str, Standing]
) -> tuple[Change, str | None]:
    """`decided`, with the account's manual grant looked up."""
    grant = connection.execute(_GRANT, {"account": profile.account_id}).scalar_one_or_none()
    return decided(profile, customers, standings, grant)


_TAKE = text("""
    insert into groundskeeper.billing_customer as b (customer_id, account_id, linked_at, settled_at)
    values (:customer, :account, :linked, :now)
    on conflict (customer_id) do update
       set account_id = coalesce(excluded.account_id, b.account_id),
           linked_at = least(b.linked_at, excluded.linked_at),
           settled_at = excluded.settled_at,
           generation = excluded.generation
     where b.generation is not distinct from cast(:generation as bigint)""")

_UPDATE = text("""
    update user_profile
       set tier = :tier, stripe_customer_id = :customer, stripe_subscription_id = :subscription, updated_at = :now
     where account_id = :account""")

_RECORD_GRANT = text("""
    insert into groundskeeper.billing_grant (account_id, tier, recorded_at)
    values (:account, :tier, :now)
    on conflict (account_id) do update set tier = excluded.tier, recorded_at = excluded.recorded_at, ended_at = null""")


def take(
    connection: Connection, customer: Customer, *, account_id: str | None, linked_at: datetime | None, now: datetime
) -> None:
    """Write down that the customer's state is ours as of its generation. Raises Changed where it is another's now."""
    done = connection.execute(
        _TAKE,
        {
            "customer": customer.customer_id,
            "account": account_id,
            "linked": linked_at,
            "now": now,
            "generation": customer.generation,
        },
    )
    if not done.rowcount:
        raise Changed


def write(ctx: Context, connection: Connection, change: Change) -> bool:
    """Make the account what it should be, and tell of a new tier; False where it is that already."""
    before, after = change.before, change.after
    if before == after:
        return False
    now = ctx.clock.now()
    if before.customer_id is None and after.customer_id is not None and before.tier != TIERS[0]:
        connection.execute(_RECORD_GRANT, {"account": before.account_id, "tier": before.tier, "now": now})
    connection.execute(
        _UPDATE,
        {
            "tier": after.tier,
            "customer": after.customer_id,
            "subscription": after.subscription_id,
            "now": now,
            "account": after.account_id,
        },
    )
    if before.tier != after.tier:
        ctx.publish(
            connection,
            topic=TOPIC,
            kind="account.tier_changed",
            data={"from": before.tier, "to": after.tier, "cause": change.cause},
            account_id=after.account_id,
            ordering_key=after.account_id,
        )
    return True
