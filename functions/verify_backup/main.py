"""Restores the newest backup into a throwaway server and compares every count and hash.

What it has proven it enters where the gate of destructive tasks looks. A backup that is stale, missing, unreadable,
truncated, corrupted or foreign ends the run refused. It never restores into production and never changes a backup.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from shared.backup import drill, programs, shelf
from shared.backup.dump import stamp_of
from shared.backup.manifest import Manifest
from shared.backup.temporary import Instances, Place, Temporary, authorized
from shared.backup.throwaway import Embedded, Throwaway, workplace
from shared.errors import Unavailable
from shared.objects import Objects
from shared.schema import verified_backup
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    bucket: str
    backup: str
    again: bool
    fresh_hours: int
    embedded_up_to_gb: int
    drill: Place


def run(ctx: Context, params: Params) -> dict[str, int]:
    with ctx.begin():  # a run that only plans ends here
        pass
    elsewhere = _elsewhere(ctx, params.drill)
    store = ctx.place(shelf.location(ctx.settings, params.bucket))
    if params.backup:
        manifest = shelf.read(store, params.backup)
    else:
        manifest = drill.newest(store, now=ctx.now, fresh=timedelta(hours=params.fresh_hours))
    location = f"{store.location}/{shelf.manifest_of(manifest.name)}"
    with ctx.read() as connection:
        stamp = stamp_of(connection)
        known = connection.execute(
            select(verified_backup.c.manifest).where(verified_backup.c.manifest == location)
        ).scalar()
    if known is not None and not params.again:
        return {"verified_before": 1}
    drill.check(store, manifest, stamp)
    recovery_s = _drill(ctx, store, manifest, _server(ctx, manifest, params.embedded_up_to_gb, elsewhere))
    with ctx.begin() as connection:
        proven = {"taken_at": manifest.taken_at, "verified_at": ctx.clock.now(), "recovery_s": recovery_s}
        connection.execute(
            insert(verified_backup)
            .values(manifest=location, **proven)
            .on_conflict_do_update(index_elements=["manifest"], set_=proven)
        )
        ctx.count("verified")
        ctx.count("tables", len(manifest.fingerprint.tables))
        ctx.count("rows", manifest.fingerprint.rows)
        ctx.count("bytes", manifest.dump.bytes)
        ctx.count("recovery_s", recovery_s)
        ctx.count("data_age_s", round((ctx.now - manifest.taken_at) / timedelta(seconds=1)))
    return ctx.counts


def _elsewhere(ctx: Context, place: Place) -> Instances | None:
    """Where temporary instances may be made, if anywhere; those that killed drills left there are gone."""
    if not place.project:
        return None
    made = Instances(place, ctx.settings.project, session=authorized(), check=ctx.check, sleep=ctx.clock.sleep)
    for name in made.sweep():
        ctx.log.warning("deleted an instance that a killed drill left", instance=name)
    return made


def _server(ctx: Context, manifest: Manifest, most_gb: int, elsewhere: Instances | None) -> Throwaway:
    around = manifest.surroundings
    if around.bytes <= most_gb << 30:
        return Embedded(programs.programs(around.server_version // 10_000))
    if elsewhere is None:
        raise Unavailable(
            f"the database of backup {manifest.name} takes {around.bytes >> 30} GB, more than a throwaway server in "
            f"memory may hold (embedded_up_to_gb: {most_gb}): give the job more memory, or a project for temporary "
            "instances (DRILL_PROJECT), see docs/backups.md"
        )
    return Temporary(elsewhere, f"keeper-drill-{str(ctx.run_id)[:8]}-{ctx.attempt}")


def _drill(ctx: Context, store: Objects, manifest: Manifest, server: Throwaway) -> int:
    """Restore and compare; the seconds it took."""
    around = manifest.surroundings
    found = programs.programs(around.server_version // 10_000)
    began = ctx.clock.monotonic()
    with workplace() as folder:
        dump = drill.fetch(store, manifest, folder, each=lambda done: _tell(ctx, done, manifest.dump.bytes))
        with server(around, folder) as target:
            drill.restore(dump, manifest, found, target, check=ctx.check)
            drill.compare(target.engine, manifest, check=ctx.check)
    return round(ctx.clock.monotonic() - began)


def _tell(ctx: Context, done: int, total: int) -> None:
    ctx.check()
    ctx.progress(done, total)


main = entrypoint(__file__, run)
