"""Rotates secrets each month once an operator has approved it, and goes on with those under way each day.

It never begins unasked, never disables a value before its grace is over and the new one is proven, and never writes a
value anywhere but into the secret store.
"""

from dataclasses import dataclass
from datetime import timedelta

from shared.errors import Partial, Unavailable, Waiting
from shared.redaction import register
from shared.rotation.generated import Generated, Manual
from shared.rotation.postgres import Postgres
from shared.rotation.rotations import Pace, Rotations
from shared.rotation.rotator import Rotator, Target
from shared.rotation.slack import tell
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    only: tuple[str, ...]
    back: tuple[str, ...]
    grace_hours: float
    keep_disabled_days: float
    slack_url: str
    stripe_emulator: str
    targets: tuple[Target, ...]


def run(ctx: Context, params: Params) -> dict[str, int]:
    pace = Pace(timedelta(hours=params.grace_hours), timedelta(days=params.keep_disabled_days))
    rotations = Rotations(ctx, params.targets, lambda target: _rotator(ctx, params, target), pace)
    try:
        if params.back:
            rotations.back(params.back)
        else:
            _go_on(ctx, rotations, params.only)
    except Waiting as waiting:
        rotations.news.append(str(waiting))
        raise
    finally:
        _tell(ctx, params, rotations)
    if rotations.failed:
        raise Partial(rotations.failed, ctx.counts)
    return ctx.counts


def _go_on(ctx: Context, rotations: Rotations, only: tuple[str, ...]) -> None:
    due = rotations.due(only)
    if ctx.planning:
        rotations.approve(due)
    rotations.advance()
    if due:
        rotations.approve(due)
        rotations.begin(due)
        rotations.advance()


def _rotator(ctx: Context, params: Params, target: Target) -> Rotator:
    match target.rotator:
        case "postgres":
            return Postgres(target, ctx)
        case "generated":
            return Generated(target)
        case "manual":
            return Manual(target)
        case "stripe_webhook":
            # a fifth of a second to load, and most days nobody needs it
            from shared.rotation.stripe_webhook import StripeWebhook

            emulator = params.stripe_emulator.removeprefix("http://")
            address = f"http://{emulator}" if emulator else "https://api.stripe.com"
            return StripeWebhook(target, lambda: ctx.secret("stripe-api-key"), address)


def _tell(ctx: Context, params: Params, rotations: Rotations) -> None:
    """A message to Slack, if there is news and an address."""
    lines = [*rotations.news, *(f"FAILED {words}" for words in rotations.failed)]
    if not lines or ctx.planning:
        return
    try:
        url = params.slack_url or ctx.secret("alert-slack-url").strip()
    except Unavailable:
        return
    register(url)
    sent = tell(url, ["rotate_secrets:", *lines])
    ctx.count("slack_sent" if sent else "slack_failed")


main = entrypoint(__file__, run)
