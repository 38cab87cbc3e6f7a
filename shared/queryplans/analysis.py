"""One look at the worst statements: read the counters, explain, compare with the last plan, keep the whole."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, text

from shared.context import Context
from shared.queryplans import explain, findings, statements, structure
from shared.queryplans.findings import Finding, Size, Thresholds
from shared.queryplans.lexer import has_plan, masked
from shared.queryplans.statements import Statement, Totals
from shared.queryplans.structure import Node, Partitions
from shared.schema_rooms import query_analysis, query_plan, query_total

_MOST_TEXT = 10_000


@dataclass(frozen=True)
class Analysed:
    """A statement with its plan, or why it has none, what is worth a look, and its last plan if that was another."""

    statement: Statement
    plan: Node | None
    reason: str | None
    findings: tuple[Finding, ...]
    before: str | None  # the hash of the plan before, where it was another

    @property
    def plan_hash(self) -> str | None:
        return structure.hash_of(self.plan) if self.plan else None


@dataclass(frozen=True)
class Last:
    """What the last look left: when it was, the counters then, the counters' reset, the newest plan's hash by query."""

    at: datetime | None
    reset_at: datetime | None
    totals: Mapping[int, Totals]
    hashes: Mapping[int, str]


@dataclass(frozen=True)
class Look:
    """What was seen. `was_reset`: the counters began anew since the last look, so they count from then. `utilities`:
    how many of those that ran can have no plan, by kind; only the worst of them are among `analysed`."""

    since: datetime | None
    reset_at: datetime | None
    was_reset: bool
    totals: Mapping[int, Totals]
    analysed: tuple[Analysed, ...]
    utilities: Mapping[str, int]
    findings: tuple[Finding, ...]

    def able(self) -> list[Analysed]:
        """The statements that can have a plan."""
        return [a for a in self.analysed if not explain.is_utility(a.reason)]

    def reasons(self) -> dict[str, int]:
        """How many statements have no plan, by reason: those that can have one, and the utilities."""
        found = Counter(a.reason for a in self.able() if a.reason is not None)
        found.update({explain.utility(kind): count for kind, count in self.utilities.items()})
        return dict(sorted(found.items()))


def look(ctx: Context, *, limit: int, thresholds: Thresholds) -> Look:
    """Analyse the worst `limit` statements that can have a plan, and name the utilities that are as bad.

    Raises Unavailable without pg_stat_statements; executes nothing.
    """
    with ctx.read() as connection:
        last = _last(connection)
        place = statements.extension(connection)
        reset_at, now = statements.reset_at(connection, place), statements.totals(connection, place)
        was_reset = last.at is not None and reset_at != last.reset_at
        ran = statements.ranked(now, {} if was_reset else last.totals)
        kinds = statements.utilities(connection, place)
        able = {query_id for query_id, _ in [one for one in ran if one[0] not in kinds][:limit]}
        chosen = [one for rank, one in enumerate(ran) if one[0] in able or (rank < limit and one[0] in kinds)]
        utilities = Counter(kinds[query_id] for query_id, _ in ran if query_id in kinds)
        worst = statements.with_texts(connection, place, chosen)
        sizes, parts = findings.sizes(connection), structure.partitions(connection)
        of_catalogue = findings.of_catalogue(
            connection, thresholds, since=ctx.now - timedelta(days=thresholds.unused_days)
        )
        major = int(connection.execute(text("show server_version_num")).scalar_one()) // 10_000
    analysed = []
    with ctx.read() as connection:
        explain.prepare(connection)
        for done, statement in enumerate(worst):
            ctx.check()
            analysed.append(_analyse(connection, statement, major, last, sizes, parts, thresholds))
            ctx.progress(done + 1, len(worst))
    return Look(last.at, reset_at, was_reset, now, tuple(analysed), utilities, tuple(of_catalogue))


def _last(connection: Connection) -> Last:
    newest = connection.execute(
        select(query_analysis.c.at, query_analysis.c.stats_reset).order_by(query_analysis.c.at.desc()).limit(1)
    ).one_or_none()
    if newest is None:
        return Last(None, None, {}, {})
    counters = connection.execute(
        select(query_total.c.query_id, query_total.c.calls, query_total.c.total_ms, query_total.c.rows)
    )
    hashes = connection.execute(
        text("""
        select distinct on (query_id) query_id, plan_hash
          from groundskeeper.query_plan
         where plan_hash is not null
         order by query_id, at desc""")
    )
    return Last(
        newest.at,
        newest.stats_reset,
        {row.query_id: Totals(row.calls, row.total_ms, row.rows) for row in counters},
        {row.query_id: row.plan_hash for row in hashes},
    )


def _analyse(
    connection: Connection,
    statement: Statement,
    major: int,
    last: Last,
    sizes: Mapping[str, Size],
    parts: Partitions,
    thresholds: Thresholds,
) -> Analysed:
    explained = explain.explain(connection, statement.sql, major=major)
    if explained.plan is None:
        return Analysed(statement, None, explained.reason, (), None)
    plan = structure.node_of(explained.plan, parts)
    seen = findings.of_plan(
        plan,
        statement.sql or "",
        rows_per_call=statement.rows_per_call,
        sizes=sizes,
        thresholds=thresholds,
    )
    before = last.hashes.get(statement.query_id)
    return Analysed(statement, plan, None, tuple(seen), before if before != structure.hash_of(plan) else None)


def keep(ctx: Context, seen: Look) -> None:
    """Store the look and the counters it began from, in one transaction, and count what it found."""
    able = seen.able()
    explained = sum(a.plan is not None for a in able)
    with ctx.begin() as connection:
        now = ctx.clock.now()
        connection.execute(
            insert(query_analysis).values(
                run_id=ctx.run_id,
                at=now,
                since=seen.since,
                stats_reset=seen.reset_at,
                was_reset=seen.was_reset,
                statements=len(able),
                explained=explained,
                reasons=seen.reasons(),
                findings=[finding.document() for finding in seen.findings],
            )
        )
        if seen.analysed:
            connection.execute(
                insert(query_plan),
                [_row(ctx, rank, a, now) for rank, a in enumerate(seen.analysed, 1)],
            )
        connection.execute(delete(query_total))
        if seen.totals:
            connection.execute(
                insert(query_total),
                [
                    {"query_id": query_id, "calls": t.calls, "total_ms": t.total_ms, "rows": t.rows}
                    for query_id, t in seen.totals.items()
                ],
            )
        ctx.count("statements", len(able))
        ctx.count("explained", explained)
        ctx.count("not_explained", len(able) - explained)
        ctx.count("utilities", sum(seen.utilities.values()))
        ctx.count("plans_changed", sum(a.before is not None for a in seen.analysed))
        ctx.count("findings", len(seen.findings) + sum(len(a.findings) for a in seen.analysed))
        ctx.count("counters_reset", int(seen.was_reset))


def _row(ctx: Context, rank: int, analysed: Analysed, now: datetime) -> dict[str, object]:
    did = analysed.statement.did
    return {
        "run_id": ctx.run_id,
        "rank": rank,
        "at": now,
        "query_id": analysed.statement.query_id,
        "sql": _kept_text(analysed.statement.sql),
        "calls": did.calls,
        "total_ms": did.total_ms,
        "rows": did.rows,
        "plan": analysed.plan.document() if analysed.plan else None,
        "plan_hash": analysed.plan_hash,
        "before": analysed.before,
        "reason": analysed.reason,
        "findings": [finding.document() for finding in analysed.findings],
    }


def _kept_text(sql: str | None) -> str | None:
    """The statement without values; None for what has no plan: `alter role` may name a password."""
    return masked(sql)[:_MOST_TEXT] if sql is not None and has_plan(sql) else None
