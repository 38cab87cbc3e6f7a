"""Who may do what: SQL that gives each task's role exactly the tables its task.yaml names, and takes the rest back.

- `read` gives SELECT; `write` SELECT, INSERT, UPDATE, DELETE and the table's sequences; `own` membership in the
  NOLOGIN role groundskeeper_own_<table>, which owns that table, its partitions and nothing else. The owner before
  becomes a member of it, so an application keeps all it could. A partitioned table's owner role may create tables
  in that table's schema, since that is what making partitions ahead takes.
- `database_roles` gives PostgreSQL's own roles, those that the server has. Before version 17, which brought
  pg_maintain, whoever is to have it joins the owners of tables instead, as far as those are NOLOGIN roles.
- Of the schema groundskeeper, every role gets what the wrapper does in its name. No task may decide an approval,
  place or release a hold, pause, or change the audit trail, unless its task.yaml names that table.
- Partitions: through the parent, rights on the parent suffice. Reading or deleting in a partition by its own name
  takes rights on the partition: those that exist get them here, new ones in shared/platform/partitions.py (on a
  foreign platform: run this again, or `own` the table). There are no default privileges: they would open whatever
  else somebody creates.
- A table that is not there is passed over: its task cannot run, which `keeper doctor --adopt` says.

Everything is idempotent and belongs in one transaction, which leaves no moment without rights. Whoever runs it
must own the tables or be a member of their owners, and may create roles.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from sqlalchemy import make_url
from sqlalchemy.dialects.postgresql import dialect

from shared.adoption import Adoption
from shared.manifest import DATABASE_ROLES, Task
from shared.schema import SCHEMA
from shared.settings import Settings

RoleOf = Callable[[Task], str]

OWNER_PREFIX = "groundskeeper_own_"

# The comment of the roles made here.
_MARK = "a task of Groundskeeper"

_preparer = dialect().identifier_preparer  # type: ignore[no-untyped-call]


def role_naming(settings: Settings) -> RoleOf:
    """How roles are called: by the task's slug on a laptop; in the cloud as Cloud SQL calls IAM service accounts."""
    url = settings.database_url
    if settings.in_cloud or (url and make_url(url).query.get("iam") == "1"):
        return lambda task: f"{task.slug}@{settings.project}.iam"
    return lambda task: task.slug


def grants(tasks: Mapping[str, Task], *, role_of: RoleOf, adoption: Adoption | None = None) -> list[str]:
    """The statements, in order, without a final semicolon; run all of them in one transaction.

    `adoption` says what a platform calls its tables, for the tasks that follow it. A role whose name holds an @ is an
    IAM user: only Cloud SQL can make it, so where it is missing the statement fails and says so.
    """

    def called(task: Task, table: str) -> str:
        return adoption.table(table) if adoption is not None and task.adopts else table

    statements = []
    for table in sorted({called(task, t) for task in tasks.values() for t in task.tables.get("own", ())}):
        statements.append(_owner(table))
    for task in sorted(tasks.values(), key=lambda t: t.name):
        role = role_of(task)
        statements += [_role(role), _revoke(role), f"grant usage on schema {SCHEMA} to {_quoted(role)}"]
        statements += [f"grant {rights} on {SCHEMA}.{table} to {_quoted(role)}" for table, rights in _core_rights(task)]
        for table in task.tables.get("read", ()):
            statements.append(_table(called(task, table), role, "select", sequences=False))
        for table in task.tables.get("write", ()):
            statements.append(_table(called(task, table), role, "select, insert, update, delete", sequences=True))
        for table in task.tables.get("own", ()):
            statements.append(_member(called(task, table), role))
        statements += [_predefined(name, role) for name in task.database_roles]
    return statements


def owner_role(table: str) -> str:
    """The NOLOGIN role that owns `table` (`table` or `schema.table`) where a task declares to own it."""
    name = OWNER_PREFIX + table.removeprefix("public.").replace(".", "_")
    if len(name.encode()) <= 63:
        return name
    return f"{name[:52]}_{hashlib.sha256(table.encode()).hexdigest()[:10]}"


