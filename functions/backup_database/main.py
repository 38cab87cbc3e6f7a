"""Backs the database up with counts and hashes of what it holds.

All from one snapshot, streamed to its final name, the manifest last; then verify_backup is started. It removes backups
of no grade, and never the newest, the last verified one, anything younger than eight days, or anything under a hold.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select

from shared.backup import shelf
from shared.backup.dump import How, take
from shared.backup.shelf import Keep
from shared.objects import Objects
from shared.schema import verified_backup
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    bucket: str
    dump: How
    keep: Keep


def run(ctx: Context, params: Params) -> dict[str, int]:
    with ctx.begin():  # a run that only plans ends here, and one that lost its lease
        pass
    store = ctx.place(shelf.location(ctx.settings, params.bucket))
    made = shelf.of_run(store, str(ctx.run_id)) or take(ctx, store, params.dump)
    with ctx.begin():
        ctx.count("tables", len(made.fingerprint.tables))
        ctx.count("rows", made.fingerprint.rows)
        ctx.count("large_objects", made.fingerprint.large_objects.rows)
        ctx.count("bytes", made.dump.bytes)
        ctx.count("seconds", round((made.finished_at - made.taken_at) / timedelta(seconds=1)))
    ctx.start("verify_backup", f"backup {made.name} is written")
    _prune(ctx, store, params.keep)
    return ctx.counts


def _prune(ctx: Context, store: Objects, keep: Keep) -> None:
    ctx.count("removed", 0)
    if any(hold.run_id is None for hold in ctx.holds()):
        ctx.log.info("removed no backup: a legal hold is in force")
        return
    found, last = shelf.entries(store), _last_verified(ctx)
    due = [*shelf.removable(found, keep, verified=last, now=ctx.now), *shelf.leftovers(store, ctx.now)]
    for name in due:
        with ctx.begin():
            shelf.remove(store, name)
            ctx.count("removed")


def _last_verified(ctx: Context) -> str | None:
    """The name of the backup that was verified last."""
    with ctx.read() as connection:
        manifest = connection.execute(
            select(verified_backup.c.manifest).order_by(verified_backup.c.verified_at.desc()).limit(1)
        ).scalar()
    return None if manifest is None else manifest.rpartition("/")[0].rpartition("/")[2]


main = entrypoint(__file__, run)
