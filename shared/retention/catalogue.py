"""What the live catalogue says of a table: columns, rights, key, partitions, references, triggers."""

import json
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from shared.retention.rules import dotted, quoted


class Relation(NamedTuple):
    """A table as it is. Names are SQL (`schema.table`, quoted where they must be); `names` is what holds may say."""

    oid: int
    name: str
    names: frozenset[str]
    kind: str  # pg_class.relkind: r a table, p a partitioned one, others are nothing to delete from
    columns: dict[str, str]  # name -> SQL type
    key: tuple[str, ...]  # the primary key's columns
    rls: bool  # row-level security applies to this role
    may_own: bool  # this role may do what the owner may
    bytes: int
    rows: int  # the planner's estimate; -1 was never analysed


class Leaf(NamedTuple):
    """One table that holds rows itself: the table, or one of its partitions, which may be deep below it."""

    oid: int
    name: str
    names: frozenset[str]
    kind: str
    branch: int  # oid of the direct child of the table it lies in; the table's own where it has none
    may_delete: bool  # and read, and lock rows, for which PostgreSQL asks the right to update
    bytes: int
    rows: int


class Child(NamedTuple):
    """A direct partition and its bounds as the catalogue shows them."""

    oid: int
    name: str
    bounds: str
    may_own: bool
    pending: bool  # a concurrent detach was begun and not finished


class Reference(NamedTuple):
    """A foreign key that points at the table. `action` is pg_constraint.confdeltype."""

    constraint: str
    child: str
    child_oid: int
    child_columns: tuple[str, ...]
    columns: tuple[str, ...]
    action: str  # a no action, r restrict, c cascade, n set null, d set default
    indexed: bool
    may_delete: bool
    rows: int

    def join(self, parent: str, child: str) -> str:
        """The condition under which row `child` points at row `parent`."""
        pairs = zip(self.child_columns, self.columns, strict=True)
        return " and ".join(f"{child}.{quoted(c)} = {parent}.{quoted(p)}" for c, p in pairs)


_RELATION = text("""
    select c.oid, n.nspname as schema, c.relname as name, c.relkind as kind, row_security_active(c.oid) as rls,
           pg_has_role(c.relowner, 'usage') as may_own, pg_table_is_visible(c.oid) as visible,
           has_schema_privilege(n.oid, 'usage') as reachable,
           (select array_agg(a.attname order by k.place)
              from pg_index i
             cross join unnest(cast(i.indkey as smallint[])) with ordinality k(number, place)
              join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
             where i.indrelid = c.oid and i.indisprimary) as key
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid = to_regclass(:table)""")

_COLUMNS = text("""
    select attname, format_type(case when t.typtype = 'd' then t.typbasetype else a.atttypid end, null) as type
      from pg_attribute a join pg_type t on t.oid = a.atttypid
     where attrelid = :oid and attnum > 0 and not attisdropped
     order by attnum""")

_LEAVES = text("""
    with recursive below as (
        select c.oid, c.oid as branch from pg_class c where c.oid = :oid
         union all
        select i.inhrelid, case when i.inhparent = :oid then i.inhrelid else b.branch end
          from below b join pg_inherits i on i.inhparent = b.oid
          join pg_class p on p.oid = i.inhrelid and p.relispartition
         where not i.inhdetachpending)
    select c.oid, b.branch, n.nspname as schema, c.relname as name, c.relkind as kind,
           pg_table_is_visible(c.oid) as visible,
           has_schema_privilege(n.oid, 'usage')
             and has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'delete')
             and has_any_column_privilege(c.oid, 'update') as may_delete,
           case when c.relkind = 'r' then pg_table_size(c.oid) else 0 end as bytes,
           cast(c.reltuples as bigint) as rows
      from below b join pg_class c on c.oid = b.oid join pg_namespace n on n.oid = c.relnamespace
     where c.relkind <> 'p'
     order by pg_get_expr(c.relpartbound, c.oid), c.relname""")

