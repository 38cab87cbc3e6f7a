"""Deletes rows older than their data class allows.

The policies stand in task.yaml, or in a file of the operator's. It never touches bug_report, threat_report,
training_run or tenant configuration, never a row exactly at its limit or under a legal hold, and of
threat_intelligence removes only legacy duplicates.
"""

from dataclasses import dataclass

from shared.retention.pace import Limits
from shared.retention.purge import purge
from shared.retention.rules import Duplicates, Rule
from shared.retention.sources import policy_of
from shared.retention.survey import look
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    rules_file: str
    adopt_file: str
    count_within_s: int
    pace: Limits
    rules: tuple[Rule, ...]
    duplicates: tuple[Duplicates, ...]


def run(ctx: Context, params: Params) -> dict[str, int]:
    policy = policy_of(ctx, params.rules, params.duplicates, rules_file=params.rules_file, adopt_file=params.adopt_file)
    survey = look(ctx, policy, count_within_s=params.count_within_s)
    ctx.authorize(survey.plan)
    return purge(ctx, survey, params.pace)


main = entrypoint(__file__, run)
