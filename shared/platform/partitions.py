"""The days of `endpoints`: one partition a UTC day, made before it begins."""

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import dialect

_quote = dialect().identifier_preparer.quote_identifier  # type: ignore[no-untyped-call]

_EXISTING = text("""
    select c.relname
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = cast('endpoints' as regclass)""")

_PARENT = text("""
    select n.nspname as schema, pg_get_userbyid(c.relowner) as owner, pg_get_userbyid(c.relowner) = current_user as mine
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid = cast('endpoints' as regclass)""")

_RIGHTS = text("""
    select r.rolname, string_agg(distinct g.privilege_type, ', ' order by g.privilege_type) as rights
      from pg_class c, aclexplode(c.relacl) g join pg_roles r on r.oid = g.grantee
     where c.oid = cast('endpoints' as regclass) and g.grantee <> c.relowner
     group by r.rolname
     order by r.rolname""")


def create_ahead(connection: Connection, now: datetime, days: int, *, since: datetime | None = None) -> list[str]:
    """Make what is missing of the partitions from today (or `since`) until `days` after today; their names.

    Runs in the caller's transaction, as the owner of `endpoints` or a member of it. A partition belongs to the
    owner of `endpoints` and opens to whom `endpoints` does. Readers and writers of `endpoints` go on meanwhile;
    writers of user_profile (the foreign key's other end) are waited for and wait, so commit soon and have a lock
    timeout. Raises ValueError for a time without zone.
    """
    if now.tzinfo is None or (since is not None and since.tzinfo is None):
        raise ValueError("create_ahead: expected aware times, since a partition's day is a day of UTC")
    first = (since or now).astimezone(UTC).date()
    count = (now.astimezone(UTC).date() - first).days + days + 1
    wanted = [first + timedelta(days=n) for n in range(count)]
    if not _missing(connection, wanted):
        return []
    # Whoever else makes partitions waits here, and then finds them made. Attaching takes this lock anyway.
    connection.execute(text("lock table only endpoints in share update exclusive mode"))
    missing = _missing(connection, wanted)
    for day in missing:
        _create(connection, day)
    return [name_of(day) for day in missing]


def name_of(day: date) -> str:
    """What the partition of a UTC day is called."""
    return f"endpoints_{day:%Y%m%d}"


def _missing(connection: Connection, days: list[date]) -> list[date]:
    existing = set(connection.execute(_EXISTING).scalars())
    return [day for day in days if name_of(day) not in existing]


def _create(connection: Connection, day: date) -> None:
    """Made beside and attached: `partition of` would lock the parent against everybody."""
    parent = connection.execute(_PARENT).one()
    name = f"{_quote(parent.schema)}.{_quote(name_of(day))}"
    start, end = (f"'{d:%Y-%m-%d} 00:00:00+00'" for d in (day, day + timedelta(days=1)))
    statements = [f"create table {name} (like endpoints including all excluding indexes)"]
    if not parent.mine:
        statements.append(f"alter table {name} owner to {_quote(parent.owner)}")
    statements.append(f"alter table endpoints attach partition {name} for values from ({start}) to ({end})")
    statements += [f"grant {rights} on {name} to {_quote(role)}" for role, rights in connection.execute(_RIGHTS)]
    for statement in statements:
        connection.execute(text(statement))
