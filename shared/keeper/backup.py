"""`keeper backup list`, `verify`, `restore`: which backups there are, prove one, and restore one somewhere else."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from sqlalchemy import select, text

from shared import audit, erasure, objects
from shared import settings as settings_module
from shared.backup import drill, fingerprint, programs, shelf
from shared.backup.manifest import Manifest
from shared.backup.shelf import Keep
from shared.backup.throwaway import Target
from shared.database import Database
from shared.errors import OUTCOMES, Refused
from shared.keeper import options, show
from shared.keeper.session import Session, find, session
from shared.keeper.tasks import run_by_hand, say
from shared.objects import Objects
from shared.params import build, resolve
from shared.schema import erasure as erasure_table
from shared.schema import verified_backup
from shared.wording import counted


@click.group()
def backup() -> None:
    """Backups of the database, and the proof that they can be restored."""


@backup.command("list")
@options.JSON
def list_backups(as_json: bool) -> None:
    """The backups there are, the newest first, with why each is kept and when it was verified."""
    with session() as at:
        store = _store(at)
        found = shelf.entries(store)
        keep = build(Keep, find(at.tasks(), "backup_database").params["keep"], "backup_database.keep")
        grades = shelf.kept(found, keep)
        verified = _verified(at, store)
        rows = [_row(store, entry.name, grades.get(entry.name, ()), verified.get(entry.name)) for entry in found[::-1]]
    if as_json:
        show.document(backups=rows)
        return
    show.table(
        f"Backups in {store.location} (times in UTC)",
        ["backup", "taken", "tables", "rows", "bytes", "kept as", "verified", "restored in", "trouble"],
        (
            (
                r["backup"],
                r["taken_at"],
                r["tables"],
                r["rows"],
                r["bytes"],
                ", ".join(r["grades"]),
                r["verified_at"],
                None if r["recovery_s"] is None else f"{r['recovery_s']} s",
                r["trouble"],
            )
            for r in rows
        ),
        empty="There is no backup: `keeper run backup_database` takes one.",
    )


def _row(store: Objects, name: str, grades: tuple[str, ...], verified: Any) -> dict[str, Any]:
    trouble, manifest = None, None
    try:
        manifest = shelf.read(store, name)
    except Refused as refused:
        trouble = str(refused)
    return {
        "backup": name,
        "taken_at": manifest and manifest.taken_at,
        "tables": manifest and len(manifest.fingerprint.tables),
        "rows": manifest and manifest.fingerprint.rows,
        "bytes": manifest and manifest.dump.bytes,
        "grades": list(grades),
        "verified_at": verified and verified.verified_at,
        "recovery_s": verified and verified.recovery_s,
        "trouble": trouble,
    }


def _store(at: Session) -> Objects:
    declared = find(at.tasks(), "backup_database").params["bucket"]
    return objects.at(shelf.location(at.settings, resolve(declared, at.settings.environ, "backup_database.bucket")))


def _verified(at: Session, store: Objects) -> dict[str, Any]:
    """The ledger's rows of verified backups, by the backup's name."""
    with at.database.transaction(read_only=True) as connection:
        rows = connection.execute(
            select(verified_backup.c.manifest, verified_backup.c.verified_at, verified_backup.c.recovery_s)
        ).all()
    start, end = f"{store.location}/{shelf.FOLDER}/", f"/{shelf.MANIFEST}"
    return {row.manifest.removeprefix(start).removesuffix(end): row for row in rows}


@backup.command()
@click.argument("name", required=False, default="")
@click.option("--reason", "why", default="by hand", show_default=True, help="Why, for the ledger.")
@options.ASKS
@options.JSON
def verify(name: str, why: str, actor: str | None, as_json: bool) -> None:
    """Restore the backup NAME (default: the newest) into a throwaway server and compare everything."""
    with session(actor) as at:
        task = find(at.tasks(), "verify_backup")
        result = run_by_hand(at, task, params={"backup": name, "again": True}, why=why)
    say(result, as_json=as_json)
    sys.exit(OUTCOMES[result.outcome].exit)


@backup.command()
@click.argument("name")
@click.option("--into", required=True, metavar="URL", help="An empty database: postgresql://user:password@host/name.")
@click.option("--reason", "why", required=True, help="Why, for the audit.")
@options.ASKS
@options.JSON
def restore(name: str, into: str, why: str, actor: str | None, as_json: bool) -> None:
    """Restore the backup NAME into an empty database that is not this one, and prove it the same."""
    with session(actor) as at, tempfile.TemporaryDirectory(prefix="keeper-") as private:
        store = _store(at)
        manifest = shelf.read(store, name)
        target = _target(at, into, Path(private), manifest)
        found = programs.programs(max(target.major, manifest.surroundings.server_version // 10_000))
        with at.database.transaction() as connection:
            audit.record(
                connection,
                actor=at.actor,
                action="restore_backup",
                subject=name,
                why=why,
                now=at.clock.now(),
                details={"into": str(target.engine.url.database)},
            )
        drill.check(store, manifest, manifest.stamp)
        dump = drill.fetch(store, manifest, Path(private), each=lambda _: None)
        drill.restore(dump, manifest, found, target, check=lambda: None)
        drill.compare(target.engine, manifest, check=lambda: None)
        buried = _bury(at, target)
        target.engine.dispose()
    if as_json:
        show.document(
            backup=name,
            tables=len(manifest.fingerprint.tables),
            rows=manifest.fingerprint.rows,
            equal=True,
            tombstones=buried,
        )
        return
    show.console.print(
        f"{counted(manifest.fingerprint.rows, 'row')} of {counted(len(manifest.fingerprint.tables), 'table')} "
        f"restored, equal to the backup of {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC; "
        f"{counted(buried, 'tombstone')} of erased accounts brought along"
    )
    show.console.print(
        "  before it is used, delete the accounts that are back: DATABASE_URL=… keeper run finish_deletions "
        "--param replay=true"
    )


def _target(at: Session, into: str, private: Path, manifest: Manifest) -> Target:
    """The empty database at `into`, with the roles the backup names. Raises Refused unless it is empty."""
    database = Database(settings_module.read({"DATABASE_URL": into}), "keeper-restore")
    with at.database.transaction(read_only=True) as here, database.transaction() as there:
        if _identity(here) == _identity(there):
            raise Refused("--into names the database that is in use: a backup is restored into another one")
        if taken := fingerprint.tables(there):
            raise Refused(f"--into names a database with {counted(len(taken), 'table')}: give an empty one")
        major = int(there.execute(text("show server_version_num")).scalar_one()) // 10_000
        if major < manifest.surroundings.server_version // 10_000:
            raise Refused(f"--into is PostgreSQL {major}, older than the backup's: give a server as new")
        known = set(there.execute(text("select rolname from pg_roles")).scalars())
        quote = there.dialect.identifier_preparer.quote_identifier
        for role in manifest.surroundings.roles:
            if role not in known:
                there.exec_driver_sql(f"create role {quote(role)} nologin")
    return Target(database.program_environment(private), database.engine, major)


def _bury(at: Session, target: Target) -> int:
    """Bring the tombstones known today into the restored database, so that no erased account comes back; how many."""
    with at.database.transaction(read_only=True) as here:
        known = select(erasure_table.c.account_hash).where(erasure_table.c.erased_at.is_not(None))
        digests = list(here.execute(known).scalars())
    with target.engine.begin() as there:
        if there.execute(text("select to_regclass('groundskeeper.erasure')")).scalar() is None:
            raise Refused(
                f"the backup is older than the erasure of accounts: `keeper migrate` it before use, then restore the "
                f"{counted(len(digests), 'tombstone')} by hand (groundskeeper.erasure)"
            )
        for digest in digests:
            erasure.bury(there, digest, at.clock.now())
    return len(digests)


def _identity(connection: Any) -> tuple[object, ...]:
    """What tells one database from every other, under whatever address it is reached."""
    return tuple(
        connection.execute(
            text("""
            select pg_postmaster_start_time(), current_setting('port'), d.oid, current_database()
              from pg_database d where d.datname = current_database()""")
        ).one()
    )
