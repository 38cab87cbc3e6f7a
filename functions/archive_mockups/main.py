"""Moves mockups over twelve months old to cold storage, the image first and then its row.

It never deletes a row whose image is not proven to be in cold storage, an image that another row names or that was
replaced meanwhile, a mockup that a listing shows, or one exactly at its limit.
"""

from dataclasses import dataclass

from shared.retention.pace import Limits
from shared.retention.purge import purge
from shared.retention.rules import Rule
from shared.retention.sources import policy_of
from shared.retention.survey import look
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    count_within_s: int
    pace: Limits
    rules: tuple[Rule, ...]


def run(ctx: Context, params: Params) -> dict[str, int]:
    survey = look(ctx, policy_of(ctx, params.rules), count_within_s=params.count_within_s)
    ctx.authorize(survey.plan)
    return purge(ctx, survey, params.pace)


main = entrypoint(__file__, run)
