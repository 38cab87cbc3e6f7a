"""Deletes the objects that lifecycle rules cannot tell, and checks that the live rules are the declared ones.

It never deletes another generation than the one it decided on, an object under a hold, one that a row names, or one
exactly at its limit; and nothing at all by a table that names nothing.
"""

from dataclasses import dataclass

from shared.errors import ConfigurationError, Unavailable
from shared.objects import Objects
from shared.storage import sweep
from shared.storage.lifecycle import Deletes
from shared.storage.policies import ObjectPolicy
from shared.storage.sweep import Sweep
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    bucket: str
    lifecycle: tuple[Deletes, ...]
    concurrency: int
    usd_per_gib_month: float
    policies: tuple[ObjectPolicy, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= 10:  # as many connections as the client keeps
            raise ValueError(f"concurrency: expected 1 to 10, got {self.concurrency}")


def run(ctx: Context, params: Params) -> dict[str, int]:
    instead, problems = sweep.by_rules(ctx, _place(ctx, params.bucket), params.lifecycle)
    sweeps = [*instead, *(Sweep(policy, _place(ctx, policy.place)) for policy in params.policies)]
    survey = sweep.look(ctx, sweeps, problems, usd_per_gib_month=params.usd_per_gib_month)
    ctx.authorize(survey.plan)
    return sweep.act(ctx, survey, concurrency=params.concurrency)


def _place(ctx: Context, place: str) -> Objects:
    """A declared bucket, a location, or, as S3_BUCKET is written, any other bucket by its bare name."""
    known = {b.bucket for b in ctx.task.buckets}
    try:
        return ctx.place(place if "/" in place or place in known else f"gs://{place}")
    except ConfigurationError as error:
        raise Unavailable(str(error)) from error


main = entrypoint(__file__, run)
