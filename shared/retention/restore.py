"""Bring back what a run archived and deleted, and prove that it is the same.

Idempotent by primary key; under a hold with an end, or the next run would take it again; identity and generated
columns and triggers handled; what cannot come back is reported and left. Never sends an outbox row a second time.
"""

import hashlib
import io
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, Row, select, text

from shared import audit, holds
from shared.errors import Refused
from shared.retention import catalogue, companions, copying, erased, parquet, shelf
from shared.retention.rules import dotted, quoted
from shared.retention.shelf import NotArchived
from shared.schema import legal_hold
from shared.schema_retention import archive_manifest
from shared.wording import counted

_STATEMENT_MS = 300_000
# Triggers are switched off for the transaction, which keeps other writers out of the table: it must be short.
_LOCK_MS = 5000
_HOLD_LOCK_MS = 60_000


class Begin(Protocol):
    """Opens a transaction to write in: the database's, or a run's with its fence."""

    def __call__(
        self, *, lock_timeout_ms: int = ..., statement_timeout_ms: int = ...
    ) -> AbstractContextManager[Connection]: ...


@dataclass(frozen=True)
class Conflict:
    """Rows of `source` that stayed away, and why."""

    source: str
    rows: int
    why: str


@dataclass(frozen=True)
class Restored:
    """What a restore did. `equal`: every archived row is there as it was, proven by the hash of COPY's output."""

    run_id: uuid.UUID
    restored: int
    present: int  # there already, and the same
    conflicts: tuple[Conflict, ...]
    equal: bool

    def document(self) -> dict[str, Any]:
        """What `keeper restore` prints as JSON."""
        return {
            "run_id": str(self.run_id),
            "restored": self.restored,
            "present": self.present,
            "conflicts": [vars(c) for c in self.conflicts],
            "equal": self.equal,
        }


def archives_of(connection: Connection, run_id: uuid.UUID) -> Sequence[Row[*tuple[Any, ...]]]:
    """The archives of run `run_id`, oldest first. Raises Refused where there is none, or none any more."""
    found = connection.execute(
        select(
            archive_manifest.c.location,
            archive_manifest.c.sha256,
            archive_manifest.c.source,
            archive_manifest.c["items"],
            archive_manifest.c.destroyed_at,
        )
        .where(archive_manifest.c.run_id == run_id)
        .order_by(archive_manifest.c.written_at, archive_manifest.c.archive_id)
    ).all()
    if not found:
        raise Refused(f"run {run_id} archived nothing: is it in `keeper history`, with a rule that has `archive`?")
    if gone := [a for a in found if a.destroyed_at is not None]:
        raise Refused(
            f"{counted(len(gone), 'archive')} of run {run_id} destroyed already: the time to keep them was over"
        )
    return found


def restore(
    begin: Begin,
    run_id: uuid.UUID,
    *,
    actor: str,
    why: str,
    now: datetime,
    hold_until: datetime,
    erasure_key: str | None = None,
) -> Restored:
    """Bring back every row that run `run_id` archived, held until `hold_until`; what is of erased accounts stays away.

    `begin` opens each transaction. `erasure_key` tells those, and where accounts are erased it is needed.
    A second time, or after a kill, it goes on where it was. Raises Refused when there is nothing to bring back or
    an archive is damaged, and then nothing of that archive came back.
    """
    # Batches under way are waited for before a hold stands, so its lock may take a while to come.
    with begin(lock_timeout_ms=_HOLD_LOCK_MS, statement_timeout_ms=_HOLD_LOCK_MS) as connection:
        archives = archives_of(connection, run_id)
        for source in sorted({a.source for a in archives}):
            _hold(connection, source, run_id, actor=actor, why=why, now=now, until=hold_until)
        audit.record(connection, actor=actor, action="restore", subject=str(run_id), why=why, now=now)
    restored, present, equal = 0, 0, True
    conflicts: dict[tuple[str, str], int] = {}
    for entry in archives:
        try:
            manifest, place = shelf.read_manifest(entry.location, entry.sha256)
            rows = shelf.read_rows(manifest, place)
            others = companions.bring_back(manifest, place)  # before the rows: none is to name what is not there
        except NotArchived as broken:
            raise Refused(str(broken)) from broken
        with begin(lock_timeout_ms=_LOCK_MS, statement_timeout_ms=_STATEMENT_MS) as connection:
            part = _Part(connection, manifest, run_id, hold_until, erasure_key)
            part.stage(rows)
            found = part.bring_back()
        restored += found.restored
        present += found.present
        equal = equal and found.equal and not others
        if others:
            key = (manifest["source"], "the object it names was replaced by another of that name")
            conflicts[key] = conflicts.get(key, 0) + others
        for conflict in found.conflicts:
            key = (conflict.source, conflict.why)
            conflicts[key] = conflicts.get(key, 0) + conflict.rows
    told = tuple(Conflict(source, rows, why) for (source, why), rows in sorted(conflicts.items()))
    return Restored(run_id, restored, present, told, equal)


