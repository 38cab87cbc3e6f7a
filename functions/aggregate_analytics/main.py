"""Rolls raw telemetry up into hours and days per account and service.

An hour is counted when it is over, and again when rows came late; a day is made of its hours' mergeable state. It
never averages averages, never calls missing data uptime, and never names an account in what models learn from.
"""

from dataclasses import dataclass
from datetime import timedelta

from shared.analytics.rollup import Rolled, dirty_days, dirty_hours, hour_of, roll_day, roll_hour
from shared.analytics.traffic import window
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    late_hours: int
    least_accounts: int


def run(ctx: Context, params: Params) -> dict[str, int]:
    late = timedelta(hours=params.late_hours)
    with ctx.read() as connection:
        hours = dirty_hours(connection, now=ctx.now, late=late)
    for name in ("hours", "days", "rows", "buckets_written", "buckets_removed", "windows_written"):
        ctx.count(name, 0)
    for done, hour in enumerate(hours):
        with ctx.begin() as connection:
            _count(ctx, "hours", roll_hour(connection, hour, ctx.clock.now()))
            written = window(connection, hour, least_accounts=params.least_accounts, now=ctx.clock.now())
            ctx.count("windows_written", written)
        ctx.progress(done + 1, len(hours))
    since = min([*hours, hour_of(ctx.now) - late])
    with ctx.read() as connection:
        days = dirty_days(connection, now=ctx.now, since=since)
    for day in days:
        with ctx.begin() as connection:
            _count(ctx, "days", roll_day(connection, day, ctx.clock.now()))
    return ctx.counts


def _count(ctx: Context, what: str, rolled: Rolled) -> None:
    ctx.count(what)
    ctx.count("rows" if what == "hours" else "rows_of_days", rolled.requests)
    ctx.count("buckets_written", rolled.written)
    ctx.count("buckets_removed", rolled.removed)


main = entrypoint(__file__, run)
