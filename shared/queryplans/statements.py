"""What pg_stat_statements says of this database since the last look: the worst statements by total time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from shared.errors import Unavailable
from shared.queryplans.lexer import has_plan, kind_of

# So many letters of a statement tell its first word, with a comment before it.
_ENOUGH = 2000


@dataclass(frozen=True)
class Totals:
    """A statement's counters: calls, milliseconds in all, rows."""

    calls: int
    total_ms: float
    rows: int

    def since(self, before: "Totals | None") -> "Totals":
        """What came on top of `before`; all of it where the counters began anew."""
        if before is None or self.calls < before.calls or self.total_ms < before.total_ms:
            return self
        return Totals(self.calls - before.calls, self.total_ms - before.total_ms, max(0, self.rows - before.rows))


@dataclass(frozen=True)
class Statement:
    """One statement of the worst: its text as the server keeps it, and what it did since the last look."""

    query_id: int
    sql: str | None
    did: Totals

    @property
    def rows_per_call(self) -> float | None:
        return self.did.rows / self.did.calls if self.did.calls else None


def extension(connection: Connection) -> str:
    """The quoted schema of pg_stat_statements. Raises Unavailable where there is none."""
    place = connection.execute(
        text("""
        select quote_ident(n.nspname)
          from pg_extension e join pg_namespace n on n.oid = e.extnamespace
         where e.extname = 'pg_stat_statements'""")
    ).scalar()
    if place is None:
        raise Unavailable(
            "pg_stat_statements is not in this database: `create extension pg_stat_statements` (on a server of your "
            "own also shared_preload_libraries = 'pg_stat_statements' and a restart)"
        )
    loaded = connection.execute(text("select current_setting('pg_stat_statements.track', true)")).scalar()
    if loaded is None:
        raise Unavailable(
            "pg_stat_statements is not loaded: set shared_preload_libraries = 'pg_stat_statements' and restart"
        )
    return str(place)


def reset_at(connection: Connection, place: str) -> datetime | None:
    """When the counters were last reset as a whole."""
    found: datetime | None = connection.exec_driver_sql(
        f"select stats_reset from {place}.pg_stat_statements_info"
    ).scalar()
    return found


def totals(connection: Connection, place: str) -> dict[int, Totals]:
    """The counters of every statement of this database, by query id, all users and levels together."""
    found = connection.exec_driver_sql(
        "select s.queryid, cast(sum(s.calls) as bigint), sum(s.total_exec_time), cast(sum(s.rows) as bigint)"
        f" from {place}.pg_stat_statements(false) s join pg_database d on d.oid = s.dbid"
        " where d.datname = current_database() and s.queryid is not null group by s.queryid"
    )
    return {row[0]: Totals(row[1], float(row[2]), row[3]) for row in found.all()}


def ranked(now: Mapping[int, Totals], before: Mapping[int, Totals]) -> list[tuple[int, Totals]]:
    """The statements that ran since `before`, those that took most time first."""
    did = {query_id: total.since(before.get(query_id)) for query_id, total in now.items()}
    ran = [(query_id, total) for query_id, total in did.items() if total.calls > 0]
    return sorted(ran, key=lambda item: (-item[1].total_ms, item[0]))


def utilities(connection: Connection, place: str) -> dict[int, str]:
    """The kind (`vacuum`, `copy`) of every statement of this database that PostgreSQL makes no plan for."""
    found = connection.execute(
        text(
            f"select s.queryid, min(left(s.query, {_ENOUGH})) from {place}.pg_stat_statements(true) s"
            " join pg_database d on d.oid = s.dbid"
            " where d.datname = current_database() and s.queryid is not null group by s.queryid"
        )
    )
    kinds = {row[0]: kind_of(row[1]) for row in found.all()}
    return {query_id: kind for query_id, kind in kinds.items() if kind and not has_plan(kind)}


def with_texts(connection: Connection, place: str, chosen: list[tuple[int, Totals]]) -> list[Statement]:
    """The chosen statements with their texts."""
    found: Any = connection.execute(
        text(
            f"select s.queryid, min(s.query) from {place}.pg_stat_statements(true) s"
            " join pg_database d on d.oid = s.dbid"
            " where d.datname = current_database() and s.queryid = any(:ids) group by s.queryid"
        ),
        {"ids": [query_id for query_id, _ in chosen]},
    )
    texts = {row[0]: row[1] for row in found.all()}
    return [Statement(query_id, texts.get(query_id), did) for query_id, did in chosen]
