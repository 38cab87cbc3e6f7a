"""Hours of raw telemetry into aggregated_analytics, days out of hours: exact, mergeable, the same when done again.

The mergeable state of a bucket is its `sketch`: how many rows answered, how many had a time, the sum of the times in
microseconds, and the times themselves; of more than a thousand of them how often each came, to three significant
digits. Sums are integers, so that no order of adding changes them, rounding twice is rounding once, and percentiles are
those of the times as listed (`percentile_disc`): a day made of its hours equals a day counted from raw rows, to the
last bit. What has no rows has no bucket.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

# The hours whose raw rows and rollups disagree in number: new hours, late rows, rows that were erased. A row whose
# service is gone has nowhere to go: its rollups went with the service. A join, since several processes share one.
_DIRTY_HOURS = text("""
    select coalesce(r.hour, a.hour) as hour
      from (select date_bin('1 hour', e.last_tested, cast(:since as timestamptz)) as hour, count(*) as n
              from endpoints e
              left join monitored_service s on s.id = e.service_id
             where e.last_tested >= :since
               and e.last_tested < :until
               and (e.service_id is null or s.id is not null)
             group by 1) r
      full join (select bucket_start as hour, sum(requests) as n
                   from aggregated_analytics
                  where granularity = 'hour'
                    and bucket_start >= :since
                    and bucket_start < :until
                  group by 1) a on a.hour = r.hour
     where r.n is distinct from a.n
     order by 1""")

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

# A bucket of more times than these keeps them to three digits, each once: at most some 8,000, however many rows came.
_EXACT = 1000

# What gathering an hour's times takes; with the usual 4 MB they would go by way of files.
_MEMORY = text("set local work_mem = '64MB'")

# The rows of an hour by bucket. Their times are put in order bucket by bucket later: all in one order takes twice as
# long. `offset 0` keeps the planner from working a row's microseconds out again at every use.
_ROWS = f"""
    select account_id, service_id, count(*) as requests, count(*) filter (where failed) as errors,
           count(*) filter (where is_active) as active, count(us) as timed, sum(us) as us,
           array_agg(us) filter (where us is not null) as times
      from (select e.account_id, e.service_id, e.is_active,
                   not e.is_active or e.error is not null or coalesce(e.status_code >= 500, false) as failed,
                   case when e.response_time between 0 and {_LONGEST_MS}
                        then cast(round(e.response_time * 1000) as bigint) end as us
              from endpoints e
             where e.last_tested >= :start
               and e.last_tested < :until
            offset 0) r
     group by account_id, service_id"""  # noqa: S608

# The hours of a day by bucket. A sketch is `2|active|timed|sum of µs|times`, each of these `time` or `time:count`.
_HOURS = """
    select account_id, service_id, sum(requests) as requests, sum(errors) as errors,
           sum(cast(part[2] as bigint)) as active, sum(cast(part[3] as bigint)) as timed,
           sum(cast(part[4] as bigint)) as us, string_to_array(string_agg(nullif(part[5], ''), ','), ',') as times
      from (select account_id, service_id, requests, errors, string_to_array(convert_from(sketch, 'UTF8'), '|') as part
              from aggregated_analytics
             where granularity = 'hour'
               and bucket_start >= :start
               and bucket_start < :until
            offset 0) h
     group by account_id, service_id"""

# A bucket's times in order, how many rows have at most each of them (null: as many as its place says), and as text.
_EACH_ONCE = """
    select array_agg(q order by q) as times, array_agg(cast(upto as bigint) order by q) as upto,
           string_agg(q || ':' || n, ',' order by q) as listed
      from (select q, n, sum(n) over (order by q) as upto from ({bins}) bins) b"""
_TIMES_OF_ROWS = f"""
    select times, cast(null as bigint[]) as upto, array_to_string(times, ',') as listed
      from (select array_agg(us order by us) as times from unnest(c.times) us) exact
     where c.timed <= {_EXACT}
     union all
    select *
      from ({_EACH_ONCE.format(bins=f"select {_ROUNDED} as q, count(*) as n from unnest(c.times) us group by 1")}) many
     where c.timed > {_EXACT}"""  # noqa: S608
_BINS_OF_HOURS = f"""
    select case when c.timed > {_EXACT} then {_ROUNDED} else us end as q, sum(n) as n
      from (select cast(split_part(each, ':', 1) as bigint) as us,
                   cast(coalesce(nullif(split_part(each, ':', 2), ''), '1') as bigint) as n
              from unnest(c.times) each
            offset 0) e
     group by 1"""  # noqa: S608
_TIMES_OF_HOURS = _EACH_ONCE.format(bins=_BINS_OF_HOURS)

_ROLL = """
    with counted as materialized ({counted}),
    ordered as (
        select account_id, service_id, requests, errors, active, timed, coalesce(us, 0) as us, t.*
          from counted c
         cross join lateral ({times}) t
         where c.service_id is null
            or exists (select from monitored_service s where s.id = c.service_id)
        offset 0),
    rolled as (
        select account_id, service_id, cast(requests as bigint) as requests, cast(errors as bigint) as errors,
               cast(us as double precision) / nullif(timed, 0) / 1000 as average_ms,
               {percentiles},
               cast(errors as double precision) / requests as error_rate,
               case when service_id is not null then cast(active as double precision) / requests end as uptime,
               convert_to(concat_ws('|', '2', active, timed, us, coalesce(listed, '')), 'UTF8') as sketch
          from ordered),
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
    f"cast(times[case when upto is null then {rank} else width_bucket({rank} - 1, upto) + 1 end] as double precision)"
    f" / 1000 as p{p}_ms"
    for p in (50, 95, 99)
    for rank in [f"cast(ceil(timed * {p} / 100.0) as bigint)"]
)
# Parts of one statement, all of them constants of this module.
_ROLL_HOUR, _ROLL_DAY = (
    text(_ROLL.format(counted=counted, times=times, percentiles=_PERCENTILES))  # nosemgrep: sql-from-strings
    for counted, times in ((_ROWS, _TIMES_OF_ROWS), (_HOURS, _TIMES_OF_HOURS))
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
    connection.execute(_MEMORY)
    row = connection.execute(statement, binds).one()
    return Rolled(row.written, row.removed, int(row.requests))
