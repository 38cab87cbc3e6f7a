"""Takes Stripe's events and settles the customers they are about.

An event says only whom to look at; what is true Stripe is asked, outside any transaction. The event's id, its effects
and how it ended are one transaction, and then comes the answer. It never believes an unsigned word, never stores an
event's contents, and never finds an account by its e-mail address.
"""

import json
from dataclasses import dataclass
from datetime import timedelta

from shared.billing import events
from shared.billing.client import Stripe
from shared.billing.settle import Settled, settle
from shared.billing.tiers import Rules
from shared.errors import Refused, Retry, Unavailable
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    emulator: str
    tolerance_s: int
    most_bytes: int
    tiers: Rules


def run(ctx: Context, params: Params) -> dict[str, int]:
    if ctx.request is None:
        raise Refused("only Stripe's deliveries start this; `keeper run sync_subscriptions` repairs what was missed")
    try:
        event = _event(ctx, params)
    except events.Rejected as rejected:
        ctx.log.warning("rejected a delivery", why=str(rejected))
        ctx.respond(rejected.status, json.dumps({"error": str(rejected)}).encode())
        return {f"rejected.{rejected.name}": 1}
    try:
        ended = _handled(ctx, params, event)
    except (Refused, Unavailable) as lacking:  # an answer of success would lose the event; so Stripe comes again
        raise Retry(str(lacking)) from lacking
    ctx.respond(200, json.dumps({"received": True, "outcome": ended}).encode())
    return {**ctx.counts, ended: 1}


def _event(ctx: Context, params: Params) -> events.Event:
    """The event that Stripe sent. Raises Rejected."""
    assert ctx.request is not None
    if len(ctx.request.body) > params.most_bytes:
        raise events.Rejected("oversized", f"an event has at most {params.most_bytes} bytes", 413)
    try:
        # During a rotation the secret holds two, the new one first.
        secrets = ctx.recent_secret(events.SECRET).split()
    except Unavailable as lacking:
        raise Retry(str(lacking)) from lacking
    events.verified(
        ctx.request.body,
        ctx.request.headers.get("stripe-signature", ""),
        secrets,
        now=ctx.clock.now(),
        tolerance=timedelta(seconds=params.tolerance_s),
    )
    return events.parsed(ctx.request.body, livemode=ctx.settings.livemode)


def _handled(ctx: Context, params: Params, event: events.Event) -> str:
    """How the event ended: done, ignored, unmatched, failed, or duplicate."""
    with ctx.read() as connection:
        if events.outcome_of(connection, event.event_id) not in (None, "failed"):
            return "duplicate"
    if not event.about_us:
        return _kept(ctx, event, Settled("ignored", "not a type that is handled"))
    wanted = events.sdk_version()
    if event.api_version != wanted:
        return _kept(ctx, event, Settled("failed", f"the endpoint's API version is not {wanted}: change it in Stripe"))
    if event.unusable or event.customer_id is None:
        return _kept(ctx, event, Settled("failed", event.unusable))
    settled = settle(
        ctx,
        Stripe(ctx, params.emulator),
        params.tiers,
        event.customer_id,
        link=event.link,
        record=lambda connection, how: events.keep(
            connection, event, outcome=how.outcome, reason=how.reason, now=ctx.clock.now()
        ),
    )
    return _said(ctx, event, settled)


def _kept(ctx: Context, event: events.Event, settled: Settled) -> str:
    with ctx.begin() as connection:
        events.keep(connection, event, outcome=settled.outcome, reason=settled.reason, now=ctx.clock.now())
    return _said(ctx, event, settled)


def _said(ctx: Context, event: events.Event, settled: Settled) -> str:
    if settled.outcome == "failed":
        ctx.log.warning("an event failed for good", event=event.event_id, why=settled.reason)
    return settled.outcome


main = entrypoint(__file__, run)
