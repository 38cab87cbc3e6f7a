"""A batch of messages in one transaction: each event once, the dead ones kept with their reason."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared import inbox
from shared.context import Context
from shared.errors import Refused, Retry
from shared.ingest import letters
from shared.ingest.events import Event, Poison, Raw, read
from shared.redaction import sqlstate
from shared.wording import counted

Project = Callable[[Connection, Sequence[Event]], Sequence[Poison]]
"""Writes events in the transaction it is given; what cannot be written, ever."""

_FORGET = text("delete from groundskeeper.inbox where consumer = :consumer and event_id = any(cast(:ids as uuid[]))")


def take(
    ctx: Context, messages: Iterable[Raw], project: Project, *, also: Callable[[Connection], None] | None = None
) -> Counter[str]:
    """Handle the messages' events; the reasons of those that were dead-lettered. `also` is done with them.

    Raises Retry when an account went away in between.
    """
    events: dict[object, Event] = {}
    poison: list[Poison] = []
    seen = 0
    for raw in messages:
        for one in read(raw):
            seen += 1
            if isinstance(one, Event):
                events.setdefault(one.id, one)
            else:
                poison.append(one)
    consumer = ctx.task.name
    try:
        with ctx.begin() as connection:
            now = ctx.clock.now()
            new = inbox.fresh(connection, consumer, (e.id for e in events.values()), now)
            dead = list(project(connection, [e for e in events.values() if e.id in new]))
            if dead:  # what is mended and sent again under its id is to be handled
                connection.execute(_FORGET, {"consumer": consumer, "ids": [one.event_id for one in dead]})
            letters.keep(connection, consumer, [*poison, *dead], now)
            if also is not None:
                also(connection)
            ctx.count("events", seen)
            ctx.count("duplicates", seen - len(poison) - len(new))
            ctx.count("dead_lettered", len(poison) + len(dead))
    except DBAPIError as error:
        if sqlstate(error) == "23503":
            raise Retry("an account went away while its events were written") from error
        raise
    return Counter(one.reason for one in (*poison, *dead))


def complain(reasons: Counter[str]) -> None:
    """End the run as refused where something was dead-lettered: all else is done, and trying again cannot help."""
    if reasons:
        said = "; ".join(f"{count}: {reason}" for reason, count in reasons.most_common(5))
        raise Refused(f"{counted(reasons.total(), 'event')} put into groundskeeper.dead_letter: {said}")
