"""An account's owner asks: which account that is, and whether it may ask again already."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from shared.billing.accounts import customers_of


@dataclass(frozen=True)
class Account:
    """The caller's account with its stored customers."""

    account_id: str
    tier: str
    subscription_id: str | None
    customers: tuple[str, ...]


_OF_USER = text("select account_id, tier, stripe_subscription_id from user_profile where firebase_uid = :uid")


def account_of(connection: Connection, uid: str) -> Account | None:
    """The account of a Firebase user, or None."""
    row = connection.execute(_OF_USER, {"uid": uid}).one_or_none()
    if row is None:
        return None
    customers = tuple(c.customer_id for c in customers_of(connection, row.account_id))
    return Account(row.account_id, row.tier, row.stripe_subscription_id, customers)


_LAST = text("""
    select max(b.asked_at)
      from groundskeeper.billing_customer b
     where b.customer_id = any(cast(:customers as text[]))""")

_ADMIT = text("""
    insert into groundskeeper.billing_customer as b (customer_id, account_id, asked_at)
    select customer, :account, :now
      from unnest(cast(:customers as text[])) as c (customer)
    on conflict (customer_id) do update set asked_at = excluded.asked_at""")


def admitted(connection: Connection, account: Account, *, now: datetime, every: timedelta) -> int:
    """0 when the account may ask now, which is then written down; else the whole seconds it must wait.

    Two at once come one after the other: the account's row is taken first.
    """
    connection.execute(
        text("select 1 from user_profile where account_id = :account for update"), {"account": account.account_id}
    )
    customers = list(account.customers)
    last: datetime | None = connection.execute(_LAST, {"customers": customers}).scalar_one()
    if last is not None and now - last < every:
        return max(1, math.ceil((every - (now - last)).total_seconds()))
    connection.execute(_ADMIT, {"customers": customers, "account": account.account_id, "now": now})
    return 0
