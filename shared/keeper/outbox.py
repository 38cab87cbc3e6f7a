"""`keeper outbox list`, `replay`, `discard`: the dead letters of the outboxes. Each deed is in the operators' audit."""

import uuid
from collections import Counter
from collections.abc import Callable, Sequence

import click
from sqlalchemy import Connection

from shared.errors import Refused
from shared.keeper import show
from shared.keeper.session import Session, find, session
from shared.relay import letters
from shared.relay.letters import Choice, Letter

_TOPIC = click.option("--topic", help="Only those of this topic.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
_IDS = click.argument("ids", nargs=-1, type=click.UUID)
_ALL = click.option("--all", "everything", is_flag=True, help="All dead letters (of --topic, if given).")
_PLAN = click.option("--plan", "planning", is_flag=True, help="Show what would be done; write nothing.")
_REASON = click.option("--reason", help="Why; needed unless --plan.")
_AS = click.option("--as", "actor", help="Who decides (default: you).")

Deed = Callable[..., dict[str, int]]


@click.group()
def outbox() -> None:
    """Events that could not be published."""


@outbox.command("list")
@_TOPIC
@_JSON
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
@_IDS
@_TOPIC
@_ALL
@_PLAN
@_REASON
@_AS
@_JSON
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
    choice = _choice(ids, topic, everything)
    _do("replay", letters.replay, choice, planning=planning, reason=reason, actor=actor, as_json=as_json)


@outbox.command()
@_IDS
@_TOPIC
@_ALL
@_PLAN
@_REASON
@_AS
@_JSON
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
    choice = _choice(ids, topic, everything)
    _do("discard", letters.discard, choice, planning=planning, reason=reason, actor=actor, as_json=as_json)


def _choice(ids: tuple[uuid.UUID, ...], topic: str | None, everything: bool) -> Choice:
    if bool(ids) == everything:
        raise Refused("say which dead letters: their ids, or --all (with --topic for one topic's)")
    return Choice(ids, topic)


def _do(
    name: str, deed: Deed, choice: Choice, *, planning: bool, reason: str | None, actor: str | None, as_json: bool
) -> None:
    if not planning and not reason:
        raise Refused(f"keeper outbox {name} needs --reason, or --plan to look only")
    with session(actor) as at, at.database.transaction(read_only=planning) as connection:
        found = letters.find(connection, _tables(at), choice)
        done = {} if planning else _done(connection, deed, found, at, reason or "")
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
