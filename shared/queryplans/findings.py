"""What is worth a look: in one plan, and in the catalogue. Never a change, always a reason that can be checked."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.queryplans.lexer import bare
from shared.queryplans.structure import Node


@dataclass(frozen=True)
class Thresholds:
    """From which size on (MiB) a table or index is big, how many times off an estimate may be, how long (days) an index
    must have been unused."""

    big_mb: int
    misestimate: float
    unused_days: int


@dataclass(frozen=True)
class Finding:
    """One thing worth a look: its kind, what it is about, and why."""

    kind: str
    subject: str
    why: str

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Size:
    """A table's size, its partitions together: MiB and the planner's count of rows."""

    mb: float
    rows: float


def sizes(connection: Connection) -> dict[str, Size]:
    """Tables by schema.name, partitioned ones as a whole."""
    found = connection.execute(
        text("""
        select n.nspname || '.' || r.relname as name,
               sum(c.relpages) * cast(current_setting('block_size') as float8) / 1048576 as mb,
               cast(sum(greatest(c.reltuples, 0)) as float8) as rows
          from pg_class c
          join pg_class r on r.oid = coalesce(pg_partition_root(c.oid), c.oid)
          join pg_namespace n on n.oid = r.relnamespace
         where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
         group by 1""")
    )
    return {row.name: Size(float(row.mb), float(row.rows)) for row in found}


def of_plan(
    plan: Node, sql: str, *, rows_per_call: float | None, sizes: Mapping[str, Size], thresholds: Thresholds
) -> list[Finding]:
    """What one plan shows. `rows_per_call` is what the statement really gave, on average."""
    found = []
    for node in plan.walk():
        size = sizes.get(node.table or "")
        if node.what == "Seq Scan" and node.conditions and size is not None and size.mb >= thresholds.big_mb:
            found.append(
                Finding(
                    "scan_of_a_big_table",
                    str(node.table),
                    f"reads all {size.mb:.0f} MiB (about {size.rows:.0f} rows) for {node.conditions[0]}",
                )
            )
    words = {token.word for token in bare(sql)}
    # Of a LIMIT or FETCH with a parameter the planner knows nothing, and supposes a tenth.
    if rows_per_call is not None and not words & {"limit", "fetch"}:
        expected = float(_counted(plan).rows)
        low, high = sorted((max(expected, 1.0), max(rows_per_call, 1.0)))
        if high >= 100 and high / low >= thresholds.misestimate:
            why = (
                f"the planner expects {expected:.0f} rows, it gives {rows_per_call:.1f} a call: ANALYZE, or statistics"
            )
            found.append(Finding("misestimate", str(_counted(plan).table or "its result"), why))
    return list(dict.fromkeys(found))


def _counted(plan: Node) -> Node:
    """The node whose rows pg_stat_statements counts: of a change without RETURNING, what it changes."""
    return plan.children[0] if plan.what == "ModifyTable" and plan.rows == 0 and plan.children else plan


_FOREIGN_KEYS = """
select cast(c.conrelid as regclass) as table_name, c.conname, cast(c.confrelid as regclass) as other,
       pg_relation_size(c.conrelid) / 1048576.0 as mb
  from pg_constraint c
  join pg_class t on t.oid = c.conrelid
 where c.contype = 'f' and c.conparentid = 0
   and not exists (select from pg_index i
                    where i.indrelid = c.conrelid and i.indisvalid and i.indpred is null
                      and (cast(i.indkey as int2[]))[0:cardinality(c.conkey) - 1] @> c.conkey
                      and (cast(i.indkey as int2[]))[0:cardinality(c.conkey) - 1] <@ c.conkey)
 order by 4 desc, 2
 limit 50
"""

# An index of a partitioned table is used through its parts; a unique one has work to do without being read.
_UNUSED = """
select cast(s.indexrelid as regclass) as index_name, cast(s.relid as regclass) as table_name,
       pg_relation_size(s.indexrelid) / 1048576.0 as mb, d.stats_reset
  from pg_stat_user_indexes s
  join pg_index i on i.indexrelid = s.indexrelid
  join pg_class c on c.oid = s.indexrelid
  join pg_stat_database d on d.datname = current_database()
 where s.idx_scan = 0 and not i.indisunique and not i.indisexclusion and not c.relispartition
   and pg_relation_size(s.indexrelid) >= :bytes
   and (d.stats_reset is null or d.stats_reset < :since)
   and not exists (select from pg_constraint k where k.conindid = s.indexrelid)
 order by 3 desc, 1
 limit 50
"""

_DUPLICATE = """
select cast(array_agg(cast(i.indexrelid as regclass) order by i.indisprimary desc, i.indisunique desc, i.indexrelid)
            as text[]) as names,
       cast(i.indrelid as regclass) as table_name
  from pg_index i
  join pg_class c on c.oid = i.indexrelid
  join pg_namespace n on n.oid = c.relnamespace
 where n.nspname !~ '^pg_' and i.indisvalid and not c.relispartition
 group by i.indrelid, c.relam, cast(i.indkey as text), cast(i.indclass as text), cast(i.indcollation as text),
          cast(i.indoption as text), cast(i.indpred as text), cast(i.indexprs as text), i.indnkeyatts
having count(*) > 1
 order by 2, 1
 limit 50
"""


def of_catalogue(connection: Connection, thresholds: Thresholds, *, since: object) -> list[Finding]:
    """Foreign keys without an index, indexes nobody read since `since` or that another one makes superfluous."""
    found = [
        Finding(
            "foreign_key_without_index",
            str(row.table_name),
            f"{row.conname}: each delete or change of a key in {row.other} reads the whole table",
        )
        for row in connection.execute(text(_FOREIGN_KEYS))
    ]
    found += [
        Finding("unused_index", row.index_name, f"on {row.table_name}, {row.mb:.0f} MiB, not read once")
        for row in connection.execute(text(_UNUSED), {"bytes": thresholds.big_mb << 20, "since": since})
    ]
    found += [
        Finding("duplicate_index", name, f"on {row.table_name}, the same as {row.names[0]}")
        for row in connection.execute(text(_DUPLICATE))
        for name in row.names[1:]
    ]
    return found
