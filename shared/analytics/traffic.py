"""Platform-wide hours of traffic for models to learn from: no account in them, and none with too few accounts.

Only what applications reported is traffic; pings are not. `failure`: no answer at all; `error`: an answer of 500 and
more; `suspicious`: a known threat, or a bot that asks for what it may not have. Labels are kept.
"""

from datetime import datetime, timedelta

from sqlalchemy import Connection, text

_WIDTH_S = 3600

_ENTROPY = """
    (select -sum(share * log(2.0, share))
       from (select cast(count(*) as numeric) / sum(count(*)) over () as share
               from traffic where {key} is not null group by {key}) s)"""

_UPSERT = """
    with traffic as materialized (
        select account_id, status_code, is_bot, is_threat, asn,
               substring(url from '^[a-z]+://[^/?#]*([^?#]*)') as path
          from endpoints
         where last_tested >= :start
           and last_tested < :until
           and service_id is null),
    seen as (
        select count(distinct account_id) as accounts, count(*) as requests,
               count(*) filter (where status_code >= 500) as errors,
               count(*) filter (where status_code is null) as failures,
               count(*) filter (where is_threat or (is_bot and status_code between 400 and 499)) as suspicious,
               count(*) filter (where is_bot) as bots, count(*) filter (where is_threat) as matches,
               count(*) filter (where status_code = 429) as limited,
               count(*) filter (where status_code = 403) as blocked
          from traffic),
    gone as (
        delete from ml_window
         where window_start = :start
           and width_s = :width
           and (select accounts from seen) < :least)
    insert into ml_window as w
           (window_start, width_s, accounts, requests, error_ratio, failure_ratio, suspicious_ratio, bot_ratio,
            indicator_matches, asn_entropy, path_entropy, rate_change, rate_limited, blocked, incidents, created_at)
    select :start, :width, accounts, requests, cast(errors as double precision) / requests,
           cast(failures as double precision) / requests, cast(suspicious as double precision) / requests,
           cast(bots as double precision) / requests, matches, cast({asn_entropy} as double precision),
           cast({path_entropy} as double precision),
           (select cast(seen.requests as double precision) / b.requests from ml_window b
             where b.window_start = :before and b.width_s = :width),
           limited, blocked,
           (select count(*) from incident i
             where i.started_at < :until and (i.resolved_at is null or i.resolved_at > :start)),
           :now
      from seen
     where accounts >= :least
        on conflict (window_start, width_s) do update
       set accounts = excluded.accounts, requests = excluded.requests, error_ratio = excluded.error_ratio,
           failure_ratio = excluded.failure_ratio, suspicious_ratio = excluded.suspicious_ratio,
           bot_ratio = excluded.bot_ratio, indicator_matches = excluded.indicator_matches,
           asn_entropy = excluded.asn_entropy, path_entropy = excluded.path_entropy,
           rate_change = excluded.rate_change, rate_limited = excluded.rate_limited, blocked = excluded.blocked,
           incidents = excluded.incidents
     where (w.accounts, w.requests, w.error_ratio, w.failure_ratio, w.suspicious_ratio, w.bot_ratio,
            w.indicator_matches, w.asn_entropy, w.path_entropy, w.rate_change, w.rate_limited, w.blocked, w.incidents)
           is distinct from
           (excluded.accounts, excluded.requests, excluded.error_ratio, excluded.failure_ratio,
            excluded.suspicious_ratio, excluded.bot_ratio, excluded.indicator_matches, excluded.asn_entropy,
            excluded.path_entropy, excluded.rate_change, excluded.rate_limited, excluded.blocked, excluded.incidents)"""
# Parts of one statement, all of them constants of this module.
_ENTROPIES = {"asn_entropy": _ENTROPY.format(key="asn"), "path_entropy": _ENTROPY.format(key="path")}
_WINDOW = text(_UPSERT.format(**_ENTROPIES))  # nosemgrep: sql-from-strings


def window(connection: Connection, start: datetime, *, least_accounts: int, now: datetime) -> int:
    """Write the window of the hour that begins at `start`, or take it away where too few accounts are in it; 0 or 1."""
    width = timedelta(seconds=_WIDTH_S)
    found = connection.execute(
        _WINDOW,
        {
            "start": start,
            "until": start + width,
            "before": start - width,
            "width": _WIDTH_S,
            "least": least_accounts,
            "now": now,
        },
    )
    return int(found.rowcount)
