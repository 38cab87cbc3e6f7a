"""Finishes account deletions that were begun and not ended: their caller went away, or they take long.

After a restore of the database, by hand with `replay`, it deletes again the accounts that came back. It never begins
a deletion that nobody asked for, and never deletes what a legal hold covers.
"""

from dataclasses import dataclass
from datetime import timedelta

from shared.accounts import progress
from shared.accounts.deletion import Deletion, Policy
from shared.accounts.inventory import Held
from shared.accounts.replay import replay
from shared.errors import Ending, Partial, Refused, Retry, Unavailable
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    replay: bool
    after_s: int
    policy: Policy


def run(ctx: Context, params: Params) -> dict[str, int]:
    if params.replay:
        replay(ctx)
    failed: list[str] = []
    missing: Unavailable | None = None
    while ctx.tick():
        with ctx.read() as connection:
            begun = progress.unfinished(connection, before=ctx.clock.now() - timedelta(seconds=params.after_s))
        failed, missing = [], None
        for done, erasure_id in enumerate(begun):
            try:
                Deletion(ctx, params.policy, erasure_id).advance(lambda: ctx.stopping)
            except Held:
                ctx.count("held")
            except Unavailable as lacking:
                missing = lacking
            except (Refused, Retry) as ending:
                failed.append(_words(str(erasure_id), ending))
            ctx.progress(done + 1, len(begun))
    if missing is not None:
        raise missing
    if failed:
        raise Partial(failed, ctx.counts)
    return ctx.counts


def _words(erasure_id: str, ending: Ending) -> str:
    return f"deletion {erasure_id}: {ending}"


main = entrypoint(__file__, run)
