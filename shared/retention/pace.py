"""How much at once, and when not at all: batches grow while nobody else is there and shrink when somebody is.

Alone, a batch is as large as `idle_ms` allows, since nobody waits for it. In company it is as small as `busy_ms`
asks, with a rest as long as itself after it, so that others' statements stay near their usual time. It stands
still while somebody waits for a lock on the table or a replica lags, and gives way to them in the end.
"""

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.context import Context
from shared.wording import counted

_LEAST, _FIRST = 1_000, 4_000
# How much larger a batch may be than the one before it: in company a lucky commit must not double it.
_GROWTH, _BUSY_GROWTH = 8.0, 1.25

# Alone, each batch looks around first; the small ones of company come too often for that.
_LOOK_S = 0.025
# So many writing transactions of others beside our batches are company, even if none is open at the look.
_WRITERS = 2
# Company is believed to stay this long after it was last seen.
_COMPANY_S = 5.0
_WAIT_S = 0.5


class GaveWay(Exception):
    """Others needed the database for longer than our patience; the next run goes on. The message says who."""


@dataclass(frozen=True)
class Limits:
    """The pace as a policy; times in the unit their names say.

    `batch_rows` is the most a transaction deletes. A transaction of others older than `long_transaction_s` keeps
    dead rows from being reused, so deleting goes slowly meanwhile.
    """

    batch_rows: int
    idle_ms: int
    busy_ms: int
    lag_s: int
    long_transaction_s: int
    patience_s: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"pace.{name}: expected at least 1, got {value}")


class Surroundings(NamedTuple):
    """What others do: open transactions, waiters for a lock on the table, the slowest replica, the oldest
    transaction (both in seconds), and whether the table is being vacuumed, analysed or indexed. `written` is how many
    transactions of anybody have written since the server was made."""

    written: int
    transactions: int
    waiters: int
    lag_s: float
    oldest_s: float
    maintained: bool


# Open transactions are counted by their virtualxid locks, which every role may see. Replicas and the age of other
# roles' transactions are visible with pg_read_all_stats only, and count as nothing without it.
_LOOK = text("""
    select count(*) filter (where l.locktype = 'virtualxid' and a.application_name is distinct from :own) as others,
           count(*) filter (where l.locktype = 'relation' and not l.granted) as waiters,
           coalesce(bool_or(l.locktype = 'relation' and l.granted and l.mode = 'ShareUpdateExclusiveLock'), false)
               as maintained,
           coalesce(extract(epoch from max(clock.now - a.xact_start)), 0) as oldest_s,
           coalesce((select extract(epoch from max(replay_lag)) from pg_stat_replication), 0) as lag_s,
           cast(cast(pg_snapshot_xmax(pg_current_snapshot()) as text) as bigint) as written
      from pg_locks l
      left join pg_stat_activity a on a.pid = l.pid
     cross join (select xact_start as now from pg_stat_activity where pid = pg_backend_pid()) clock
     where l.pid <> pg_backend_pid()
       and (l.locktype = 'virtualxid' or l.relation = any(cast(:oids as oid[])))
       and a.application_name is distinct from :heartbeat""")


def look(connection: Connection, oids: list[int], own: str, heartbeat: str) -> Surroundings:
    """What others do to the tables `oids` and around them; sessions called `own` or `heartbeat` are ours."""
    row = connection.execute(_LOOK, {"oids": oids, "own": own, "heartbeat": heartbeat}).one()
    return Surroundings(row.written, row.others, row.waiters, float(row.lag_s), float(row.oldest_s), row.maintained)


class Pace:
    """The pace of one run, over all its tables."""

    def __init__(self, ctx: Context, limits: Limits) -> None:
        self._ctx, self.limits = ctx, limits
        self._own, self._heartbeat = f"{ctx.task.name}/{str(ctx.run_id)[:8]}", f"{ctx.task.name}/heartbeat"
        self._company_until = 0.0
        self._waited = 0.0
        self.anew()

    def anew(self) -> None:
        """Begin with another table, whose rows may be slower to go than the last one's: small."""
        self._size = float(min(_FIRST, self.limits.batch_rows))
        self._looked: float | None = None
        self._written: int | None = None
        self._ours = 0

    @property
    def rows(self) -> int:
        """How many rows the next batch may delete."""
        return max(1, int(self._size))

    @property
    def busy(self) -> bool:
        """Whether others are there."""
        return self._ctx.clock.monotonic() < self._company_until

    def ready(self, oids: list[int]) -> None:
        """Return when the next batch may begin. Raises GaveWay when others needed the tables for too long."""
        clock = self._ctx.clock
        while not self.busy or self._looked is None or clock.monotonic() - self._looked >= _LOOK_S:
            with self._ctx.read() as connection:
                seen = look(connection, oids, self._own, self._heartbeat)
            self._looked = clock.monotonic()
            writers = 0 if self._written is None else seen.written - self._written - self._ours
            self._written, self._ours = seen.written, 0
            if (
                seen.transactions
                or writers >= _WRITERS
                or seen.maintained
                or seen.oldest_s > self.limits.long_transaction_s
            ):
                self._company_until = clock.monotonic() + _COMPANY_S
            why = (
                f"{counted(seen.waiters, 'session')} waiting for a lock on the table"
                if seen.waiters
                else f"a replica is {seen.lag_s:.0f} s behind"
                if seen.lag_s > self.limits.lag_s
                else ""
            )
            if not why:
                return
            if self._waited >= self.limits.patience_s:
                raise GaveWay(why)
            self._ctx.check()
            self._waited += _WAIT_S
            clock.sleep(_WAIT_S)

    def took(self, seconds: float) -> None:
        """A batch of `rows` took so long: grow or shrink towards the target, and rest in company."""
        target = (self.limits.busy_ms if self.busy else self.limits.idle_ms) / 1000
        most = _BUSY_GROWTH if self.busy else _GROWTH
        wanted = most if seconds <= 0 else min(most, max(0.25, target / seconds))
        self._size = min(max(self._size * wanted, _LEAST), self.limits.batch_rows)
        self.rest(seconds)

    def rest(self, seconds: float, *, transactions: int = 1) -> None:
        """So many transactions of ours took so long: rest in company."""
        self._ours += transactions
        if self.busy and seconds > 0:
            self._ctx.clock.sleep(min(seconds, 0.25))

    def smaller(self) -> bool:
        """After a statement that took too long: a quarter of it next time. False: it is as small as it gets."""
        before, self._size = self._size, max(self._size / 4, 1.0)
        return self._size < before
