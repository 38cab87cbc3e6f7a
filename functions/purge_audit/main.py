"""Deletes operators' audit entries older than eighteen calendar months, archived first.

It never touches an entry exactly at its limit or under a legal hold, and deletes nothing whose archive did not read
back as it was written.
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
