"""The nightly look at all of Stripe: every subscription there against every account here, and what differs.

The listing goes page by page into a temporary table, so that memory is the same however many subscriptions there are
and no transaction is open while Stripe answers; one statement then finds the accounts that differ. Where the listing
would lower an account it is never enough: that customer is asked about again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from shared import erasure
from shared.billing.accounts import ACCOUNT_ID, Change, Customer, Link, Profile, decided
from shared.billing.client import Stripe
from shared.billing.tiers import NOTHING, RANK_HEAD, TIERS, Rules, Standing, better, standing
from shared.context import Context
from shared.copying import copy, escaped
from shared.errors import Refused


@dataclass(frozen=True)
class Found:
    """A customer nobody has, and the account that its Checkout session named: the event of that was missed."""

    customer_id: str
    link: Link


@dataclass(frozen=True)
class Drift:
    """Where accounts are not what the listing makes them. `unknown`: why there is no verdict on some of them."""

    changes: tuple[Change, ...]
    unknown: tuple[str, ...]
    standings: Mapping[str, Standing]  # of every customer of the accounts that were looked at
    accounts: int  # with a customer
    granted: int  # pro by a manual grant

    def digest(self) -> list[list[str | None]]:
        """The set of (account, change), for the plan's hash."""
        return sorted(
            [c.after.account_id, c.before.tier, c.after.tier, c.after.customer_id, c.after.subscription_id]
            for c in self.changes
        )


# One line a subscription, then one a customer. Both, and the joins' hashes, stay in memory; by default they would not.
TABLES = """
    set temp_buffers = '64MB';
    set work_mem = '128MB';
    create temporary table listed (customer_id text, rank text collate "C", cause text, unknown text);
    create temporary table swept (customer_id text, rank text collate "C", subscription_id text)"""

_SWEEP = text(f"""
    insert into swept (customer_id, rank, subscription_id)
    select customer_id, max(rank), case when max(rank) >= '1' then substr(max(rank), {RANK_HEAD + 1}) end
      from listed
     group by customer_id""")

_STANDINGS = text("""
    select customer_id, rank, cause, unknown from listed where customer_id = any(cast(:customers as text[]))""")


