"""Services shared out over the indexes of a job: each makes the rows of its own, the last to come has them all.

An index streams its accounts, some at a time, and leaves what it made at `sla/shares/<run key>/<index>.npz`. Whoever
finds all of them there, and is the first to say so, puts them together in an order of their own, so that it makes no
difference how many there were. A share names services by number and no account; it is taken away after training.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import numpy as np
from sqlalchemy import Connection, text

from shared.context import Context
from shared.models.dataset import Floats
from shared.models.services import Days
from shared.objects import Exists, Objects

_SHARES = "sla/shares"
_AT_ONCE = 500  # services, whose days are some tens of megabytes
_BATCH = 20_000
_LEFT_OVER = timedelta(days=1)

_SERVICES = text("select count(*) from monitored_service")

# Each account falls to one index by its hash, and is learned from or left out by the same: never a part of it.
_ACCOUNTS = text("""
    select account_id, count(*) as services,
           (hashtext(account_id) & 2147483647) < cast(:share as double precision) * 2147483648 as learned
      from monitored_service
     where mod(hashtext(account_id) & 2147483647, cast(:shards as integer)) = :shard
     group by account_id
     order by account_id""")

_DAYS = text("""
    select a.service_id, cast(extract(epoch from a.bucket_start) as double precision) as start, a.uptime, a.error_rate,
           a.average_ms, cast(s.sla_target as double precision) as target,
           cast(1 as double precision) / count(*) over (partition by a.account_id, a.bucket_start) as weight
      from aggregated_analytics a
      join monitored_service s on s.id = a.service_id and s.account_id = a.account_id
     where a.account_id = any(cast(:accounts as text[]))
       and a.granularity = 'day'
       and a.bucket_start >= :since
       and a.bucket_start < :until
       and a.uptime is not null
     order by a.service_id, a.bucket_start""")


def yesterday(ctx: Context) -> datetime:
    """The start of the newest day that is whole."""
    return ctx.now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)


def gathered(ctx: Context, place: Objects, *, days: int, most_rows: int) -> Days | None:
    """What all indexes made of the last `days` days, in the one index that goes on with it; None in the others.

    Of more than `most_rows` rows whole accounts are left out, but for their newest day, which is forecast from.
    """
    folder = f"{_SHARES}/{ctx.run_key}"
    own = Days.together(list(_made(ctx, days=days, most_rows=most_rows)))
    with ctx.begin():  # a plan ends here, and an index whose lease is gone
        ctx.count("services", len(np.unique(own.service)))
    _leave(place, f"{folder}/{ctx.shard}.npz", own.save())
    names = [one.name for one in place.list(f"{folder}/") if one.name.endswith(".npz")]
    me = str(ctx.shard).encode()
    if len(names) < ctx.task.run.tasks or _leave(place, f"{folder}/merged-by", me) != me:
        return None
    return Days.together([Days.load(_read(place, name)) for name in names])


def clear(ctx: Context, place: Objects) -> None:
    """Take away this run's shares, and what a run that was killed has left."""
    for one in list(place.list(f"{_SHARES}/")):
        if one.name.startswith(f"{_SHARES}/{ctx.run_key}/") or one.created < ctx.now - _LEFT_OVER:
            place.delete(one.name, generation=one.generation)


def _made(ctx: Context, *, days: int, most_rows: int) -> Iterator[Days]:
    newest = yesterday(ctx)
    yield Days.of(np.empty((0, 7)))
    with ctx.read() as connection:
        services = connection.execute(_SERVICES).scalar_one()
        share = min(1.0, most_rows / max(1, services * days))
        binds = {"share": share, "shards": ctx.task.run.tasks, "shard": ctx.shard}
        accounts = connection.execute(_ACCOUNTS, binds).all()
        span = {"since": newest - timedelta(days=days - 1), "until": newest + timedelta(days=1)}
        for some in _batches([(row.account_id, row.services) for row in accounts if row.learned]):
            ctx.check()
            yield Days.of(_table(connection, some, span))
        for some in _batches([(row.account_id, row.services) for row in accounts if not row.learned]):
            ctx.check()
            made = Days.of(_table(connection, some, span))
            yield made[made.start == int(newest.timestamp())]


def _batches(accounts: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    """Accounts that have `_AT_ONCE` services together, or one that has more."""
    held: list[str] = []
    services = 0
    for account, its in accounts:
        if held and services + its > _AT_ONCE:
            yield held
            held, services = [], 0
        held.append(account)
        services += its
    if held:
        yield held


def _table(connection: Connection, accounts: Sequence[str], span: dict[str, datetime]) -> Floats:
    rows = connection.execute(_DAYS, {"accounts": list(accounts), **span}, execution_options={"yield_per": _BATCH})
    parts = [np.array([tuple(row) for row in part], dtype=np.float64) for part in rows.partitions()]
    return np.concatenate([np.empty((0, 7)), *parts])


def _leave(place: Objects, name: str, content: bytes) -> bytes:
    """Create an object; what is there then, which an attempt or an index before this one may have left."""
    try:
        with place.create(name) as stream:
            stream.write(content)
    except Exists:
        return _read(place, name)
    return content


def _read(place: Objects, name: str) -> bytes:
    with place.open(name) as stream:
        return stream.read()
