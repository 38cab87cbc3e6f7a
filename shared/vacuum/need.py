"""What each table needs, and how badly: dead rows, rows never frozen, transaction ids running out, stale statistics.

A need is a ratio: 1.0 is the threshold of `Limits`, and the table with the largest goes first. The thresholds are
autovacuum's kind (a number of rows and a share of the table), lower, so that a nightly pass finds what is about to
come due by day. https://www.postgresql.org/docs/current/routine-vacuuming.html
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class Limits:
    """When a table is due. A row threshold is `rows` and the named share of the table's rows; ages in transactions."""

    rows: int
    dead_share: float
    inserted_share: float
    changed_share: float
    freeze_age: int
    multixact_age: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (name.endswith("age") and value < 1):
                raise ValueError(f"need.{name}: expected a positive number, got {value}")


@dataclass(frozen=True)
class Table:
    """One table as the server's statistics have it. `bytes` with its TOAST table; `filled`: its file is not empty;
    `busy`: somebody vacuums, analyses or indexes it; `unattended`: autovacuum leaves it alone."""

    oid: int
    schema: str
    name: str
    partitioned: bool
    catalogue: bool
    bytes: int
    filled: bool
    rows: int
    dead: int
    inserted: int
    changed: int
    age: int
    multixact_age: int
    analyzed_at: datetime | None
    leaves_analyzed_at: datetime | None
    vacuums: int
    analyzes: int
    unattended: bool
    may: bool
    busy: bool

    @property
    def label(self) -> str:
        """`schema.table`, as people write it."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Need:
    """What a table is due for, how badly, and why in words."""

    table: Table
    vacuum: bool
    analyze: bool
    freeze: bool
    score: float
    why: str


# Up to PostgreSQL 17 analysing a partitioned table analyses its partitions after it: those are no news.
_SAME_TURN = timedelta(hours=1)


def need_of(table: Table, limits: Limits) -> Need | None:
    """What `table` is due for by `limits`, or None."""
    if table.partitioned:  # holds no rows: only the statistics over all its partitions, which autovacuum never makes
        since = table.leaves_analyzed_at
        if since is None or (table.analyzed_at is not None and since - table.analyzed_at <= _SAME_TURN):
            return None
        return Need(table, vacuum=False, analyze=True, freeze=False, score=1.0, why="partitions analysed since")
    dead = table.dead / (limits.rows + limits.dead_share * table.rows or 1)
    inserted = table.inserted / (limits.rows + limits.inserted_share * table.rows or 1)
    frozen = max(table.age / limits.freeze_age, table.multixact_age / limits.multixact_age)
    changed = table.changed / (limits.rows + limits.changed_share * table.rows or 1)
    unknown = table.analyzed_at is None and table.filled  # also after a crash, which empties the statistics
    if table.catalogue and table.name == "pg_statistic":  # ANALYZE leaves out where its own results are
        changed, unknown = 0.0, False
    found = [
        (dead, f"{table.dead} dead rows"),
        (inserted, f"{table.inserted} rows inserted"),
        (frozen, f"oldest transaction {table.age} ago"),
        (changed, f"{table.changed} rows changed"),
    ]
    due = [why for score, why in found if score >= 1] + ["never analysed"] * unknown
    if not due:
        return None
    return Need(
        table,
        vacuum=max(dead, inserted, frozen) >= 1,
        analyze=changed >= 1 or unknown,
        freeze=frozen >= 1,
        score=max(dead, inserted, frozen, changed, float(unknown)),
        why=", ".join(due),
    )


def ranked(tables: list[Table], limits: Limits) -> list[Need]:
    """What is due, worst first; among equals the smaller first, so that much is done before a deadline."""
    needs = [need for table in tables if (need := need_of(table, limits))]
    return sorted(needs, key=lambda n: (-n.score, n.table.bytes, n.table.label))


# Of catalogues only those of this database. Who is at a table is seen by its lock, which takes no right to see:
# VACUUM, ANALYZE, CREATE INDEX CONCURRENTLY and autovacuum hold SHARE UPDATE EXCLUSIVE. MAINTAIN came with 17;
# before, VACUUM is the owner's and the database owner's, and for everybody else a warning that changes nothing.
# A table's size cannot be asked under somebody's exclusive lock: there the last known one stands.
_LOOK = text("""
with locks as materialized (
  select k.relation as oid, k.mode
    from pg_locks k
   where k.locktype = 'relation'
     and k.granted
     and k.database = (select d.oid from pg_database d where d.datname = current_database())
     and k.pid <> pg_backend_pid()
)
select cast(c.oid as bigint) as oid, n.nspname as schema, c.relname as name,
       c.relkind = 'p' as partitioned, n.nspname = 'pg_catalog' as catalogue,
       case when c.relkind = 'p' then 0
            when x.oid is not null
            then (c.relpages + coalesce(t.relpages, 0)) * cast(current_setting('block_size') as bigint)
            else pg_table_size(c.oid) end as bytes,
       case when c.relkind = 'p' then false
            when x.oid is not null then c.relpages > 0
            else pg_relation_size(c.oid) > 0 end as filled,
       cast(greatest(c.reltuples, s.n_live_tup, 0) as bigint) as rows,
       coalesce(s.n_dead_tup, 0) as dead,
       coalesce(s.n_ins_since_vacuum, 0) as inserted,
       coalesce(s.n_mod_since_analyze, 0) as changed,
       case when c.relkind = 'p' then 0 else greatest(age(c.relfrozenxid), age(t.relfrozenxid)) end as age,
       case when c.relkind = 'p' then 0 else greatest(mxid_age(c.relminmxid), mxid_age(t.relminmxid)) end
         as multixact_age,
       greatest(s.last_analyze, s.last_autoanalyze) as analyzed_at,
       case when c.relkind = 'p' then (
         with recursive below as (
           select i.inhrelid from pg_inherits i where i.inhparent = c.oid
           union all
           select i.inhrelid from pg_inherits i join below b on b.inhrelid = i.inhparent
         )
         select max(greatest(l.last_analyze, l.last_autoanalyze))
           from below b
           join pg_class f on f.oid = b.inhrelid and f.relkind = 'r'
           join pg_stat_all_tables l on l.relid = f.oid
       ) end as leaves_analyzed_at,
       coalesce(s.vacuum_count, 0) as vacuums,
       coalesce(s.analyze_count, 0) as analyzes,
       coalesce('autovacuum_enabled=false' = any (c.reloptions) or 'autovacuum_enabled=off' = any (c.reloptions), false)
         as unattended,
       pg_has_role(c.relowner, 'usage')
         or pg_has_role((select d.datdba from pg_database d where d.datname = current_database()), 'usage')
         or case when cast(current_setting('server_version_num') as int) >= 170000
                 then has_table_privilege(c.oid, 'MAINTAIN') else false end
         as may,
       exists (select 1 from locks k where k.oid = c.oid and k.mode = 'ShareUpdateExclusiveLock') as busy
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  left join pg_class t on t.oid = c.reltoastrelid
  left join pg_stat_all_tables s on s.relid = c.oid
  left join (select distinct oid from locks where mode = 'AccessExclusiveLock') x on x.oid in (c.oid, t.oid)
 where c.relkind in ('r', 'm', 'p')
   and c.relpersistence <> 't'
   and not c.relisshared
   and n.nspname not in ('information_schema', 'pg_toast')
   and (cast(:only as bigint) is null or c.oid = cast(cast(:only as bigint) as oid))
 order by n.nspname, c.relname
""")


def look(connection: Connection, *, only: int | None = None) -> list[Table]:
    """Every permanent table of the database but shared catalogues, or the one with the oid `only` if it is there.

    A catalogue this role may not maintain is left out: autovacuum looks after it, and no grant is missing.
    """
    found = [Table(**row._mapping) for row in connection.execute(_LOOK, {"only": only})]
    return [table for table in found if table.may or not table.catalogue]