def _core_rights(task: Task) -> Iterator[tuple[str, str]]:
    """What the wrapper does in the task's name, table by table."""
    for table in ("schema_version", "environment", "pause", "legal_hold", "verified_backup"):
        yield table, "select"
    yield "task_run", "select, insert, update"
    if {t.kind for t in task.triggers} & {"topic", "http"}:
        yield "task_run", "delete"  # a message that finds the lease held leaves no row: it comes again
    yield "task_attempt", "select, insert, update"
    yield "run_request", "select, update (claimed_at)"
    if task.starts:
        # Not claimed_at and cancelled_at; a request for oneself or another, in the task's own name.
        yield "run_request", _insert("request_id task actor why params planning plan_hash break_glass requested_at")
    yield "plan", "select, insert"
    # It may ask and spend, close what expired, and never decide.
    yield "approval", "select, update (used_by_run, expired_at)"
    yield "approval", _insert("approval_id task plan_hash requested_by reason requested_at expires_at")
    yield "operator_audit", "insert, select (audit_id)"  # the number comes back from the insert
    if task.publishes:
        yield "outbox", "insert"
    if task.destructive:
        yield "archive_manifest", "select, insert, update"


def _insert(columns: str) -> str:
    return f"insert ({', '.join(columns.split())})"


# --- statements -------------------------------------------------------------------------------------------------


def _role(role: str) -> str:
    """The role itself. One of that name that is somebody else's is left alone: revoking would cut them off."""
    name, mark = _literal(role), _literal(_MARK)
    if "@" in role:
        return _block(
            f"if to_regrole({_literal(_quoted(role))}) is null then",
            f"  raise exception 'role % does not exist', {name}",
            "    using hint = 'it is an IAM user of the instance: apply terraform first, which makes it';",
            "end if;",
        )
    return _block(
        f"if to_regrole({_literal(_quoted(role))}) is null then",
        f"  create role {_quoted(role)} login;",
        f"  comment on role {_quoted(role)} is {mark};",
        f"elsif shobj_description(to_regrole({_literal(_quoted(role))}), 'pg_authid') is distinct from {mark} then",
        f"  raise exception 'role % exists and is not a task''s', {name}",
        f"    using hint = 'rename it or the task; if it was made for the task, comment on it: ' || {mark};",
        "end if;",
    )


def _revoke(role: str) -> str:
    """Everything the role was granted here on tables, columns, sequences and schemas, its owner and database roles."""
    name, regrole = _literal(role), f"cast({_literal(_quoted(role))} as regrole)"
    predefined = ", ".join(map(_literal, DATABASE_ROLES))
    return _block(
        "for item in",
        "  select distinct d.classid, d.objid, c.relkind",
        "    from pg_shdepend d left join pg_class c on d.classid = cast('pg_class' as regclass) and c.oid = d.objid",
        "   where d.dbid = (select oid from pg_database where datname = current_database())",
        f"     and d.refclassid = cast('pg_authid' as regclass) and d.refobjid = {regrole} and d.deptype = 'a'",
        "loop",
        "  if item.classid = cast('pg_namespace' as regclass) then",
        f"    execute format('revoke all on schema %s from %I', cast(item.objid as regnamespace), {name});",
        "  elsif item.relkind = 'S' then",
        f"    execute format('revoke all on sequence %s from %I', cast(item.objid as regclass), {name});",
        "  elsif item.relkind is not null then",
        f"    execute format('revoke all on table %s from %I', cast(item.objid as regclass), {name});",
        "  end if;",
        "end loop;",
        "for item in",
        "  select o.rolname from pg_auth_members m join pg_roles o on o.oid = m.roleid",
        f"   where m.member = {regrole}",
        f"     and (o.rolname in ({predefined}) or starts_with(o.rolname, {_literal(OWNER_PREFIX)}) or {_OWNS})",
        "loop",
        f"  execute format('revoke %I from %I', item.rolname, {name});",
        "end loop;",
        declare=("item record;",),
    )


