"""What VACUUM cannot cure, told early: transaction ids running out, dead rows somebody holds on to, bloat.

Who holds on is said by kind and age, never by name or statement.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared.context import Context
from shared.redaction import sqlstate


@dataclass(frozen=True)
class Alarms:
    """When to warn, and when a run must not end well any more. Ages in transactions; 2^31 is the end."""

    warn_age: int
    alarm_age: int
    bloat_share: float
    bloat_mb: int
    held_share: float

    def __post_init__(self) -> None:
        if not 0 < self.warn_age < self.alarm_age < 2_000_000_000:
            raise ValueError(
                f"alarms: expected 0 < warn_age < alarm_age < 2000000000, got {self.warn_age} and {self.alarm_age}"
            )


@dataclass(frozen=True)
class Holder:
    """What keeps dead rows from being removed: its kind, how many transactions back, and since when."""

    kind: str
    age: int
    since: datetime | None


_DATABASES = text("""
select max(greatest(age(datfrozenxid), mxid_age(datminmxid))) as oldest
  from pg_database
""")

# Sessions of others show their horizon to pg_read_all_stats only; slots and prepared transactions to everybody.
_HOLDERS = text("""
select 'session' as kind, age(backend_xmin) as age, xact_start as since
  from pg_stat_activity
 where backend_xmin is not null and pid <> pg_backend_pid() and backend_type = 'client backend'
union all
select 'replica', age(backend_xmin), null from pg_stat_replication where backend_xmin is not null
union all
select 'replication slot', greatest(age(xmin), age(catalog_xmin)), null
  from pg_replication_slots where xmin is not null or catalog_xmin is not null
union all
select 'prepared transaction', age(transaction), prepared
  from pg_prepared_xacts
 order by age desc
 limit 1
""")

_EXTENSION = text("""
select n.nspname
  from pg_extension e
  join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'pgstattuple'
   and exists (
     select 1
       from pg_proc p
      where p.pronamespace = n.oid and p.proname = 'pgstattuple_approx' and has_function_privilege(p.oid, 'execute')
   )
""")


def oldest_age(connection: Connection) -> int:
    """The age of the server's oldest unfrozen transaction, of the database that is worst off."""
    return int(connection.execute(_DATABASES).scalar_one())


def holder(connection: Connection) -> Holder | None:
    """Who holds on to the oldest row version, if anybody this role can see does."""
    row = connection.execute(_HOLDERS).one_or_none()
    return Holder(**row._mapping) if row else None


def attended(connection: Connection) -> bool:
    """Whether autovacuum is on."""
    return str(connection.exec_driver_sql("show autovacuum").scalar_one()) == "on"


def counted(connection: Connection) -> bool:
    """Whether the server counts what tables go through; without, nobody knows what needs vacuuming."""
    return str(connection.exec_driver_sql("show track_counts").scalar_one()) == "on"


def free_share(ctx: Context, oid: int) -> float | None:
    """The share of the table that is free or dead, 0 to 1; None where nobody can say: without the extension
    pgstattuple, or while somebody has the table to himself."""
    try:
        with ctx.read() as connection:
            schema = connection.execute(_EXTENSION).scalar_one_or_none()
            if schema is None:
                return None
            quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
            # It reads only the pages the visibility map does not vouch for, which after VACUUM are few.
            measure = text(
                f"select (approx_free_percent + dead_tuple_percent) / 100 from {quoted}.pgstattuple_approx("  # noqa: S608
                "cast(cast(:oid as bigint) as regclass))"
            )
            return float(connection.execute(measure, {"oid": oid}).scalar_one())
    except DBAPIError as error:
        if sqlstate(error) in ("55P03", "42P01"):
            return None
        raise
