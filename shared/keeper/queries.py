"""`keeper queries`: the statements that took most time, their plans, what changed and what is worth a look."""

from typing import Any

import click
from sqlalchemy import Connection, select

from shared.errors import Refused
from shared.keeper import options, show
from shared.keeper.session import session
from shared.queryplans.explain import is_utility
from shared.queryplans.structure import stored
from shared.schema_rooms import query_analysis, query_plan
from shared.wording import counted

_SHOWN_TEXT = 70


@click.command(context_settings={"ignore_unknown_options": True})  # every other query's number is negative
@click.argument("query_id", required=False, type=int)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
@options.JSON
def queries(query_id: int | None, limit: int, as_json: bool) -> None:
    """The newest analysis of the worst statements, or one statement's plans: now, and before its last change."""
    with session() as at, at.database.transaction(read_only=True) as connection:
        look = (
            connection.execute(select(query_analysis).order_by(query_analysis.c.at.desc()).limit(1)).mappings().first()
        )
        if look is None:
            raise Refused("no statement was analysed yet: `keeper run analyze_query_plans`")
        if query_id is not None:
            _one(connection, query_id, as_json=as_json)
            return
        rows = (
            connection.execute(
                select(query_plan).where(query_plan.c.run_id == look["run_id"]).order_by(query_plan.c.rank).limit(limit)
            )
            .mappings()
            .all()
        )
    if as_json:
        show.document(analysis=dict(look), statements=[dict(row) for row in rows])
        return
    _say(look, rows)


def _say(look: Any, rows: Any) -> None:
    since = f"since {look['since']:%Y-%m-%d %H:%M}" if look["since"] and not look["was_reset"] else "since their reset"
    show.table(
        f"The worst statements by total time, {since} (looked {look['at']:%Y-%m-%d %H:%M} UTC)",
        ["#", "query", "total ms", "calls", "ms a call", "statement", "plan", "worth a look"],
        (
            (
                r["rank"],
                str(r["query_id"]),
                f"{r['total_ms']:,.1f}",
                r["calls"],
                f"{r['total_ms'] / max(r['calls'], 1):,.2f}",
                _short(r["sql"]),
                _plan_words(r),
                ", ".join(sorted({f["kind"] for f in r["findings"]})),
            )
            for r in rows
        ),
        empty="No statement ran since the last look.",
    )
    show.console.print(f"explained {look['explained']} of {look['statements']} that can have a plan", highlight=False)
    reasons = sorted(look["reasons"].items(), key=lambda item: -item[1])
    for reason, count in reasons:
        if not is_utility(reason):
            show.console.print(f"  {count} not: {reason}", highlight=False)
    if kinds := [(reason.partition(":")[0], count) for reason, count in reasons if is_utility(reason)]:
        said = ", ".join(f"{kind} {count}" for kind, count in kinds)
        show.console.print(
            f"beside them {counted(sum(n for _, n in kinds), 'utility statement')}: {said}",
            highlight=False,
            soft_wrap=True,
        )
    for finding in look["findings"]:
        show.console.print(
            f"  {finding['kind']}: {finding['subject']} {finding['why']}", highlight=False, soft_wrap=True
        )
    show.console.print("  keeper queries QUERY shows a statement's plan")


def _short(sql: str | None) -> str:
    if sql is None:
        return ""
    return sql if len(sql) <= _SHOWN_TEXT else sql[: _SHOWN_TEXT - 1] + "…"


def _plan_words(row: Any) -> str:
    if row["plan"] is None:
        return f"none: {row['reason']}"
    changed = " (changed)" if row["before"] else ""
    nodes = [node.what for node in stored(row["plan"]).walk()]
    return nodes[0] + (f" and {len(nodes) - 1} below" if len(nodes) > 1 else "") + changed


def _one(connection: Connection, query_id: int, *, as_json: bool) -> None:
    """One statement: its newest plan, and the one before where that was another."""
    newest = (
        connection.execute(
            select(query_plan).where(query_plan.c.query_id == query_id).order_by(query_plan.c.at.desc()).limit(1)
        )
        .mappings()
        .first()
    )
    if newest is None:
        raise Refused(f"no query {query_id} was analysed: `keeper queries` shows the worst")
    before = (
        connection.execute(
            select(query_plan)
            .where(
                query_plan.c.query_id == query_id,
                query_plan.c.plan_hash.is_not(None),
                query_plan.c.plan_hash != newest["plan_hash"],
            )
            .order_by(query_plan.c.at.desc())
            .limit(1)
        )
        .mappings()
        .first()
    )
    if as_json:
        show.document(statement=dict(newest), before=before and dict(before))
        return
    show.console.print(newest["sql"] or "(its text is not kept)", highlight=False, markup=False, soft_wrap=True)
    _tree(newest)
    if before is not None:
        _tree(before)


def _tree(row: Any) -> None:
    show.console.print(
        f"\nplan of {row['at']:%Y-%m-%d %H:%M} UTC: {row['plan_hash'] or row['reason']}", highlight=False
    )
    if row["plan"] is not None:
        for line in stored(row["plan"]).lines(1):
            show.console.print(line, highlight=False, markup=False, soft_wrap=True)
    for finding in row["findings"]:
        words = f"  {finding['kind']}: {finding['subject']} {finding['why']}"
        show.console.print(words, highlight=False, markup=False, soft_wrap=True)
