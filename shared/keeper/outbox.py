"""`keeper outbox list`, `replay`, `discard`: the dead letters of the outboxes. Each deed is in the operators' audit."""

import uuid
from collections import Counter
from collections.abc import Callable, Sequence

import click
from sqlalchemy import Connection

from shared.keeper import options, show
from shared.keeper.session import Session, find, session
from shared.relay import letters
from shared.relay.letters import Choice, Letter

_TOPIC = click.option("--topic", help="Only those of this topic.")
_ALL = click.option("--all", "everything", is_flag=True, help="All dead letters (of --topic, if given).")

Deed = Callable[..., dict[str, int]]


@click.group()
def outbox() -> None:
    """Events that could not be published."""


@outbox.command("list")
@_TOPIC
@options.JSON
def list_letters(topic: str | None, as_json: bool) -> None:
    """The dead letters, oldest first."""
    with session() as at, at.database.transaction(read_only=True) as connection:
        found = letters.find(connection, _tables(at), Choice(topic=topic))
    if as_json:
        show.document(dead_letters=[_document(letter) for letter in found])
        return
    show.table(
        "Dead letters (times in UTC)",
        ["event", "outbox", "topic", "key", "attempts", "why", "written", "bytes"],
        ((o.id, o.table, o.topic, o.key, o.attempts, o.error, o.created_at, o.bytes) for o in found),
        empty="No event is dead.",
    )


@outbox.command()
@options.ids("keeper outbox list")
@_TOPIC
@_ALL
@options.PLAN
@options.REASON
@options.DECIDES
@options.JSON
def replay(
    ids: tuple[uuid.UUID, ...],
    topic: str | None,
    everything: bool,
    planning: bool,
    reason: str | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Send dead letters again: those with IDS, or --all.

    A replayed event goes out after the events of its key that were sent meanwhile.
    """
    why = options.chosen("keeper outbox replay", ids, everything, planning, reason)
    choice = Choice(ids, topic)
    _do("replay", letters.replay, choice, planning=planning, reason=why, actor=actor, as_json=as_json)


@outbox.command()
@options.ids("keeper outbox list")
@_TOPIC
@_ALL
@options.PLAN
@options.REASON
@options.DECIDES
@options.JSON
def discard(
    ids: tuple[uuid.UUID, ...],
    topic: str | None,
    everything: bool,
    planning: bool,
    reason: str | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Delete dead letters for good: those with IDS, or --all. There is no undo."""
    why = options.chosen("keeper outbox discard", ids, everything, planning, reason)
    choice = Choice(ids, topic)
    _do("discard", letters.discard, choice, planning=planning, reason=why, actor=actor, as_json=as_json)


def _do(
    name: str, deed: Deed, choice: Choice, *, planning: bool, reason: str, actor: str | None, as_json: bool
) -> None:
    with session(actor) as at, at.database.transaction(read_only=planning) as connection:
        found = letters.find(connection, _tables(at), choice)
        done = {} if planning else _done(connection, deed, found, at, reason)
    if as_json:
        show.document(action=name, planned=planning, events=done, dead_letters=[_document(o) for o in found])
        return
    _say(found, "would be" if planning else "were", name)


def _done(connection: Connection, deed: Deed, found: Sequence[Letter], at: Session, reason: str) -> dict[str, int]:
    return deed(connection, found, by=at.actor, why=reason, now=at.clock.now()) if found else {}


def _say(found: Sequence[Letter], how: str, name: str) -> None:
    counted = Counter((o.table, o.topic, o.error) for o in found)
    show.table(
        f"{len(found)} {how} {'replayed' if name == 'replay' else 'discarded'}",
        ["outbox", "topic", "why dead", "count"],
        ((*which, number) for which, number in sorted(counted.items(), key=str)),
        empty="No event is dead.",
    )


def _tables(at: Session) -> list[str]:
    return list(find(at.tasks(), "outbox_relay").params["tables"])


def _document(letter: Letter) -> dict[str, object]:
    return {
        "event_id": letter.id,
        "outbox": letter.table,
        "topic": letter.topic,
        "ordering_key": letter.key,
        "attempts": letter.attempts,
        "error": letter.error,
        "created_at": letter.created_at,
        "bytes": letter.bytes,
    }
