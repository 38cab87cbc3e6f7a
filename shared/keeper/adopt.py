"""What `keeper doctor --adopt` looks at: can each task run on this database's own tables, and what is missing?"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import dialect

from shared.adoption import AdoptedColumn, Adoption
from shared.keeper.finding import Finding
from shared.keeper.session import Session
from shared.manifest import Task
from shared.migrations.grants import role_naming
from shared.wording import counted

_RIGHTS = {"read": ("select",), "write": ("select", "insert", "update", "delete"), "own": ()}

_RELATION = text("""
    select c.oid, c.relowner as owner, c.relkind = 'v' as is_view,
           array(select attname from pg_attribute
                  where attrelid = c.oid and attnum > 0 and not attisdropped) as columns
      from pg_class c where c.oid = to_regclass(:table)""")

# Roles are the server's; those of this database may use our schema.
_ROLES = text("""
    select r.rolname from pg_roles r
      join pg_namespace n on n.nspname = 'groundskeeper' and has_schema_privilege(r.oid, n.oid, 'usage')""")

_ORDERED = text("""
    select exists (
        select 1
          from pg_index i
          join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
         where i.indrelid = to_regclass(:table) and a.attname = :column and i.indisvalid)""")

_preparer = dialect().identifier_preparer  # type: ignore[no-untyped-call]


_BESIDE = "rename it, map its new name in adopt.yaml and ask again for the view that serves both, or add the column"


class View(NamedTuple):
    """What serves the tasks whose SQL is written out: what to do for it, and the columns they will find then."""

    remedy: str
    columns: frozenset[str]


def findings(at: Session, adoption: Adoption) -> Iterator[Finding]:
    """Task by task, what keeps it from running here. Tables of ours are passed over: `keeper migrate` brings them."""
    role_of, tasks = role_naming(at.settings), at.tasks()
    with at.database.transaction(read_only=True) as connection:
        roles = set(connection.execute(_ROLES).scalars())
        without = [name for name, task in tasks.items() if role_of(task) not in roles]
        if without:
            seen = f"{counted(len(without), 'task')} of {len(tasks)} have no role of their own here"
            yield Finding("roles", "note", seen, "keeper migrate --grants makes them, with exactly their rights")
        views = dict(_views(connection, tasks.values(), adoption))
        for task in tasks.values():
            role = role_of(task)
            yield from _task(connection, task, adoption, views, role if role in roles else None)


def _task(
    connection: Connection, task: Task, adoption: Adoption, views: Mapping[str, View], role: str | None
) -> Iterator[Finding]:
    wrong = False
    for access, tables in task.tables.items():
        for table, columns in tables.items():
            if table.startswith("groundskeeper."):
                continue
            for found in _table(connection, task, adoption, views.get(table), table, columns, access, role):
                wrong = True
                yield found
    if not wrong:
        yield Finding(task.name, "ok", "can run: its tables, columns and rights are there")
    if task.adopts:
        yield from _indexes(connection, task, adoption)


def _table(
    connection: Connection,
    task: Task,
    adoption: Adoption,
    view: View | None,
    table: str,
    columns: tuple[str, ...],
    access: str,
    role: str | None,
) -> Iterator[Finding]:
    theirs, names = table, dict(zip(columns, columns, strict=True))
    if task.adopts:
        theirs, names = adoption.table(table), {c: adoption.column(table, c) for c in columns}
    there = _relation(connection, theirs)
    if there is None:
        remedy = f"map {table} in adopt.yaml" if task.adopts or view is None else f"its SQL says {table}: {view.remedy}"
        yield Finding(task.name, "wrong", f"table {theirs} does not exist", remedy)
        return
    for column, name in names.items():
        if name not in there.columns:
            remedy = f"map {table}.{column} in adopt.yaml"
            if not task.adopts and view is not None and column in view.columns:
                remedy = f"drop view {table}; {view.remedy}" if there.is_view else f"{table} is a table: {_BESIDE}"
            yield Finding(task.name, "wrong", f"{theirs} has no column {name}", remedy)
    if lacking := _lacking(connection, there, access, role):
        yield Finding(task.name, "wrong", f"no right to {', '.join(lacking)} {theirs}", "keeper migrate --grants")


def _views(connection: Connection, tasks: Iterable[Task], adoption: Adoption) -> Iterator[tuple[str, View]]:
    """By table, one view for all of `tasks` whose SQL is written out: of the columns they name, those there are."""
    wanted: dict[str, set[str]] = {}
    for task in tasks:
        for named in () if task.adopts else task.tables.values():
            for table, columns in named.items():
                wanted.setdefault(table, set()).update(columns)
    for table, every in wanted.items():
        mapped = adoption.tables.get(table)
        there = _relation(connection, mapped.name) if mapped is not None else None
        if mapped is None or there is None:
            shown = ", ".join(sorted(every))
            words = f"create view {table} as select {shown} from your table, or map it in adopt.yaml and ask again"  # noqa: S608
            yield table, View(words, frozenset())
            continue
        own = {column: mapped.columns.get(column, AdoptedColumn(column)) for column in sorted(every)}
        own = {column: theirs for column, theirs in own.items() if theirs.name in there.columns}
        shown = ", ".join(_shown(column, theirs) for column, theirs in own.items())
        yield table, View(f"create view {table} as select {shown} from {_quoted(mapped.name)}", frozenset(own))  # noqa: S608


def _shown(column: str, theirs: AdoptedColumn) -> str:
    """Their column under our name, as the moment that it means."""
    name = _quoted(theirs.name)
    if theirs.unit is not None:
        return f"to_timestamp({name}{' / 1000.0' if theirs.unit == 'ms' else ''}) as {column}"
    if theirs.assume_tz is not None:
        return f"{name} at time zone '{theirs.assume_tz}' as {column}"
    return column if name == column else f"{name} as {column}"


def _relation(connection: Connection, table: str) -> Any:
    return connection.execute(_RELATION, {"table": _quoted(table)}).one_or_none()


def _quoted(name: str) -> str:
    return ".".join(_preparer.quote(part) for part in name.split("."))


def _lacking(connection: Connection, there: Any, access: str, role: str | None) -> list[str]:
    """The rights on the relation that `role` (else whoever asks) does not have."""
    about = {"role": role, "oid": there.oid, "owner": there.owner}
    if access == "own":
        owns = text("select pg_has_role(coalesce(cast(:role as name), current_user), cast(:owner as oid), 'usage')")
        return [] if connection.execute(owns, about).scalar_one() else ["own"]
    has = text("select has_table_privilege(coalesce(cast(:role as name), current_user), cast(:oid as oid), :right)")
    return [right for right in _RIGHTS[access] if not connection.execute(has, {**about, "right": right}).scalar_one()]


def _indexes(connection: Connection, task: Task, adoption: Adoption) -> Iterator[Finding]:
    """Rules whose rows no index orders: they are kept all the same, at the price of reading the whole table."""
    for rule in task.params.get("rules", ()):
        table, column = adoption.table(rule["table"]), adoption.column(rule["table"], rule["timestamp"])
        there = _relation(connection, table)
        if there is None or column not in there.columns:
            continue
        if not connection.execute(_ORDERED, {"table": _quoted(table), "column": column}).scalar_one():
            seen = f"no index of {table} begins with {column}: each run reads the whole table"
            yield Finding(task.name, "note", seen, f"create index concurrently on {table} ({column})")
