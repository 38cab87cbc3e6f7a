"""`keeper inbox list`, `discard`: what came in and could never be handled. Each deed is in the operators' audit.

There is no replay: a letter is kept without its addresses and secrets, so it is no longer what came. Whoever sent it
sends it again mended, under the same id.
"""

import uuid
from collections import Counter
from typing import Any

import click
from sqlalchemy import ColumnElement, Connection, delete, select

from shared import audit
from shared.errors import Refused
from shared.keeper import show
from shared.keeper.session import session
from shared.schema import dead_letter

_C = dead_letter.c
_SHOWN = (_C.letter_id, _C.consumer, _C.source, _C.event_id, _C.reason, _C.payload, _C.bytes, _C.received_at)
_NAMED = 100  # letters that an entry of the audit names
_CONSUMER = click.option("--consumer", help="Only those of this task.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.group()
def inbox() -> None:
    """Events that came in and could not be handled."""


@inbox.command("list")
@_CONSUMER
@_JSON
def list_letters(consumer: str | None, as_json: bool) -> None:
    """The dead letters, oldest first, with what may be shown of each."""
    with session() as at, at.database.transaction(read_only=True) as connection:
        found = _find(connection, (), consumer)
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
@click.argument("ids", nargs=-1, type=click.UUID)
@_CONSUMER
@click.option("--all", "everything", is_flag=True, help="All dead letters (of --consumer, if given).")
@click.option("--plan", "planning", is_flag=True, help="Show what would be done; write nothing.")
@click.option("--reason", help="Why; needed unless --plan.")
@click.option("--as", "actor", help="Who decides (default: you).")
@_JSON
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
    if bool(ids) == everything:
        raise Refused("say which dead letters: their ids, or --all (with --consumer for one task's)")
    if not planning and not (reason or "").strip():
        raise Refused("keeper inbox discard needs --reason, or --plan to look only")
    with session(actor) as at, at.database.transaction(read_only=planning) as connection:
        found = _find(connection, ids, consumer)
        if found and not planning:
            named = [one["letter_id"] for one in found]
            connection.execute(delete(dead_letter).where(_C.letter_id.in_(named)))
            audit.record(
                connection,
                actor=at.actor,
                action="inbox discard",
                subject=consumer or "all",
                why=reason,
                now=at.clock.now(),
                details={"letters": len(named), "ids": [str(one) for one in named[:_NAMED]]},
            )
    if as_json:
        show.document(action="discard", planned=planning, dead_letters=found)
        return
    show.table(
        f"{len(found)} {'would be' if planning else 'were'} discarded",
        ["consumer", "why dead", "count"],
        ((*which, n) for which, n in sorted(Counter((o["consumer"], o["reason"]) for o in found).items())),
        empty="No letter is dead.",
    )


def _find(connection: Connection, ids: tuple[uuid.UUID, ...], consumer: str | None) -> list[dict[str, Any]]:
    """The chosen letters, oldest first. Raises Refused when an id names none."""
    where: list[ColumnElement[bool]] = [_C.letter_id.in_(ids)] if ids else []
    if consumer is not None:
        where.append(_C.consumer == consumer)
    rows = connection.execute(select(*_SHOWN).where(*where).order_by(_C.received_at, _C.letter_id)).mappings()
    found = [dict(row) for row in rows]
    if missing := set(ids) - {one["letter_id"] for one in found}:
        raise Refused(f"no dead letter has the id {min(map(str, missing))}: `keeper inbox list` shows them")
    return found
