"""Compares every Stripe subscription with the accounts each night and repairs what events missed.

It upgrades, mends and downgrades, by the table of tiers. It never touches a manual grant, never lowers an account on an
error or on a listing alone, never lowers more than its cap unasked, and deletes no customer.
"""

from dataclasses import dataclass

from shared.billing import repair, sweep
from shared.billing.client import Stripe
from shared.billing.tiers import Rules
from shared.errors import Partial
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    emulator: str
    most_missing_percent: int
    most_lookups: int
    tiers: Rules


def run(ctx: Context, params: Params) -> dict[str, int]:
    stripe = Stripe(ctx, params.emulator)
    with ctx.read() as connection:
        before = sweep.generation(connection)
    with sweep.listed(ctx, stripe, params.tiers) as listing:
        subscriptions, customers = listing.finish()
        sweep.check(listing, most_missing_percent=params.most_missing_percent)
        strays = sweep.strays(ctx, stripe, listing, most=params.most_lookups)
        drift = sweep.drift(listing)
    failures = repair.failures(ctx)
    for name, count in (
        ("subscriptions", subscriptions),
        ("customers", customers),
        ("accounts", drift.accounts),
        ("drift", len(drift.changes) + len(strays.found)),
        ("strays", strays.all),
        ("grants_kept", drift.granted),
        ("unknown", len(drift.unknown)),
    ):
        ctx.counts = {**ctx.counts, name: count}  # an attempt that goes on after a kill counts them anew
    ctx.authorize(repair.plan_of(drift, strays.found, len(failures)))
    work = repair.Repair(ctx, stripe, params.tiers, drift.standings, before)
    work.note_grants()
    work.apply(drift.changes)
    work.link(strays)
    work.replay(failures)
    counts = {**ctx.counts, "stripe_calls": stripe.calls}
    if drift.unknown or work.failed:
        raise Partial([*drift.unknown, *work.failed], counts)
    return counts


main = entrypoint(__file__, run)