def _hold(
    connection: Connection, source: str, run_id: uuid.UUID, *, actor: str, why: str, now: datetime, until: datetime
) -> None:
    there = connection.execute(
        select(legal_hold.c.hold_id).where(
            legal_hold.c.run_id == run_id,
            legal_hold.c.table_name == source,
            legal_hold.c.released_at.is_(None),
            legal_hold.c.expires_at > now,
        )
    ).first()
    if there is None:
        holds.add(
            connection,
            reason=f"restored from run {run_id}: {why}",
            by=actor,
            now=now,
            table=source,
            run_id=run_id,
            expires_at=until,
        )


class _Part:
    """One archive on its way back, in one transaction."""

    def __init__(
        self, connection: Connection, manifest: dict[str, Any], run_id: uuid.UUID, until: datetime, key: str | None
    ) -> None:
        self._connection, self._manifest, self._run_id, self._until = connection, manifest, run_id, until
        self._erasure_key = key
        self.source: str = manifest["source"]
        found = catalogue.named(connection, self.source)
        if found is None:
            raise Refused(f"table {self.source} is gone: create it as it was, then restore again")
        missing = set(manifest["columns"]) - set(found.columns)
        if missing:
            raise Refused(
                f"{self.source} lost the columns {', '.join(sorted(missing))} since: add them, then restore again"
            )
        if found.key != tuple(manifest["key"]):
            raise Refused(f"{self.source} has another primary key than when its rows were archived")
        self._relation = found
        self._columns = list(manifest["columns"])
        self._key = " and ".join(f"t.{quoted(c)} = s.{quoted(c)}" for c in found.key)
        self._conflicts: list[Conflict] = []

    def stage(self, rows: Any) -> None:
        """Put the archived rows beside the table: the same types, no constraint."""
        columns = ", ".join(quoted(c) for c in self._columns)
        self._connection.execute(
            text(
                "create temporary table restoring on commit drop as"
                f" select {columns} from {self._relation.name} where false"
            )
        )
        self._connection.execute(text(parquet.TEXT_SETTINGS))
        copying.copy(
            self._connection,
            f"copy restoring ({columns}) from stdin (format csv)",
            io.BytesIO(parquet.lines(rows, self._columns)),
        )
        self._connection.execute(text(f"create index on restoring ({', '.join(map(quoted, self._relation.key))})"))
        self._connection.execute(text("analyze restoring"))

    def bring_back(self) -> Restored:
        """Insert what is missing and can come; compare all of it with the archive."""
        archived = self._scalar("select count(*) from restoring")
        changed = self._changed()
        present = self._scalar(f"select count(*) from restoring s join {self._relation.name} t on {self._key}")
        self._leave_behind()
        inserted = self._insert()
        if left := archived - present - inserted - sum(c.rows for c in self._conflicts):
            self._conflicts.append(Conflict(self.source, left, "another unique value of theirs is taken"))
        if changed:
            self._conflicts.append(Conflict(self.source, changed, "there is a row of that key with other values"))
        equal = self._digest() == self._manifest["copy_sha256"]
        return Restored(self._run_id, inserted, present - changed, tuple(self._conflicts), equal)

    def _scalar(self, sql: str) -> int:
        value: int = self._connection.execute(text(sql)).scalar_one()
        return value

    def _changed(self) -> int:
        row = ", ".join(f"{{}}.{quoted(c)}" for c in self._columns)
        mine, theirs = row.replace("{}", "s"), row.replace("{}", "t")
        # As text: not every type has an equality, and text is what the archive promises.
        return self._scalar(
            f"select count(*) from restoring s join {self._relation.name} t on {self._key}"
            f" where cast(row({mine}) as text) <> cast(row({theirs}) as text)"
        )

    def _leave_behind(self) -> None:
        """Take out what must not come back: erased accounts, links to what is gone, events that were never sent."""
        if (account := erased.account_of(self._columns)) is not None:
            gone = erased.among(self._connection, account, self.source, self._erasure_key)
            self._take_out(f"{account} = any(:gone)", "their accounts are erased", gone=gone)
        if {"published_at", "attempts", "payload"} <= set(self._columns):
            self._take_out("s.published_at is null", "never published: bringing it back would publish it")
        for parent in self._connection.execute(_PARENTS, {"oid": self._relation.oid}):
            if not set(parent.columns) <= set(self._columns):
                continue
            given = " and ".join(f"s.{quoted(c)} is not null" for c in parent.columns)
            pairs = zip(parent.columns, parent.parent_columns, strict=True)
            match = " and ".join(f"p.{quoted(theirs)} = s.{quoted(ours)}" for ours, theirs in pairs)
            name = dotted(parent.schema, parent.name)
            self._take_out(
                f"{given} and not exists (select 1 from {name} p where {match})",
                f"what they point at in {name} is gone",
            )

    def _take_out(self, condition: str, why: str, **binds: Any) -> None:
        absent = f"not exists (select 1 from {self._relation.name} t where {self._key})"
        gone = self._connection.execute(text(f"delete from restoring s where {condition} and {absent}"), binds).rowcount
        if gone:
            self._conflicts.append(Conflict(self.source, gone, why))

    def _insert(self) -> int:
        own = self._connection.execute(_COLUMNS, {"oid": self._relation.oid}).all()
        generated = {c.attname for c in own if c.generated}
        always = any(c.attidentity == "a" for c in own)
        columns = ", ".join(quoted(c) for c in self._columns if c not in generated)
        key = ", ".join(f"s.{quoted(c)}" for c in self._relation.key)
        self._connection.execute(
            text(
                "insert into groundskeeper.restored_row (source, key, run_id, until)"
                f" select :source, cast(row({key}) as text), :run, :until from restoring s"
                f" where not exists (select 1 from {self._relation.name} t where {self._key}) on conflict do nothing"
            ),
            {"source": self.source, "run": self._run_id, "until": self._until},
        )
        with self._without_triggers():
            return self._connection.execute(
                text(
                    f"insert into {self._relation.name} ({columns}) {'overriding system value' if always else ''}"
                    f" select {columns} from restoring s on conflict do nothing"
                )
            ).rowcount

    @contextmanager
    def _without_triggers(self) -> Iterator[None]:
        """What a row's first insert set off must not happen again; foreign keys are checked all the same."""
        table = self._relation.name
        triggers = self._connection.execute(_TRIGGERS, {"oid": self._relation.oid}).all()
        # A trigger cannot be switched while checks of this transaction are still to come.
        self._connection.execute(text("set constraints all immediate"))
        for trigger in triggers:
            self._connection.execute(text(f"alter table {table} disable trigger {dotted(trigger.tgname)}"))
        yield
        for trigger in triggers:
            mode = "enable always" if trigger.tgenabled == "A" else "enable"
            self._connection.execute(text(f"alter table {table} {mode} trigger {dotted(trigger.tgname)}"))

    def _digest(self) -> str:
        """The SHA-256 of COPY's output of these rows as the table has them now, in the archive's order."""
        order = copying.key_order(self._relation.key, self._relation.columns)
        message = copying.Message()
        copying.copy(
            self._connection,
            f"copy (select coalesce(string_agg({parquet.line(self._columns)}, E'\\n' order by {order}), '')"
            f" from {self._relation.name} t join restoring s on {self._key}) to stdout (format binary)",
            message,
        )
        ((lines,),) = message.rows()
        return hashlib.sha256(lines).hexdigest()


_TRIGGERS = text("""
    select tgname, tgenabled from pg_trigger
     where tgrelid = cast(:oid as oid) and not tgisinternal and tgenabled in ('O', 'A') and (tgtype & 4) <> 0
     order by tgname""")

_COLUMNS = text("""
    select attname, attidentity, attgenerated <> '' as generated from pg_attribute
     where attrelid = cast(:oid as oid) and attnum > 0 and not attisdropped""")

_PARENTS = text("""
    select n.nspname as schema, c.relname as name,
           (select array_agg(a.attname order by place)
              from unnest(k.conkey) with ordinality x(number, place)
              join pg_attribute a on a.attrelid = k.conrelid and a.attnum = x.number) as columns,
           (select array_agg(a.attname order by place)
              from unnest(k.confkey) with ordinality x(number, place)
              join pg_attribute a on a.attrelid = k.confrelid and a.attnum = x.number) as parent_columns
      from pg_constraint k join pg_class c on c.oid = k.confrelid join pg_namespace n on n.oid = c.relnamespace
     where k.conrelid = cast(:oid as oid) and k.contype = 'f' and k.confrelid <> k.conrelid
     order by k.conname""")
