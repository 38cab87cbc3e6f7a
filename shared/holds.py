"""Legal holds: what no deleter may touch. Every deleter asks here; a plan names the holds it honoured."""

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, insert, or_, select, text, update

from shared import audit
from shared.errors import Refused
from shared.manifest import Task
from shared.schema import legal_hold


class Hold(NamedTuple):
    """One hold in force: on a table, an account, both together, or everything (both None).

    With `run_id` it covers exactly the rows that a restore of that run brought back.
    """

    hold_id: uuid.UUID
    table: str | None
    account: str | None
    run_id: uuid.UUID | None
    reason: str
    placed_by: str
    placed_at: datetime
    expires_at: datetime | None

    def covers_table(self, table: str) -> bool:
        """Whether rows of `table` may be held: all of them, or those of one account."""
        return self.table in (None, table)


_CALLED = text("""
    select t.name, c.relname as short, n.nspname || '.' || c.relname as long,
           c.oid <> to_regclass(t.name) or pg_table_is_visible(c.oid) as plain
      from unnest(cast(:tables as text[])) as t(name)
      join pg_class c on c.oid = to_regclass(t.name) or c.relkind in ('r', 'p') and c.oid in (
           select d.refobjid
             from pg_rewrite r
             join pg_depend d on d.classid = cast('pg_rewrite' as regclass) and d.objid = r.oid
            where d.refclassid = cast('pg_class' as regclass) and r.ev_class = to_regclass(t.name))
      join pg_namespace n on n.oid = c.relnamespace""")


def called(connection: Connection, tables: Iterable[str]) -> dict[str, set[str]]:
    """What a hold may call each of `tables`: its own names, and where a view serves it those of the tables beneath."""
    found: dict[str, set[str]] = {table: {table} for table in tables}
    for row in connection.execute(_CALLED, {"tables": list(found)}):
        found[row.name] |= {row.long, row.short} if row.plain else {row.long}
    return found


def unlike_tables(tasks: Iterable[Task]) -> set[str]:
    """What of `tasks` a hold may name besides tables, in a table's place: policies of objects, and the log files."""
    found: set[str] = set()
    for task in tasks:
        found |= {policy["name"] for policy in task.params.get("policies", ())}
        found |= {"logs"} & {bucket.bucket for bucket in task.buckets}
    return found


# The key of an advisory lock that deleters' transactions share and a hold being placed takes alone.
_LOCK = 0x686F6C64


def keep_out(connection: Connection) -> None:
    """Let no hold be placed until this transaction ends: what it deletes by the holds it reads is not held yet."""
    connection.execute(text(f"select pg_advisory_xact_lock_shared({_LOCK})"))


def in_force(connection: Connection, now: datetime) -> list[Hold]:
    """The holds in force at `now`, oldest first."""
    found = connection.execute(
        select(
            legal_hold.c.hold_id,
            legal_hold.c.table_name,
            legal_hold.c.account_id,
            legal_hold.c.run_id,
            legal_hold.c.reason,
            legal_hold.c.placed_by,
            legal_hold.c.placed_at,
            legal_hold.c.expires_at,
        )
        .where(
            legal_hold.c.released_at.is_(None),
            or_(legal_hold.c.expires_at.is_(None), legal_hold.c.expires_at > now),
        )
        .order_by(legal_hold.c.placed_at, legal_hold.c.hold_id)
    )
    return [Hold(*row) for row in found]


def add(
    connection: Connection,
    *,
    reason: str,
    by: str,
    now: datetime,
    table: str | None = None,
    account: str | None = None,
    run_id: uuid.UUID | None = None,
    expires_at: datetime | None = None,
) -> uuid.UUID:
    """Place a hold; its id. Raises Refused for one that would end before it begins or gives no reason.

    Deleting transactions under way are waited for, as long as the connection's lock timeout; once the hold is
    committed nothing it covers goes.
    """
    if not reason.strip():
        raise Refused("a hold needs a reason: say which case or duty it is for")
    if expires_at is not None and expires_at <= now:
        raise Refused(f"a hold until {expires_at.isoformat()} is over already: give a later moment or none")
    hold_id = uuid.uuid4()
    connection.execute(text(f"select pg_advisory_xact_lock({_LOCK})"))
    connection.execute(
        insert(legal_hold).values(
            hold_id=hold_id,
            table_name=table,
            account_id=account,
            run_id=run_id,
            reason=reason,
            placed_by=by,
            placed_at=now,
            expires_at=expires_at,
        )
    )
    audit.record(
        connection,
        actor=by,
        action="hold",
        subject=str(hold_id),
        why=reason,
        now=now,
        details={"table": table, "account": account},
    )
    return hold_id


def release(connection: Connection, hold_id: uuid.UUID, *, by: str, why: str, now: datetime) -> None:
    """End a hold. Raises Refused when there is none in force with this id."""
    done = connection.execute(
        update(legal_hold)
        .where(legal_hold.c.hold_id == hold_id, legal_hold.c.released_at.is_(None))
        .values(released_at=now, released_by=by)
    )
    if not done.rowcount:
        raise Refused(f"hold {hold_id} is not in force: `keeper hold list` shows those that are")
    audit.record(connection, actor=by, action="release", subject=str(hold_id), why=why, now=now)
