"""What a database holds, in numbers that a restore must reproduce: rows and a hash of each table, sequences, shape.

A table's hash is the sum of a 64-bit hash of every row's text, so it needs no order and sees each row. It finds what
accident does to data; it is no seal against forgery: for that there are the dump's SHA-256 and the bucket's retention.
PostgreSQL 11 to 18 compute the same hashes. Tables of extensions, materialized views (a restore computes them anew),
foreign tables and temporary tables are not counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.wording import counted

# The text of a value must not depend on whose session reads it. An empty search_path names every object in full.
_SETTINGS = (
    "set local search_path = ''; set local extra_float_digits = 1; set local datestyle = 'ISO, YMD';"
    " set local intervalstyle = 'postgres'; set local bytea_output = 'hex'; set local lc_monetary = 'C';"
    " set local xmloption = 'content'; set local idle_in_transaction_session_timeout = 0; set local jit = off"
)

_OURS = "n.nspname !~ '^pg_' and n.nspname <> 'information_schema'"


def _no_member(catalog: str, alias: str) -> str:
    return (
        f"not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass"
        f" and d.objid = {alias}.oid and d.deptype = 'e')"
    )


_OF_CLASS = f"join pg_catalog.pg_namespace n on n.oid = c.relnamespace where {_OURS} and {_no_member('pg_class', 'c')}"

_RELATIONS = f"""
select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
  from pg_catalog.pg_class c {_OF_CLASS}
   and c.relkind = :kind and c.relpersistence <> 't'
 order by 1
"""

# Rows that PostgreSQL makes by itself for partitions, and the not-null constraints that 18 lists, are left out.
_SHAPE = f"""
select 'table', count(*) from pg_catalog.pg_class c {_OF_CLASS} and c.relkind in ('r', 'p') and c.relpersistence <> 't'
union all
select 'view', count(*) from pg_catalog.pg_class c {_OF_CLASS} and c.relkind in ('v', 'm')
union all
select 'column', count(*) from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
  {_OF_CLASS} and c.relkind in ('r', 'p', 'v', 'm', 'c') and c.relpersistence <> 't' and a.attnum > 0
   and not a.attisdropped
union all
select 'default', count(*) from pg_catalog.pg_attrdef a join pg_catalog.pg_class c on c.oid = a.adrelid
  {_OF_CLASS} and c.relpersistence <> 't'
union all
select 'index', count(*) from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indrelid
  {_OF_CLASS} and c.relpersistence <> 't' and i.indisvalid
union all
select 'constraint', count(*) from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid
  {_OF_CLASS} and c.relpersistence <> 't' and k.conparentid = 0 and k.contype in ('p', 'u', 'f', 'c', 'x')
union all
select 'trigger', count(*) from pg_catalog.pg_trigger g join pg_catalog.pg_class c on c.oid = g.tgrelid
  {_OF_CLASS} and not g.tgisinternal
union all
select 'policy', count(*) from pg_catalog.pg_policy p join pg_catalog.pg_class c on c.oid = p.polrelid {_OF_CLASS}
union all
select 'function', count(*) from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
 where {_OURS} and {_no_member("pg_proc", "p")}
union all
select 'type', count(*) from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
 where {_OURS} and {_no_member("pg_type", "t")} and t.typtype in ('d', 'e', 'r')
"""

_LARGE_OBJECTS = """
select count(*), sum(pg_catalog.hashtextextended(
         m.oid || ':' || pg_catalog.encode(pg_catalog.sha256(pg_catalog.lo_get(m.oid)), 'hex'), 0))
  from pg_catalog.pg_largeobject_metadata m
"""


@dataclass(frozen=True)
class Content:
    """A table's rows, or the large objects: how many, and the hash of them all."""

    rows: int
    hash: str


@dataclass(frozen=True)
class Fingerprint:
    """What a database holds. Tables and sequences by their quoted full names; `shape` counts objects by kind."""

    tables: Mapping[str, Content]
    large_objects: Content
    sequences: Mapping[str, int]
    shape: Mapping[str, int]

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(content.rows for content in self.tables.values())


@dataclass(frozen=True)
class Surroundings:
    """What a restore needs besides the dump. `bytes` is the database's size on disk."""

    database: str
    server_version: int
    encoding: str
    bytes: int
    roles: tuple[str, ...]
    extensions: tuple[str, ...]


