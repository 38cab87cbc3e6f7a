"""Seals every integration's credential with a new data key, and wraps the data keys anew after the KEK's rotation.

Readers and writers go on meanwhile. It never leaves a row without its key, never changes a row that somebody wrote
since it was read, and never destroys a key that a row, a backup, an archive or a legal hold may need.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from shared.keys.kms import at
from shared.keys.rotation import Rotation, Rules
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    kek: str
    new_key: Literal["always", "if_due"]
    max_age_days: int
    keep_days: int


def run(ctx: Context, params: Params) -> dict[str, int]:
    rules = Rules(
        max_age=timedelta(days=params.max_age_days),
        keep=timedelta(days=params.keep_days),
        always=params.new_key == "always",
    )
    Rotation(ctx, at(params.kek), rules).run()
    return ctx.counts


main = entrypoint(__file__, run)
