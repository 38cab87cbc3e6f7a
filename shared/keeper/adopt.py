"""What `keeper doctor --adopt` looks at: can each task run on this database's own tables, and what is missing?"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, text

from shared.adoption import Adoption
from shared.keeper.finding import Finding
from shared.keeper.session import Session
from shared.manifest import Task
from shared.migrations.grants import role_naming
from shared.wording import counted

_RIGHTS = {"read": ("select",), "write": ("select", "insert", "update", "delete"), "own": ()}

_RELATION = text("""
    select c.oid, c.relowner as owner,
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


def findings(at: Session, adoption: Adoption) -> Iterator[Finding]:
    """Task by task, what keeps it from running here. Tables of ours are passed over: `keeper migrate` brings them."""
    role_of, tasks = role_naming(at.settings), at.tasks()
    with at.database.transaction(read_only=True) as connection:
        roles = set(connection.execute(_ROLES).scalars())
        without = [name for name, task in tasks.items() if role_of(task) not in roles]
        if without:
            seen = f"{counted(len(without), 'task')} of {len(tasks)} have no role of their own here"
            yield Finding("roles", "note", seen, "keeper migrate --grants makes them, with exactly their rights")
        for task in tasks.values():
            role = role_of(task)
            yield from _task(connection, task, adoption, role if role in roles else None)


def _task(connection: Connection, task: Task, adoption: Adoption, role: str | None) -> Iterator[Finding]:
    wrong = False
    for access, tables in task.tables.items():
        for table, columns in tables.items():
            if table.startswith("groundskeeper."):
                continue
            for found in _table(connection, task, adoption, table, columns, access, role):
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
    table: str,
    columns: tuple[str, ...],
    access: str,
    role: str | None,
) -> Iterator[Finding]:
    theirs, names = table, dict(zip(columns, columns, strict=True))
    if task.adopts:
        theirs, names = adoption.table(table), {c: adoption.column(table, c) for c in columns}
    there = connection.execute(_RELATION, {"table": theirs}).one_or_none()
    if there is None:
        remedy = f"map {table} in adopt.yaml" if task.adopts else _view(table, columns, adoption)
        yield Finding(task.name, "wrong", f"table {theirs} does not exist", remedy)
        return
    for column, name in names.items():
        if name not in there.columns:
            remedy = f"map {table}.{column} in adopt.yaml" if task.adopts else _view(table, columns, adoption)
            yield Finding(task.name, "wrong", f"{theirs} has no column {name}", remedy)
    if lacking := _lacking(connection, there, access, role):
        yield Finding(task.name, "wrong", f"no right to {', '.join(lacking)} {theirs}", "keeper migrate --grants")


def _view(table: str, columns: tuple[str, ...], adoption: Adoption) -> str:
    """What lets a task whose SQL is written out find `table` where it is called otherwise."""
    own = {column: adoption.column(table, column) for column in columns}
    shown = ", ".join(name if name == column else f"{name} as {column}" for column, name in own.items())
    theirs = adoption.table(table) if table in adoption.tables else "your table"
    return f"its SQL says {table}: create view {table} as select {shown} from {theirs}"  # noqa: S608 - words


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
        there = connection.execute(_RELATION, {"table": table}).one_or_none()
        if there is None or column not in there.columns:
            continue
        if not connection.execute(_ORDERED, {"table": table, "column": column}).scalar_one():
            seen = f"no index of {table} begins with {column}: each run reads the whole table"
            yield Finding(task.name, "note", seen, f"create index concurrently on {table} ({column})")