_CHILDREN = text("""
    select c.oid, n.nspname as schema, c.relname as name, pg_get_expr(c.relpartbound, c.oid) as bounds,
           pg_has_role(c.relowner, 'usage') as may_own, i.inhdetachpending as pending
      from pg_inherits i join pg_class c on c.oid = i.inhrelid and c.relispartition
      join pg_namespace n on n.oid = c.relnamespace
     where i.inhparent = :oid
     order by 4, 3""")

_REFERENCES = text("""
    select k.conname, n.nspname as schema, c.relname as name, c.oid, k.confdeltype as action,
           cast(c.reltuples as bigint) as rows,
           has_schema_privilege(n.oid, 'usage')
             and has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'delete') as may_delete,
           (select array_agg(a.attname order by place)
              from unnest(k.conkey) with ordinality x(number, place)
              join pg_attribute a on a.attrelid = k.conrelid and a.attnum = x.number) as child_columns,
           (select array_agg(a.attname order by place)
              from unnest(k.confkey) with ordinality x(number, place)
              join pg_attribute a on a.attrelid = k.confrelid and a.attnum = x.number) as columns,
           exists (select 1 from pg_index i
                    where i.indrelid = k.conrelid and i.indisvalid and i.indpred is null
                      and (cast(i.indkey as smallint[]))[0 : cardinality(k.conkey) - 1] @> k.conkey) as indexed
      from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
     where k.confrelid = :oid and k.contype = 'f'
       and (k.conparentid = 0
            or not exists (select 1 from pg_constraint p where p.oid = k.conparentid and p.confrelid = :oid))
     order by n.nspname, c.relname, k.conname""")

# Deletions that something else hears of: a drop would not tell it.
_LISTENERS = text("""
    select 'trigger ' || t.tgname from pg_trigger t
     where t.tgrelid in (select relid from pg_partition_tree(cast(:oid as oid)) union select cast(:oid as oid))
       and not t.tgisinternal
       and t.tgenabled <> 'D' and (t.tgtype & 8) <> 0
     union
    select 'publication ' || p.pubname
      from pg_publication p join pg_publication_tables t on t.pubname = p.pubname
      join pg_namespace n on n.nspname = t.schemaname
      join pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
     where p.pubdelete and c.oid in (select relid from pg_partition_tree(cast(:oid as oid)))
     order by 1""")

# PostgreSQL refuses to delete from a published table whose rows have no name a subscriber would know.
_NAMELESS = text("""
    select c.relname from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      join pg_publication_tables t on t.schemaname = n.nspname
      join pg_publication p on p.pubname = t.pubname and p.pubdelete
     where c.oid in (select relid from pg_partition_tree(cast(:oid as oid)) union select cast(:oid as oid))
       and c.relkind = 'r'
       and (t.tablename = c.relname
            or t.tablename in (select relname from pg_class
                                where oid in (select relid from pg_partition_ancestors(c.oid))))
       and (c.relreplident = 'n' or c.relreplident = 'd' and not exists (
           select 1 from pg_index i where i.indrelid = c.oid and i.indisprimary))
     order by 1 limit 1""")

_KEYED_BY = text("""
    select p.partstrat = 'r' and p.partattrs[0] = a.attnum as by_range, p.partnatts = 1 as alone,
           p.partdefid <> 0 as has_default
      from pg_partitioned_table p
      join pg_attribute a on a.attrelid = p.partrelid and a.attname = :column
     where p.partrelid = :oid""")


def relation(connection: Connection, table: str) -> Relation | None:
    """The table called `table` (`table` or `schema.table`, as policies write it), or None."""
    found = named(connection, _exact(table))
    return found and found._replace(names=found.names | {table})


