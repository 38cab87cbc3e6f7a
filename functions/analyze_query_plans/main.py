"""Explains the statements that take most time, and says what is worth a look and which plans changed.

Generic plans, so that statements with parameters have one too. It executes none of them, changes no setting, creates no
index, keeps no value of a statement, and never claims a coverage it has not: what has no plan is named with its reason.
"""

from dataclasses import dataclass

from shared.queryplans.analysis import keep, look
from shared.queryplans.findings import Thresholds
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    limit: int
    thresholds: Thresholds


def run(ctx: Context, params: Params) -> dict[str, int]:
    seen = look(ctx, limit=params.limit, thresholds=params.thresholds)
    for analysed in seen.analysed:
        if analysed.before is not None:
            ctx.log.warning("a plan changed", query_id=str(analysed.statement.query_id), before=analysed.before)
    keep(ctx, seen)
    return ctx.counts


main = entrypoint(__file__, run)
