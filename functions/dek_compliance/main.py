"""Checks the age, state and wrapping of the data keys, and starts their rotation when it is due.

It reads only, and opens no credential. It never ends well while the active key stays overdue or a key cannot be
unwrapped.
"""

from dataclasses import dataclass
from datetime import timedelta

from shared.errors import Partial
from shared.keys.data_keys import DataKeys, Key
from shared.keys.kms import Kms, Unreadable, at
from shared.keys.survey import Survey, look
from shared.task import Context, entrypoint
from shared.wording import counted


@dataclass(frozen=True)
class Params:
    kek: str
    max_age_days: int
    overdue_days: int


def run(ctx: Context, params: Params) -> dict[str, int]:
    kms = at(params.kek)
    most, primary = timedelta(days=params.max_age_days), kms.primary()
    with ctx.read() as connection:
        survey = look(connection, primary)
    locked = [key for key in survey.keys if key.wrapped is not None and not _opens(kms, key)]
    ctx.count("active_key_age_days", (ctx.now - survey.active.created_at).days if survey.active else 0)
    ctx.count("credentials", survey.rows)
    ctx.count("credentials_on_older_keys", survey.on_older_keys)
    ctx.count("keys", len(survey.keys))
    ctx.count("keys_locked", len(locked))
    ctx.count("keys_to_rewrap", len(survey.to_rewrap))
    ctx.count("rotations_started", 0)
    if reason := _due(ctx, survey, most):
        ctx.start("rotate_keys", reason, params={"new_key": "if_due"})
        ctx.count("rotations_started")
    failed = [f"data key {key.id} cannot be unwrapped" for key in locked]
    if survey.active and ctx.now - survey.active.created_at > most + timedelta(days=params.overdue_days):
        failed.append("the active key is overdue: see how rotate_keys ended with `keeper history rotate_keys`")
    if failed:
        raise Partial(failed, ctx.counts)
    return ctx.counts


def _due(ctx: Context, survey: Survey, most: timedelta) -> str:
    """Why keys are to be rotated, or nothing."""
    reasons = []
    if survey.too_old(ctx.now, most):
        reasons.append(
            f"the active data key is older than {counted(most.days, 'day')}"
            if survey.active
            else "there is no data key"
        )
    if survey.on_older_keys:
        reasons.append("credentials are left on older keys")
    if survey.to_rewrap:
        reasons.append("the KEK has a newer primary version")
    return "; ".join(reasons)


def _opens(kms: Kms, key: Key) -> bool:
    try:
        DataKeys(kms).plain(key)
    except Unreadable:
        return False
    return True


main = entrypoint(__file__, run)
