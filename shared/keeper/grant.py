"""`keeper grant give`, `end`, `list`: tiers given by hand. Each deed is in the operators' audit."""

import click

from shared.billing import grants
from shared.keeper import options, show
from shared.keeper.session import session

_WHY = click.option("--reason", "why", required=True, help="Why, for the audit.")


@click.group()
def grant() -> None:
    """Tiers given by hand, which no subscription's end takes away."""


@grant.command("list")
@options.JSON
def list_grants(as_json: bool) -> None:
    """The grants in force."""
    with session() as at, at.database.transaction(read_only=True) as connection:
        found = grants.in_force(connection)
    if as_json:
        show.document(grants=[vars(one) for one in found])
        return
    show.table(
        "Manual grants (times in UTC)",
        ["account", "tier", "on record since", "subscribed too"],
        ((o.account_id, o.tier, o.recorded_at or "the next sweep", "yes" if o.subscribed else "no") for o in found),
        empty="Nobody has a manual grant.",
    )


@grant.command()
@click.argument("account")
@_WHY
@options.DECIDES
def give(account: str, why: str, actor: str | None) -> None:
    """Give ACCOUNT the tier pro until somebody ends it, whatever becomes of its subscriptions."""
    with session(actor) as at, at.database.transaction() as connection:
        grants.give(connection, account, by=at.actor, why=why, now=at.clock.now())
    show.console.print(f"{account} is granted pro", soft_wrap=True, highlight=False)


@grant.command()
@click.argument("account")
@_WHY
@options.DECIDES
def end(account: str, why: str, actor: str | None) -> None:
    """End the grant of ACCOUNT; it keeps the tier that a subscription gives it."""
    with session(actor) as at, at.database.transaction() as connection:
        tier = grants.end(connection, account, by=at.actor, why=why, now=at.clock.now())
    show.console.print(f"the grant of {account} has ended: it is {tier} now", soft_wrap=True, highlight=False)