def settle(connection: Connection, snapshot: str | None = None) -> None:
    """Make this fresh transaction see one moment (that of `snapshot`, if given), and its values read the same."""
    connection.exec_driver_sql("set transaction isolation level repeatable read")
    if snapshot is not None:
        connection.exec_driver_sql(f"set transaction snapshot '{snapshot}'")
    connection.exec_driver_sql(_SETTINGS)


def export(connection: Connection) -> str:
    """The name under which others may see what this settled transaction sees, while it lasts."""
    return str(connection.execute(text("select pg_catalog.pg_export_snapshot()")).scalar_one())


def surroundings(connection: Connection) -> Surroundings:
    """What a restore of this database needs to find there."""
    one = connection.execute(
        text("""
        select current_database() as database, pg_catalog.current_setting('server_version_num') as version,
               pg_catalog.pg_encoding_to_char(d.encoding) as encoding, pg_catalog.pg_database_size(d.oid) as bytes
          from pg_catalog.pg_database d
         where d.datname = current_database()""")
    ).one()
    roles = connection.execute(text("select rolname from pg_catalog.pg_roles where rolname !~ '^pg_' order by 1"))
    extensions = connection.execute(text("select extname from pg_catalog.pg_extension order by 1"))
    return Surroundings(
        database=one.database,
        server_version=int(one.version),
        encoding=one.encoding,
        bytes=int(one.bytes),
        roles=tuple(roles.scalars()),
        extensions=tuple(extensions.scalars()),
    )


def tables(connection: Connection) -> list[str]:
    """The quoted full names of the tables that hold rows themselves, partitions one by one."""
    return list(connection.execute(text(_RELATIONS), {"kind": "r"}).scalars())


def content(connection: Connection, table: str) -> Content:
    """Rows and hash of `table`, a name that `tables` gave."""
    return _content(
        connection.exec_driver_sql(
            f"select count(*), sum(pg_catalog.hashtextextended((t.*)::pg_catalog.text, 0)) from only {table} t"
        ).one()
    )


def large_objects(connection: Connection) -> Content:
    """How many large objects there are, and the hash of their numbers and contents."""
    return _content(connection.execute(text(_LARGE_OBJECTS)).one())


def sequences(connection: Connection) -> dict[str, int]:
    """Each sequence's last value. No snapshot holds them: they are read before the dump, which may be ahead."""
    names = connection.execute(text(_RELATIONS), {"kind": "S"}).scalars()
    return {
        name: int(connection.exec_driver_sql(f"select last_value from {name}").scalar_one()) for name in list(names)
    }


def shape(connection: Connection) -> dict[str, int]:
    """How many objects of each kind the database has."""
    return {kind: int(count) for kind, count in connection.execute(text(_SHAPE)).all()}


def differences(taken: Fingerprint, restored: Fingerprint) -> list[str]:
    """How `restored` is not what was `taken`, in words without contents; empty when it is the same."""
    found = [f"table {name} is missing" for name in sorted(set(taken.tables) - set(restored.tables))]
    found += [f"table {name} was not in the backup" for name in sorted(set(restored.tables) - set(taken.tables))]
    for name in sorted(set(taken.tables) & set(restored.tables)):
        found += _difference(f"table {name}", taken.tables[name], restored.tables[name])
    found += _difference("large objects", taken.large_objects, restored.large_objects)
    for name, last in sorted(taken.sequences.items()):
        if name not in restored.sequences:
            found.append(f"sequence {name} is missing")
        elif last > 0 and restored.sequences[name] < last:
            found.append(f"sequence {name} is at {restored.sequences[name]}, behind {last}")
    for kind, count in sorted(taken.shape.items()):
        if restored.shape.get(kind) != count:
            found.append(f"{counted(restored.shape.get(kind, 0), 'object')} of kind {kind}, expected {count}")
    return found


def _difference(what: str, taken: Content, restored: Content) -> list[str]:
    if taken.rows != restored.rows:
        return [f"{what}: {counted(restored.rows, 'row')}, expected {taken.rows}"]
    return [] if taken.hash == restored.hash else [f"{what}: {counted(taken.rows, 'row')}, but their contents differ"]


def _content(row: Any) -> Content:
    count, hashes = row
    return Content(int(count), "" if hashes is None else f"{int(hashes):x}")
