"""Starts each hour the cleaning routines that have work, each as a run of its own.

It deletes nothing itself: leases, plans, caps and the ledger are each routine's own. What stayed when a routine last
ran well (held, still named, still listed) is no work before its daily run.
"""

from dataclasses import dataclass

from shared.storage.routines import Routine, start
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    routines: tuple[Routine, ...]


def run(ctx: Context, params: Params) -> dict[str, int]:
    return start(ctx, params.routines)


main = entrypoint(__file__, run)
