"""`keeper inbox list`, `discard`: what came in and could never be handled. Each deed is in the operators' audit.

There is no replay: a letter is kept without its addresses and secrets, so it is no longer what came. Whoever sent it
sends it again mended, under the same id.
"""

import uuid
from collections import Counter

import click

from shared.ingest import dead
from shared.keeper import options, show
from shared.keeper.session import session

_CONSUMER = click.option("--consumer", help="Only those of this task.")


@click.group()
def inbox() -> None:
    """Events that came in and could not be handled."""


@inbox.command("list")
@_CONSUMER
@options.JSON
def list_letters(consumer: str | None, as_json: bool) -> None:
    """The dead letters, oldest first, with what may be shown of each."""
    with session() as at, at.database.transaction(read_only=True) as connection:
        found = dead.find(connection, (), consumer)
    if as_json:
        show.document(dead_letters=found)
        return
    show.table(
        "Dead letters (times in UTC)",
        ["letter", "consumer", "came from", "why", "received", "bytes"],
        ((o["letter_id"], o["consumer"], o["source"], o["reason"], o["received_at"], o["bytes"]) for o in found),
        empty="No letter is dead.",
    )


@inbox.command()
@options.ids("keeper inbox list")
@_CONSUMER
@click.option("--all", "everything", is_flag=True, help="All dead letters (of --consumer, if given).")
@options.PLAN
@options.REASON
@options.DECIDES
@options.JSON
def discard(
    ids: tuple[uuid.UUID, ...],
    consumer: str | None,
    everything: bool,
    planning: bool,
    reason: str | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Delete dead letters for good: those with IDS, or --all. There is no undo."""
    why = options.chosen("keeper inbox discard", ids, everything, planning, reason)
    with session(actor) as at, at.database.transaction(read_only=planning) as connection:
        found = dead.find(connection, ids, consumer)
        if found and not planning:
            dead.discard(connection, found, consumer, by=at.actor, why=why, now=at.clock.now())
    if as_json:
        show.document(action="discard", planned=planning, dead_letters=found)
        return
    show.table(
        f"{len(found)} {'would be' if planning else 'were'} discarded",
        ["consumer", "why dead", "count"],
        ((*which, n) for which, n in sorted(Counter((o["consumer"], o["reason"]) for o in found).items())),
        empty="No letter is dead.",
    )
