"""Which tier a customer's subscriptions give: prices, statuses and the grace of late payers. No I/O.

A subscription whose price or status nobody told us about gives no verdict: it neither upgrades nor downgrades.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

TIERS = ("free", "pro")  # the lesser first

# All that Stripe has today: https://docs.stripe.com/api/subscriptions/object#subscription_object-status
_OVER = ("canceled", "incomplete", "incomplete_expired", "paused", "unpaid")


@dataclass(frozen=True)
class Rules:
    """Prices by their id or lookup key, words apart. `free` are those that are known to give nothing."""

    pro: str
    free: str
    entitled: tuple[str, ...]  # statuses that give the price's tier, the better first
    grace: tuple[str, ...]  # statuses that give it for a while
    grace_days: int  # from the start of the unpaid period

    def __post_init__(self) -> None:
        known = {*self.entitled, *self.grace}
        if over := known & set(_OVER):
            raise ValueError(f"statuses {', '.join(sorted(over))} are over: they cannot give a tier")
        if both := set(self.pro.split()) & set(self.free.split()):
            raise ValueError(f"prices {', '.join(sorted(both))} stand under both pro and free")

    def tier_of(self, price: "Price") -> str | None:
        """The tier a price gives; None for one that is in neither list."""
        names = {price.price_id, price.lookup_key}
        if names & set(self.pro.split()):
            return "pro"
        return "free" if names & set(self.free.split()) else None


@dataclass(frozen=True)
class Price:
    price_id: str
    lookup_key: str | None


@dataclass(frozen=True)
class Subscription:
    """What counts of a Stripe subscription. Times in seconds since 1970; `period_start` of the newest item."""

    subscription_id: str
    customer_id: str
    status: str
    created: int
    period_start: int
    prices: tuple[Price, ...]
    whole: bool = True  # all of its items were listed


RANK_HEAD = 14


class Standing(NamedTuple):
    """What subscriptions give together. The greater `rank` (as text, in code point order) is the better one.

    A rank is the tier's number, RANK_HEAD characters in all of what counts besides, and the subscription's id.
    """

    rank: str
    tier: str
    subscription_id: str | None
    cause: str
    unknown: str | None = None  # why there is no verdict, where a better tier may be meant


NOTHING = Standing("", "free", None, "no subscription")


def standing(subscriptions: Iterable[Subscription], rules: Rules, now: datetime) -> Standing:
    """What the subscriptions give together: the best of them, with what is unknown of any."""
    best, unknown = NOTHING, None
    for one in subscriptions:
        judged = _judged(one, rules, now)
        best = max(best, judged, key=lambda each: each.rank)
        unknown = judged.unknown or unknown
    return best._replace(unknown=None if best.tier == TIERS[-1] else unknown)


def better(one: Standing, other: Standing) -> Standing:
    """The better of two customers' standings, with what is unknown of either."""
    best = max(one, other, key=lambda each: each.rank)
    return best._replace(unknown=None if best.tier == TIERS[-1] else one.unknown or other.unknown)


def _judged(one: Subscription, rules: Rules, now: datetime) -> Standing:
    if one.status in _OVER:
        return _standing(one, "free", 0, one.status)
    if one.status not in (*rules.entitled, *rules.grace):
        return _standing(one, "free", 0, one.status, f"status {one.status!r} of {one.subscription_id}")
    if one.status in rules.grace:
        ends = datetime.fromtimestamp(one.period_start, UTC) + timedelta(days=rules.grace_days)
        if now >= ends:
            return _standing(one, "free", 0, f"{one.status} for {rules.grace_days} days")
    tiers = [rules.tier_of(price) for price in one.prices]
    tier = max((t for t in tiers if t is not None), key=TIERS.index, default="free")
    unknown = None
    if tier != TIERS[-1] and (None in tiers or not one.whole):
        named = next((p.price_id for p, t in zip(one.prices, tiers, strict=True) if t is None), "not listed")
        unknown = f"price {named} of {one.subscription_id}"
    order = (*rules.grace, *reversed(rules.entitled))
    return _standing(one, tier, 1 + order.index(one.status), one.status, unknown)


def _standing(one: Subscription, tier: str, order: int, cause: str, unknown: str | None = None) -> Standing:
    rank = f"{TIERS.index(tier)}{order:02d}{one.created:011d}{one.subscription_id}"
    return Standing(rank, tier, one.subscription_id if tier != "free" else None, cause, unknown)