class Listing:
    """What Stripe has, in the temporary tables of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._subscriptions = 0

    def add(self, page: Iterable[tuple[str, Standing]]) -> None:
        """Take in customers with what one subscription of each gives."""
        fields = ((customer, one.rank, one.cause, one.unknown) for customer, one in page)
        self._subscriptions += copy(
            self.connection,
            "listed",
            "customer_id, rank, cause, unknown",
            ("\t".join(map(escaped, row)) + "\n" for row in fields),
        )

    def finish(self) -> tuple[int, int]:
        """Boil it down, once; how many subscriptions and how many customers there are."""
        customers = self.connection.execute(_SWEEP).rowcount
        return self._subscriptions, customers

    def standings(self, customers: Sequence[str]) -> dict[str, Standing]:
        """What the subscriptions of each of `customers` give together."""
        found = dict.fromkeys(customers, NOTHING)
        for customer, rank, cause, unknown in self.connection.execute(_STANDINGS, {"customers": list(customers)}):
            tier = TIERS[int(rank[0])]
            one = Standing(rank, tier, rank[RANK_HEAD:] if tier != TIERS[0] else None, cause, unknown)
            found[customer] = better(found[customer], one)
        return found


@contextmanager
def listed(ctx: Context, stripe: Stripe, rules: Rules) -> Iterator[Listing]:
    """Fetch and judge every subscription. Raises Retry where the listing breaks off, Refused for the other mode."""
    with ctx.scratch(TABLES) as connection:
        listing, seen = Listing(connection), 0
        for page in stripe.pages():
            ctx.check()
            listing.add((one.customer_id, standing((one,), rules, ctx.now)) for one in page)
            seen += len(page)
            ctx.progress(seen, None)
        yield listing


_BEGIN = text("select coalesce(max(generation), 0) from groundskeeper.billing_customer")


def generation(connection: Connection) -> int:
    """What was written until now; whatever is written later was fetched later than the listing."""
    return int(connection.execute(_BEGIN).scalar_one())


_LINK = """
    link as (
        select p.account_id, p.stripe_customer_id as customer_id, b.linked_at
          from user_profile p
          left join groundskeeper.billing_customer b on b.customer_id = p.stripe_customer_id
         where p.stripe_customer_id is not null
         union all
        select b.account_id, b.customer_id, b.linked_at
          from groundskeeper.billing_customer b
         where b.account_id is not null
           and not exists (select 1 from user_profile p where p.stripe_customer_id = b.customer_id))"""

_KNOWN = text("""
    select count(*), count(*) filter (where s.customer_id is null)
      from user_profile p
      left join swept s on s.customer_id = p.stripe_customer_id
     where p.stripe_customer_id is not null
       and p.stripe_subscription_id is not null""")

# Who pays is looked for every night, since the account may come into being later; who does not, once.
_NOBODYS = text(f"""
    with {_LINK}
    select s.customer_id, s.subscription_id is not null, count(*) over ()
      from swept s
      left join groundskeeper.billing_customer b on b.customer_id = s.customer_id
     where (s.subscription_id is not null or b.asked_at is null)
       and not exists (select 1 from link l where l.customer_id = s.customer_id)
     order by s.rank desc
     limit :most""")

_LOOKED = text("""
    insert into groundskeeper.billing_customer (customer_id, asked_at)
    select customer, :now
      from unnest(cast(:customers as text[])) as c (customer)
    on conflict (customer_id) do update set asked_at = excluded.asked_at""")

# An account with one customer is compared here, one with several (also a customer somebody else's profile has by now)
# by `decided`, which tells for all of them in the end.
_DIFFERING = text("""
    with several as (
        select b.account_id
          from groundskeeper.billing_customer b
         where b.account_id is not null
           and not exists (select 1 from user_profile p
                            where p.stripe_customer_id = b.customer_id and p.account_id = b.account_id)),
    kept as (
        select account_id from groundskeeper.billing_grant where tier = 'pro' and ended_at is null)
    select p.account_id, p.tier, p.stripe_customer_id, p.stripe_subscription_id, g.tier as granted
      from user_profile p
      left join swept s on s.customer_id = p.stripe_customer_id
      left join groundskeeper.billing_grant g on g.account_id = p.account_id and g.ended_at is null
     where p.account_id in (select account_id from several)
        or (p.stripe_customer_id is not null
            and (p.stripe_subscription_id is distinct from s.subscription_id
                 or p.tier <> case when s.subscription_id is not null or p.account_id in (select account_id from kept)
                                   then 'pro' else 'free' end))""")

_TOTALS = text("""
    select count(*) filter (where stripe_customer_id is not null),
           count(*) filter (where g.account_id is not null or (p.tier <> 'free' and p.stripe_customer_id is null))
      from user_profile p
      left join groundskeeper.billing_grant g on g.account_id = p.account_id and g.ended_at is null""")

_CUSTOMERS = text(f"""
    with {_LINK}
    select account_id, customer_id, linked_at from link where account_id = any(cast(:accounts as text[]))""")


def check(listing: Listing, *, most_missing_percent: int) -> None:
    """Raises Refused for a listing that cannot be this platform's: empty, or without many whom we know to subscribe.

    Stripe lists ended subscriptions too, and those of deleted customers: nobody who ever subscribed is missing there.
    """
    known, missing = listing.connection.execute(_KNOWN).one()
    if missing and (missing == known or missing > max(2, known * most_missing_percent // 100)):
        raise Refused(
            f"of {known} accounts with a subscription Stripe's listing lacks {missing}: is stripe-api-key of the right "
            "account and mode? Nothing was changed"
        )


@dataclass(frozen=True)
class Strays:
    """Customers nobody has: those `looked` for, those `found` by their session, and how many there are in `all`."""

    looked: tuple[str, ...]
    found: tuple[Found, ...]
    all: int


def strays(ctx: Context, stripe: Stripe, listing: Listing, *, most: int) -> Strays:
    """Look for the sessions of customers nobody has, a request each, those that pay and are new first.

    At most `most` are looked for; the rest next time.
    """
    nobodys = listing.connection.execute(_NOBODYS, {"most": most}).all()
    paying = {customer_id for customer_id, pays, _ in nobodys if pays}
    looked = tuple(customer_id for customer_id, _, _ in nobodys)
    found = []
    for customer_id in looked:
        named = [pair for pair in stripe.references(customer_id) if ACCOUNT_ID.fullmatch(pair[0])]
        if named:
            account_id, moment = named[0]
            found.append(Found(customer_id, Link(account_id, datetime.fromtimestamp(moment, UTC))))
    with ctx.read() as connection:
        erased = erasure.seen(ctx, connection, {one.link.account_id for one in found})
    for one in found:
        if one.link.account_id in erased and one.customer_id in paying:
            ctx.log.warning("somebody pays for an erased account: end it at Stripe", customer=one.customer_id)
    return Strays(
        looked, tuple(one for one in found if one.link.account_id not in erased), nobodys[0][2] if nobodys else 0
    )


def remember_looking(connection: Connection, strays: Strays, now: datetime) -> None:
    """Write down who was looked for."""
    connection.execute(_LOOKED, {"customers": list(strays.looked), "now": now})


def drift(listing: Listing) -> Drift:
    """Where the accounts differ from the listing: a statement to find them, two for their customers."""
    # Few differ: to sort them here is nothing, while PostgreSQL would sort all accounts before it drops the most.
    rows = sorted(listing.connection.execute(_DIFFERING), key=lambda row: row.account_id)
    customers = _customers(listing.connection, [row.account_id for row in rows])
    standings = listing.standings([one.customer_id for theirs in customers.values() for one in theirs])
    changes, unknown = [], []
    for row in rows:
        profile = Profile(row.account_id, row.tier, row.stripe_customer_id, row.stripe_subscription_id)
        change, why = decided(profile, customers.get(row.account_id, ()), standings, row.granted)
        if why is not None:
            unknown.append(f"account {row.account_id}: no verdict on {why}")
        elif change.before != change.after:
            changes.append(change)
    return Drift(tuple(changes), tuple(unknown), standings, *listing.connection.execute(_TOTALS).one())


def _customers(connection: Connection, accounts: list[str]) -> dict[str, tuple[Customer, ...]]:
    found: dict[str, list[Customer]] = {}
    for account_id, customer_id, linked_at in connection.execute(_CUSTOMERS, {"accounts": accounts}):
        found.setdefault(account_id, []).append(Customer(customer_id, None, linked_at))
    return {account_id: tuple(theirs) for account_id, theirs in found.items()}


def causes(changes: Iterable[Change]) -> dict[tuple[str, str], list[str]]:
    """The accounts by what befalls them (upgrades, downgrades, repairs) and why."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in changes:
        unit = "upgrades" if one.raises else "downgrades" if one.lowers else "repairs"
        cause = one.cause if unit != "repairs" else "another customer or subscription is theirs"
        found.setdefault((unit, cause), []).append(one.after.account_id)
    return found
