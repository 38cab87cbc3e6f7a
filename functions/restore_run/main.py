"""Brings back what a run archived and deleted, under a hold, and proves that it is as it was.

It never overwrites a row, never brings back a row of an erased account or an event that was not sent, and never
anything of an archive that is damaged.
"""

import uuid
from dataclasses import dataclass
from datetime import timedelta

from shared import erasure
from shared.errors import Partial, Refused
from shared.retention.restore import archives_of, restore
from shared.task import Context, entrypoint
from shared.wording import counted


@dataclass(frozen=True)
class Params:
    run_id: str
    hold_days: int


def run(ctx: Context, params: Params) -> dict[str, int]:
    run_id = _run_id(params.run_id)
    if params.hold_days < 1:
        raise Refused(f"hold_days is {params.hold_days}: what comes back is held for a day at least")
    with ctx.read() as connection:
        archives = archives_of(connection, run_id)
    ctx.count("archives", len(archives))
    ctx.count("archived", sum(a.items for a in archives))
    done = restore(
        ctx.begin,
        run_id,
        actor=ctx.actor,
        why=ctx.why or "no reason was given",
        now=ctx.now,
        hold_until=ctx.now + timedelta(days=params.hold_days),
        erasure_key=erasure.key_of(ctx),
    )
    counts = {**ctx.counts, "restored": done.restored, "present": done.present}
    if not done.equal:
        raise Partial([f"{c.source}: {counted(c.rows, 'row')} stayed away: {c.why}" for c in done.conflicts], counts)
    return counts


def _run_id(said: str) -> uuid.UUID:
    try:
        return uuid.UUID(said)
    except ValueError:
        raise Refused(f"run_id is {said!r}: say which run, as `keeper history` shows it") from None


main = entrypoint(__file__, run)
