"""Hours of raw telemetry into aggregated_analytics, days out of hours: exact, mergeable, the same when done again.

The mergeable state of a bucket is its `sketch`: how many rows answered, how many had a time, the sum of the times in
microseconds, and how often each time came, to three significant digits. Sums are integers, so that no order of adding
changes them, and percentiles are those of the times so rounded (`percentile_disc`): a day made of its hours equals a
day counted from raw rows, to the last bit. What has no rows has no bucket.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

# A row whose service is gone has nowhere to go: its rollups went with the service.
_KEPT = "(e.service_id is null or exists (select from monitored_service s where s.id = e.service_id))"

# The hours whose raw rows and rollups disagree in number: new hours, late rows, rows that were erased.
_DIRTY_HOURS = text(f"""
    select coalesce(r.hour, a.hour) as hour
      from (select date_trunc('hour', e.last_tested) as hour, count(*) as n
              from endpoints e
             where e.last_tested >= :since
               and e.last_tested < :until
               and {_KEPT}
             group by 1) r
      full join (select bucket_start as hour, sum(requests) as n
                   from aggregated_analytics
                  where granularity = 'hour'
                    and bucket_start >= :since
                    and bucket_start < :until
                  group by 1) a on a.hour = r.hour
     where r.n is distinct from a.n
     order by 1""")  # noqa: S608 - a constant of ours

_DIRTY_DAYS = text("""
    select coalesce(h.day, d.day) as day
      from (select date_trunc('day', bucket_start) as day, sum(requests) as n, max(updated_at) as at
              from aggregated_analytics
             where granularity = 'hour'
               and bucket_start >= :since
               and bucket_start < :until
             group by 1) h
      full join (select bucket_start as day, sum(requests) as n, max(updated_at) as at
                   from aggregated_analytics
                  where granularity = 'day'
                    and bucket_start >= :since
                    and bucket_start < :until
                  group by 1) d on d.day = h.day
     where h.n is distinct from d.n
        or h.at > d.at
     order by 1""")

_WATERMARK = text("select max(bucket_start) from aggregated_analytics where granularity = 'hour'")
_OLDEST = text("select min(last_tested) from endpoints")

# Microseconds to three significant digits, in integers: a logarithm costs more than all the rest.
_ROUNDED = (
    "case when us < 1000 then us "
    + " ".join(
        f"when us < {10 ** (n + 4)} then (us + {5 * 10**n}) / {10 ** (n + 1)} * {10 ** (n + 1)}" for n in range(9)
    )
    + " else us / 10000000000 * 10000000000 end"
)

# A day. What is longer, negative, infinite or no number was not measured by a clock: the row counts, without a time.
_LONGEST_MS = 86_400_000

# Rows of an hour as bins: how many rows had which time, and what else they were. `offset 0` keeps the planner from
# working a row's microseconds out again at every step of the rounding.
_BINS_OF_ROWS = f"""
    select account_id, service_id, {_ROUNDED} as q, count(*) as n, cast(sum(us) as bigint) as us,
           count(*) filter (where failed) as errors, count(*) filter (where is_active) as active
      from (select e.account_id, e.service_id, e.is_active,
                   not e.is_active or e.error is not null or coalesce(e.status_code >= 500, false) as failed,
                   case when e.response_time between 0 and {_LONGEST_MS}
                        then cast(round(e.response_time * 1000) as bigint) end as us
              from endpoints e
             where e.last_tested >= :start
               and e.last_tested < :until
               and {_KEPT}
            offset 0) r
     group by 1, 2, 3"""  # noqa: S608

# Hours of a day as bins again. A sketch is `1|active|timed|sum of µs|time:count,…`.
_BINS_OF_HOURS = """
    select h.account_id, h.service_id, b.q, cast(sum(b.n) as bigint) as n, cast(sum(b.us) as bigint) as us,
           cast(sum(b.errors) as bigint) as errors, cast(sum(b.active) as bigint) as active
      from (select account_id, service_id, requests, errors, string_to_array(convert_from(sketch, 'UTF8'), '|') as part
              from aggregated_analytics
             where granularity = 'hour'
               and bucket_start >= :start
               and bucket_start < :until) h
     cross join lateral (
           select cast(split_part(pair, ':', 1) as bigint) as q, cast(split_part(pair, ':', 2) as bigint) as n,
                  0 as us, 0 as errors, 0 as active
             from unnest(string_to_array(h.part[5], ',')) as pair
            union all
           select null, h.requests - cast(h.part[3] as bigint), cast(h.part[4] as bigint), h.errors,
                  cast(h.part[2] as bigint)) b
     group by 1, 2, 3"""

_ROLL = """
    with bins as ({bins}),
    ranked as (
        select bins.*, sum(n) over (partition by account_id, service_id order by q) as upto from bins),
    counted as (
        select account_id, service_id, sum(n) as requests, sum(errors) as errors, sum(active) as active,
               coalesce(sum(us), 0) as us, coalesce(sum(n) filter (where q is not null), 0) as timed,
               array_agg(q order by q) filter (where q is not null) as times,
               array_agg(cast(upto as bigint) order by q) filter (where q is not null) as upto,
               coalesce(string_agg(q || ':' || n, ',' order by q) filter (where q is not null), '') as listed
          from ranked
         group by account_id, service_id),
    rolled as (
        select account_id, service_id, cast(requests as bigint) as requests, cast(errors as bigint) as errors,
               cast(us as double precision) / nullif(timed, 0) / 1000 as average_ms,
               {percentiles},
               cast(errors as double precision) / requests as error_rate,
               case when service_id is not null then cast(active as double precision) / requests end as uptime,
               convert_to(concat_ws('|', '1', active, timed, us, listed), 'UTF8') as sketch
          from counted),
    gone as (
        delete from aggregated_analytics a
         where a.granularity = :granularity
           and a.bucket_start = :start
           and not exists (select from rolled r where r.account_id = a.account_id
                              and r.service_id is not distinct from a.service_id)
        returning 1),
    written as (
        insert into aggregated_analytics as a
               (account_id, service_id, granularity, bucket_start, requests, errors, average_ms, p50_ms, p95_ms,
                p99_ms, error_rate, uptime, sketch, updated_at)
        select account_id, service_id, :granularity, :start, requests, errors, average_ms, p50_ms, p95_ms, p99_ms,
               error_rate, uptime, sketch, :now
          from rolled
            on conflict (account_id, service_id, granularity, bucket_start) do update
           set requests = excluded.requests, errors = excluded.errors, average_ms = excluded.average_ms,
               p50_ms = excluded.p50_ms, p95_ms = excluded.p95_ms, p99_ms = excluded.p99_ms,
               error_rate = excluded.error_rate, uptime = excluded.uptime, sketch = excluded.sketch,
               updated_at = excluded.updated_at
         where (a.requests, a.errors, a.sketch) is distinct from (excluded.requests, excluded.errors, excluded.sketch)
        returning 1)
    select (select count(*) from written) as written, (select count(*) from gone) as removed,
           (select coalesce(sum(requests), 0) from rolled) as requests"""

# The first time that at least p percent of the rows do not exceed: `width_bucket` counts the times still below it.
_PERCENTILES = ", ".join(
    f"cast(times[width_bucket(cast(ceil(timed * {p} / 100.0) as bigint) - 1, upto) + 1] as double precision) / 1000"
    f" as p{p}_ms"
    for p in (50, 95, 99)
)
# Parts of one statement, all of them constants of this module.
_ROLL_HOUR, _ROLL_DAY = (
    text(_ROLL.format(bins=bins, percentiles=_PERCENTILES))  # nosemgrep: sql-from-strings
    for bins in (_BINS_OF_ROWS, _BINS_OF_HOURS)
)


@dataclass(frozen=True)
class Rolled:
    """What one bucket came to: buckets written anew or changed, buckets removed, rows in all."""

    written: int
    removed: int
    requests: int


def hour_of(moment: datetime) -> datetime:
    """The hour of UTC that `moment` is in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def dirty_hours(connection: Connection, *, now: datetime, late: timedelta) -> Sequence[datetime]:
    """The whole hours before `now` whose rollups do not hold all their rows, oldest first.

    Looked for from the watermark (the newest hour rolled up) on, and at least `late` back; the first time from the
    oldest raw row. What came later than that stays out, so `late` is to be shorter than raw rows are kept.
    """
    until = hour_of(now)
    since = connection.execute(_WATERMARK).scalar_one() or connection.execute(_OLDEST).scalar_one() or until
    since = min(hour_of(since), until - late)
    return connection.execute(_DIRTY_HOURS, {"since": since, "until": until}).scalars().all()


def dirty_days(connection: Connection, *, now: datetime, since: datetime) -> Sequence[datetime]:
    """The whole days of UTC since `since` that do not follow from their hours, oldest first."""
    first, until = (m.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) for m in (since, now))
    return connection.execute(_DIRTY_DAYS, {"since": first, "until": until}).scalars().all()


def roll_hour(connection: Connection, start: datetime, now: datetime) -> Rolled:
    """Make the buckets of one hour from its raw rows; what is right already is not written."""
    return _roll(connection, "hour", start, HOUR, now)


def roll_day(connection: Connection, start: datetime, now: datetime) -> Rolled:
    """Make the buckets of one day from its hours."""
    return _roll(connection, "day", start, DAY, now)


def _roll(connection: Connection, granularity: str, start: datetime, width: timedelta, now: datetime) -> Rolled:
    statement = _ROLL_HOUR if granularity == "hour" else _ROLL_DAY
    binds = {"granularity": granularity, "start": start, "until": start + width, "now": now}
    row = connection.execute(statement, binds).one()
    return Rolled(row.written, row.removed, int(row.requests))
