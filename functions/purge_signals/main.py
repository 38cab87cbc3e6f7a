"""Deletes signals and log files older than thirty days.

It never follows a link, never leaves the logs' place, and leaves a file that is open, changed since it was looked at,
or exactly at its limit.
"""

from dataclasses import dataclass, replace

from shared.plans import Plan
from shared.retention.pace import Limits
from shared.retention.purge import purge
from shared.retention.rules import Rule
from shared.retention.sources import policy_of
from shared.retention.survey import look
from shared.storage import logs
from shared.storage.logs import LogRule
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    count_within_s: int
    pace: Limits
    rules: tuple[Rule, ...]
    logs: LogRule


def run(ctx: Context, params: Params) -> dict[str, int]:
    survey = look(ctx, policy_of(ctx, params.rules), count_within_s=params.count_within_s)
    place = logs.place_of(ctx, params.logs.place)
    line = logs.item(ctx, place, params.logs)
    predicates = {**survey.plan.predicates, "logs": f"{place.location}: {line.why}"}
    ctx.authorize(Plan((*survey.plan.items, line), predicates, survey.plan.notes))
    failed = logs.delete(ctx, place, params.logs)
    return purge(ctx, replace(survey, problems=(*survey.problems, *failed)), params.pace)


main = entrypoint(__file__, run)