def named(connection: Connection, name: str) -> Relation | None:
    """The table whose name in SQL is `name`, or None."""
    row = connection.execute(_RELATION, {"table": name}).one_or_none()
    if row is None:
        return None
    below = connection.execute(_LEAVES, {"oid": row.oid}).all() if row.reachable else []
    return Relation(
        oid=row.oid,
        name=_named(row),
        names=_names(row) | {_named(row)},
        kind=row.kind,
        columns={r.attname: r.type for r in connection.execute(_COLUMNS, {"oid": row.oid})},
        key=tuple(row.key or ()),
        rls=row.rls,
        may_own=row.may_own,
        bytes=sum(leaf.bytes for leaf in below),
        rows=sum(max(leaf.rows, 0) for leaf in below),
    )


def leaves(connection: Connection, oid: int) -> list[Leaf]:
    """The tables that hold the rows of the table `oid`, in the order of their bounds."""
    return [
        Leaf(r.oid, _named(r), _names(r), r.kind, r.branch, r.may_delete, r.bytes, r.rows)
        for r in connection.execute(_LEAVES, {"oid": oid})
    ]


def children(connection: Connection, oid: int) -> list[Child]:
    """The direct partitions of the table `oid`, those with a detach under way too."""
    return [
        Child(r.oid, _named(r), r.bounds or "", r.may_own, r.pending)
        for r in connection.execute(_CHILDREN, {"oid": oid})
    ]


def references(connection: Connection, oid: int) -> list[Reference]:
    """The foreign keys of other tables (or its own) that point at the table `oid`."""
    return [
        Reference(
            r.conname,
            _named(r),
            r.oid,
            tuple(r.child_columns),
            tuple(r.columns),
            r.action,
            r.indexed,
            r.may_delete,
            r.rows,
        )
        for r in connection.execute(_REFERENCES, {"oid": oid})
    ]


def listeners(connection: Connection, oid: int) -> list[str]:
    """Delete triggers on the table or its partitions, and publications that pass deletions on."""
    return list(connection.execute(_LISTENERS, {"oid": oid}).scalars())


def nameless(connection: Connection, oid: int) -> str | None:
    """A published table of these that has neither primary key nor another replica identity, or None."""
    found: str | None = connection.execute(_NAMELESS, {"oid": oid}).scalar()
    return found


class Partitioning(NamedTuple):
    """How a table is partitioned: by ranges of the asked column first (`alone`: of it only), with a DEFAULT or not."""

    by_range: bool
    alone: bool
    has_default: bool


def partitioning(connection: Connection, oid: int, column: str) -> Partitioning:
    """How the partitioned table `oid` lies to its `column`."""
    row = connection.execute(_KEYED_BY, {"oid": oid, "column": column}).one()
    return Partitioning(bool(row.by_range), row.alone, row.has_default)


def index_for(connection: Connection, query: str) -> bool:
    """Whether an index gives `query` (select … order by, no binds) its order: the planner says so itself.

    Partial, expression and other special indexes are judged by who will use them. Settings are the transaction's.
    """
    connection.execute(
        text(
            "select set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true),"
            " set_config('enable_incremental_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)"
        )
    )
    found = explained(connection, query)
    return not {"Seq Scan", "Sort", "Incremental Sort"} & _nodes(found)


def explained(connection: Connection, query: str) -> dict[str, Any]:
    """The plan of `query`, which is not run. Raises DBAPIError where it is no valid query."""
    answer = connection.exec_driver_sql(f"explain (format json) {query}").scalar_one()
    document = json.loads(answer) if isinstance(answer, str) else answer
    plan: dict[str, Any] = document[0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> set[str]:
    return {plan["Node Type"]}.union(*(_nodes(p) for p in plan.get("Plans", [])))


def _exact(table: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in table.split("."))


def _named(row: Any) -> str:
    return dotted(row.schema, row.name)


def _names(row: Any) -> frozenset[str]:
    full = f"{row.schema}.{row.name}"
    return frozenset({full, row.name}) if row.visible else frozenset({full})
