"""Deletes rows older than their data class allows.

The policies stand in task.yaml. It never touches bug_report, threat_report, training_run or tenant configuration,
never a row exactly at its limit, and of threat_intelligence removes only legacy duplicates.
"""

from dataclasses import dataclass

from shared.retention.purge import plan, purge
from shared.retention.rules import Duplicates, Rule
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    batch_rows: int
    rules: tuple[Rule, ...]
    duplicates: tuple[Duplicates, ...]


def run(ctx: Context, params: Params) -> dict[str, int]:
    ctx.authorize(plan(ctx, params.rules, params.duplicates))
    return purge(ctx, params.rules, params.duplicates, batch_rows=params.batch_rows)


main = entrypoint(__file__, run)
