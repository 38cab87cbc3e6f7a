"""Objects that rows name: copied and proven before their rows go, deleted after them.

    copy each object below its archive -> read back and compare -> (the rows go, and with them in one transaction a
    note of each object) -> delete the objects no row names any more, end their notes

Killed before the rows go, a run leaves copies nobody knows of, which the next one removes; killed after, notes, which
the next one works off. An object other rows still name, or one that was replaced meanwhile, stays.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, delete, insert, select, text, tuple_

from shared import objects
from shared.context import Context
from shared.objects import Changed, Exists, Missing, Objects
from shared.retention.preflight import Target
from shared.retention.rules import Companion, quoted
from shared.retention.shelf import NotArchived, place_of, storing
from shared.schema_retention import pending_object

# Of one archive: objects are copied one by one, and what a killed run copied is copied again.
MOST_ROWS = 100
# Of one archive too: beyond it, it is the place that fails, not single objects.
_MOST_FAILED = 10

_CHUNK = 1 << 20


class Copy(NamedTuple):
    """An object as it was found and its copy, named relative to the archive's folder. Size in bytes."""

    name: str
    location: str
    generation: int
    copy: str
    bytes: int
    sha256: str


class Taken(NamedTuple):
    """The copies, the places in the batch of the rows that stay without one, how many objects were missing, and what
    failed, in words."""

    copies: tuple[Copy, ...]
    left: frozenset[int]
    missing: int
    failed: tuple[str, ...]


def take(ctx: Context, target: Target, names: Sequence[str | None], store: Objects, folder: str) -> Taken:
    """Copy the objects `names` (one a row, in the batch's order) below `folder` of `store`.

    One object's failure is no other's; raises NotArchived when the place fails, and Stopped.
    """
    companion, rule = _companion(target), target.rule.name
    place = place_of(ctx, companion.place)
    copies: dict[str, Copy] = {}
    left = set()
    missing = 0
    failed: list[str] = []
    for number, name in enumerate(names):
        if name in copies:
            continue
        ctx.check()
        try:
            with storing(f"{name} could not be archived, so its row stays"):
                found = _take(place, name, store, folder, number)
        except NotArchived as why:
            failed.append(str(why))
            left.add(number)
            if len(failed) == _MOST_FAILED:
                raise
            continue
        if found is not None and name is not None:
            copies[name] = found
        else:
            missing += 1
            if companion.missing == "keep":
                left.add(number)
    if left:
        ctx.log.warning("rows stay without a copy of their object", rule=rule, rows=len(left))
    return Taken(tuple(copies.values()), frozenset(left), missing, tuple(failed))


def _take(place: Objects, name: str | None, store: Objects, folder: str, number: int) -> Copy | None:
    """One object's copy; None where there is none of that name, or what the row holds is no object's name."""
    try:
        found = place.stat(name or "")
    except (Missing, ValueError):
        return None
    copy = f"{folder}/{number:06}/{name}"
    digest = hashlib.sha256()
    with place.open(found.name) as source, store.create(copy) as sink:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            sink.write(chunk)
    with store.open(copy) as stream:
        if objects.sha256(stream) != digest.hexdigest():
            raise NotArchived(f"the copy {copy} does not read back as it was written: kept both")
    if place.stat(found.name).generation != found.generation:
        raise NotArchived(f"the object {found.name} was replaced while it was copied: the next run takes it as it is")
    return Copy(
        found.name,
        place.location,
        found.generation,
        copy.partition("/")[2].partition("/")[2].partition("/")[2],  # below rows/<table>/<run>
        found.size,
        digest.hexdigest(),
    )


def note(connection: Connection, target: Target, archive_id: UUID, copies: Sequence[Copy], now: datetime) -> None:
    """Note what is to be deleted, in the transaction in which the rows go."""
    if copies:
        connection.execute(
            insert(pending_object),
            [
                {
                    "archive_id": archive_id,
                    "name": copy.name,
                    "location": copy.location,
                    "generation": copy.generation,
                    "source": target.source,
                    "noted_at": now,
                }
                for copy in copies
            ],
        )


def finish(ctx: Context, target: Target) -> list[str]:
    """Delete the noted objects no row names any more; the run counts them as `<rule>.objects`.

    What could not be deleted stays noted and is told, in words.
    """
    failed: list[str] = []
    place = (UUID(int=0), "")
    key = tuple_(pending_object.c.archive_id, pending_object.c.name)
    while True:
        ctx.check()
        with ctx.begin() as connection:  # the lease is proven before anything goes
            noted = connection.execute(
                select(
                    pending_object.c.archive_id,
                    pending_object.c.name,
                    pending_object.c.location,
                    pending_object.c.generation,
                )
                .where(pending_object.c.source == target.source, key > place)
                .order_by(pending_object.c.archive_id, pending_object.c.name)
                .limit(MOST_ROWS)
            ).all()
            named = _named(connection, target, [n.name for n in noted])
        if not noted:
            return failed
        place = (noted[-1].archive_id, noted[-1].name)
        ended, gone = [], 0
        for one in noted:
            if one.name not in named:
                if why := _delete(ctx, one):
                    failed.append(f"{target.rule.name}: {one.name}: {why}")
                    continue
                gone += 1
            ended.append((one.archive_id, one.name))
        with ctx.begin() as connection:
            connection.execute(delete(pending_object).where(key.in_(ended)))
            ctx.count(f"{target.rule.name}.objects", gone)


def _named(connection: Connection, target: Target, names: list[str]) -> set[str]:
    """Those of `names` that rows of the table name."""
    column = quoted(_companion(target).column)
    found = connection.execute(
        text(f"select {column} from {target.relation.name} where {column} = any(:names)"), {"names": names}
    )
    return set(found.scalars())


def _delete(ctx: Context, noted: Any) -> str:
    """Delete one object as it was copied; why not, in words."""
    try:
        ctx.objects(noted.location).delete(noted.name, generation=noted.generation)
    except Missing:
        return ""
    except Changed:
        ctx.log.warning("an object stays: it was replaced after its copy was made", object=noted.name)
    except objects.failures() as error:
        return objects.told(error)
    return ""


def bring_back(manifest: dict[str, Any], place: Objects) -> int:
    """Copy an archive's objects to where they were; how many of them are not there as they were, since another
    object has the name. `place` is the folder of the manifest. Raises NotArchived."""
    others = 0
    for entry in manifest.get("objects", ()):
        home = objects.at(entry["location"])
        with storing(f"the object {entry['name']} cannot be brought back"):
            with suppress(Exists):  # brought back before, or never deleted: the comparison tells
                place.copy(entry["copy"], home, entry["name"])
            with home.open(entry["name"]) as stream:
                others += objects.sha256(stream) != entry["sha256"]
    return others


def _companion(target: Target) -> Companion:
    if target.rule.objects is None:
        raise RuntimeError(f"rule {target.rule.name} names no objects")
    return target.rule.objects
