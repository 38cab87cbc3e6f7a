"""Where archives lie: putting, reading and destroying their files, and what to say when the place fails."""

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, select, update

from shared import holds, objects
from shared.context import Context
from shared.errors import ConfigurationError
from shared.objects import Changed, Exists, Missing, Objects
from shared.retention import parquet
from shared.retention.preflight import Target
from shared.retention.rules import Rule
from shared.schema_retention import archive_manifest

_BUCKET = "archive"


class NotArchived(Exception):
    """The copy could not be written or verified, so nothing of it was deleted. The message says why."""


@contextmanager
def storing(what: str) -> Iterator[None]:
    """Say of a store that fails what could not be done. Raises NotArchived."""
    expected: tuple[type[Exception], ...] = (Exists, Missing, Changed, *objects.failures())
    try:
        yield
    except expected as error:
        raise NotArchived(f"{what}: {objects.told(error)}") from error


def store_of(ctx: Context, rule: Rule) -> Objects:
    """Where `rule`'s archives are. Raises NotArchived where nobody said."""
    return place_of(ctx, (rule.archive.place if rule.archive else "") or _BUCKET)


def place_of(ctx: Context, place: str) -> Objects:
    """The objects of a logical bucket or at a location. Raises NotArchived where nobody said which."""
    try:
        return ctx.place(place)
    except ConfigurationError as error:
        raise NotArchived(str(error)) from error


def stores(ctx: Context, rules: Iterable[Rule]) -> list[Objects]:
    """The places where archives of `rules` are, each once. Raises NotArchived."""
    found = {store.location: store for rule in rules if rule.archive for store in [store_of(ctx, rule)]}
    return list(found.values())


def put(store: Objects, name: str, content: bytes) -> None:
    """Write a new object whole."""
    with store.create(name) as sink:
        sink.write(content)


def remove(store: Objects, name: str) -> None:
    """Delete an object that may be gone already."""
    try:
        store.delete(name, generation=store.stat(name).generation)
    except Missing:
        return  # gone is what was wanted


def folder_of(source: str) -> str:
    """The prefix of a table's archives."""
    return "rows/" + re.sub(r"[^A-Za-z0-9._-]", "_", source)


def expired(connection: Connection, ctx: Context, store: Objects) -> list[tuple[uuid.UUID, str]]:
    """The archives of rows whose time is over and that no hold covers: id and location of the manifest, oldest
    first."""
    found = connection.execute(
        select(archive_manifest.c.archive_id, archive_manifest.c.location, archive_manifest.c.source)
        .where(
            archive_manifest.c.expires_at <= ctx.now,
            archive_manifest.c.destroyed_at.is_(None),
            archive_manifest.c.location.startswith(f"{store.location}/rows/", autoescape=True),
        )
        .order_by(archive_manifest.c.expires_at)
    ).all()
    about = holds.in_force(connection, ctx.clock.now())
    return [
        (row.archive_id, row.location)
        for row in found
        if not any(h.table is None or h.table in (row.source, row.source.removeprefix("public.")) for h in about)
    ]


def destroy_expired(ctx: Context, store: Objects) -> None:
    """Destroy the archives in `store` whose time is over, with the objects that went with their rows; the run counts
    them as `archives.destroyed`."""
    with ctx.read() as connection:
        due = expired(connection, ctx, store)
    for archive_id, location in due:
        name = location.removeprefix(f"{store.location}/")
        with storing(f"the expired archive {archive_id} could not be destroyed"):
            ctx.check()
            for companion in list(store.list(name.removesuffix(".json") + "/")):
                remove(store, companion.name)
            remove(store, name.removesuffix(".json") + ".parquet")
            remove(store, name)
        with ctx.begin() as connection:
            connection.execute(
                update(archive_manifest)
                .where(archive_manifest.c.archive_id == archive_id)
                .values(destroyed_at=ctx.clock.now())
            )
            ctx.count("archives.destroyed")


def remove_unknown(ctx: Context, target: Target) -> None:
    """Remove files that a killed run wrote and never entered into the ledger."""
    store, folder = store_of(ctx, target.rule), f"{folder_of(target.source)}/"
    with ctx.read() as connection:
        known = {
            str(archive_id)
            for archive_id in connection.execute(
                select(archive_manifest.c.archive_id).where(archive_manifest.c.source == target.source)
            ).scalars()
        }
    with storing(f"the archives of {target.source} could not be listed"):
        for found in store.list(folder):  # <run>/<archive>.parquet, .json and /<companions>
            if found.name.removeprefix(folder).split("/")[1].partition(".")[0] not in known:
                ctx.check()
                remove(store, found.name)


def read_manifest(location: str, sha256: str) -> tuple[dict[str, Any], Objects]:
    """An archive's manifest, proven against the ledger, and the place it lies in. Raises NotArchived."""
    folder, _, name = location.rpartition("/")
    place = objects.at(folder)
    with storing(f"the manifest {location} cannot be read"), place.open(name) as stream:
        content = stream.read()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise NotArchived(f"the manifest {location} is not the one the ledger knows: its SHA-256 differs")
    manifest: dict[str, Any] = json.loads(content)
    return manifest, place


def read_rows(manifest: dict[str, Any], place: Objects) -> Any:
    """The rows of an archive as a table, proven against its manifest. Raises NotArchived."""
    with storing(f"the archive {manifest['data']} cannot be read"), place.open(manifest["data"]) as stream:
        content = stream.read()
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise NotArchived(f"the archive {manifest['data']} is damaged: its SHA-256 is not its manifest's")
    return parquet.unpack(content)