def _table(table: str, role: str, rights: str, *, sequences: bool) -> str:
    """Rights on a table and the partitions it has, use of its schema and, for writing, of its sequences."""
    name = _literal(role)
    lines = [
        *_where_it_is(table),
        f"execute format('grant usage on schema %I to %I', place, {name});",
        "for item in select relid from pg_partition_tree(here) union select here loop",
        f"  execute format('grant {rights} on %s to %I', item.relid, {name});",
        "end loop;",
    ]
    if sequences:
        lines += [
            "for item in",
            "  select cast(d.objid as regclass) as sequence",
            "    from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S'",
            "   where d.classid = cast('pg_class' as regclass) and d.refclassid = d.classid",
            "     and d.refobjid = here and d.deptype in ('a', 'i')",
            "loop",
            f"  execute format('grant usage on sequence %s to %I', item.sequence, {name});",
            "end loop;",
        ]
    return _block(*lines, declare=(*_AT, "item record;"))


def _owner(table: str) -> str:
    """Make the table's owner role and hand the table and its partitions to it; their owner before joins it."""
    role = owner_role(table)
    return _block(
        *_where_it_is(table),
        "begin",
        f"  create role {_quoted(role)} nologin;",
        "exception when duplicate_object or unique_violation then null;",
        "end;",
        # Giving a table away takes membership in the new owner, and the new owner's right to create there.
        f"if not pg_has_role({_literal(role)}, 'member') then execute 'grant {_quoted(role)} to current_user'; end if;",
        f"execute format('grant usage, create on schema %I to %I', place, {_literal(role)});",
        "for item in",
        "  select c.oid, o.rolname from (select relid from pg_partition_tree(here) union select here) t",
        "    join pg_class c on c.oid = t.relid join pg_roles o on o.oid = c.relowner",
        f"   where o.rolname <> {_literal(role)}",
        "loop",
        f"  execute format('grant %I to %I', {_literal(role)}, item.rolname);",
        f"  execute format('alter table %s owner to %I', cast(item.oid as regclass), {_literal(role)});",
        "end loop;",
        "if (select relkind from pg_class where oid = here) <> 'p' then",
        f"  execute format('revoke create on schema %I from %I', place, {_literal(role)});",
        "end if;",
        declare=(*_AT, "item record;"),
    )


def _member(table: str, role: str) -> str:
    return _block(
        *_where_it_is(table),
        f"execute format('grant usage on schema %I to %I', place, {_literal(role)});",
        f"execute format('grant %I to %I', {_literal(owner_role(table))}, {_literal(role)});",
        declare=_AT,
    )


# Whether the role `o` cannot log in and owns tables here.
_OWNS = (
    "not o.rolcanlogin and exists (select 1 from pg_class c where c.relowner = o.oid and c.relkind in ('r', 'p', 'm'))"
)


def _predefined(name: str, role: str) -> str:
    grant = f"execute 'grant {name} to ' || {_literal(_quoted(role))};"
    if name != "pg_maintain":
        return _block(f"if to_regrole({_literal(name)}) is not null then {grant} end if;")
    return _block(
        "if to_regrole('pg_maintain') is not null then",
        f"  {grant}",
        "  return;",
        "end if;",
        f"for item in select o.rolname from pg_roles o where {_OWNS} loop",  # noqa: S608 - a constant
        f"  execute format('grant %I to %I', item.rolname, {_literal(role)});",
        "end loop;",
        declare=("item record;",),
    )


_AT = ("here regclass;", "place name;")


def _where_it_is(table: str) -> tuple[str, ...]:
    """Lines that set `here` and `place` (its schema), and end the block where there is no such table."""
    return (
        f"here = to_regclass({_literal(_dotted(table))});",
        "if here is null then return; end if;",
        "place = (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = here);",
    )


def _block(*lines: str, declare: Iterable[str] = ()) -> str:
    declared = "".join(f"  {line}\n" for line in declare)
    return (
        "do $grants$\n"
        + (f"declare\n{declared}" if declared else "")
        + "begin\n"
        + "".join(f"  {line}\n" for line in lines)
        + "end $grants$"
    )


def _quoted(role: str) -> str:
    return str(_preparer.quote_identifier(role))


def _dotted(table: str) -> str:
    return ".".join(_quoted(part) for part in table.split("."))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
