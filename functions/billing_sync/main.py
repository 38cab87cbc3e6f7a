"""Settles the caller's own account with Stripe when its owner asks.

The Firebase ID token says who asks; the account's stored customers are looked at and nobody else's. It never takes a
customer, an account or an address from the request, and never asks Stripe more often than an account may.
"""

import json
from dataclasses import dataclass
from datetime import timedelta

from shared.billing import asking
from shared.billing.client import Stripe
from shared.billing.settle import settle
from shared.billing.tiers import Rules
from shared.errors import Refused
from shared.identity import Identity, NotSignedIn
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    emulator: str
    every_s: int
    tiers: Rules


def run(ctx: Context, params: Params) -> dict[str, int]:
    if ctx.request is None:
        raise Refused("only an account's owner starts this; `keeper run sync_subscriptions` settles everybody")
    scheme, _, token = ctx.request.headers.get("authorization", "").partition(" ")
    try:
        person = Identity(ctx.settings, ctx.clock).by_token(token if scheme.lower() == "bearer" else "")
    except NotSignedIn as refusal:
        return _answer(ctx, 401, "not_signed_in", error=str(refusal))
    with ctx.read() as connection:
        account = asking.account_of(connection, person.uid)
    if account is None:
        return _answer(ctx, 404, "no_account", error="there is no account of this user")
    if account.customers:
        with ctx.begin() as connection:
            wait_s = asking.admitted(connection, account, now=ctx.clock.now(), every=timedelta(seconds=params.every_s))
        if wait_s:
            headers = {"Retry-After": str(wait_s)}
            return _answer(ctx, 429, "too_often", headers, error=f"asked a moment ago: again in {wait_s} s")
        settled = settle(ctx, Stripe(ctx, params.emulator), params.tiers, account.customers[0])
        if settled.outcome != "done":
            return _answer(ctx, 409, settled.outcome, error="billing cannot tell this account's tier: support was told")
    with ctx.read() as connection:
        account = asking.account_of(connection, person.uid)
    if account is None:
        return _answer(ctx, 404, "no_account", error="there is no account of this user")
    return _answer(ctx, 200, "settled", tier=account.tier, subscribed=account.subscription_id is not None)


def _answer(
    ctx: Context, status: int, count: str, headers: dict[str, str] | None = None, **said: str | bool
) -> dict[str, int]:
    ctx.respond(status, json.dumps(said).encode(), headers={"Cache-Control": "no-store", **(headers or {})})
    return {**ctx.counts, count: 1}


main = entrypoint(__file__, run)
