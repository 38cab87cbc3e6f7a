"""Delete what a policy says is past its time: in short transactions, from a plan made by the same predicates.

Never touches a table no rule names, a row at or after the cutoff, or a row under a legal hold.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from shared.context import Context
from shared.holds import Hold
from shared.plans import Item, Plan
from shared.retention.rules import Condition, Duplicates, Rule, quoted


def plan(ctx: Context, rules: Sequence[Rule], duplicates: Sequence[Duplicates]) -> Plan:
    """What `purge` would delete at the run's `now`: one item a policy, counted by the predicate it deletes by."""
    holds = ctx.holds()
    items = []
    with ctx.read() as connection:
        for rule in rules:
            if _held(rule.table, holds):
                items.append(Item(rule.name, 0, why="under a legal hold"))
                continue
            where = rule.expired(ctx.now, _accounts(holds))
            count, oldest = connection.execute(
                text(f"select count(*), min({quoted(rule.timestamp)}) from {quoted(rule.table)} where {where.sql}"),
                where.binds,
            ).one()
            items.append(
                Item(
                    rule.name,
                    count,
                    why=rule.describe(ctx.now),
                    oldest=oldest.isoformat() if oldest else None,
                )
            )
        for policy in duplicates:
            held = _held(policy.table, holds)
            count = (
                0 if held else connection.execute(text(f"select count(*) from ({policy.extra()}) surplus")).scalar_one()
            )
            items.append(
                Item(
                    policy.name,
                    count,
                    why="under a legal hold"
                    if held
                    else f"duplicates by {', '.join(policy.key)}; the first by {policy.keep} stays",
                )
            )
    return Plan(
        tuple(items),
        notes=("no undo: data minimisation",),
        predicates={
            **{r.name: r.describe(ctx.now) for r in rules},
            **{d.name: d.extra() for d in duplicates},
        },
    )


def purge(ctx: Context, rules: Sequence[Rule], duplicates: Sequence[Duplicates], *, batch_rows: int) -> dict[str, int]:
    """Delete what `plan` counts, at most `batch_rows` a transaction; the counts are `<policy>.deleted`.

    Holds are read again before each batch. Stops at the deadline; the next run goes on where this one was.
    """
    for rule in rules:
        ctx.count(f"{rule.name}.deleted", 0)
        for leaf in _leaves(ctx, rule.table):
            while not _held(rule.table, holds := ctx.holds()):
                if not _batch(ctx, rule.name, leaf, rule.expired(ctx.now, _accounts(holds)), batch_rows):
                    break
    for policy in duplicates:
        ctx.count(f"{policy.name}.deleted", 0)
        while not _held(policy.table, ctx.holds()):
            where = Condition(f"ctid in ({policy.extra()})", {})
            if not _batch(ctx, policy.name, policy.table, where, batch_rows):
                break
    return ctx.counts


def _batch(ctx: Context, name: str, table: str, where: Condition, limit: int) -> bool:
    """Delete up to `limit` rows in one transaction; False when none were left."""
    with ctx.begin() as connection:
        # Rows someone is at are skipped now and taken by the next run; the second check sees their latest version.
        deleted = connection.execute(
            text(
                f"delete from {quoted(table)} where ctid = any(array(select ctid from {quoted(table)}"
                f" where {where.sql} limit :limit for update skip locked))"
            ),
            {**where.binds, "limit": limit},
        ).rowcount
        ctx.count(f"{name}.deleted", deleted)
    return deleted > 0


def _leaves(ctx: Context, table: str) -> list[str]:
    """The tables that hold the rows: the partitions of a partitioned table (a ctid is unique within one only)."""
    with ctx.read() as connection:
        return _partitions(connection, table) or [table]


def _partitions(connection: Connection, table: str) -> list[str]:
    found = connection.execute(
        text("""
        select n.nspname || '.' || c.relname
          from pg_partition_tree(cast(:table as regclass)) t
          join pg_class c on c.oid = t.relid
          join pg_namespace n on n.oid = c.relnamespace
         where t.isleaf and t.level > 0
         order by 1"""),
        {"table": quoted(table)},
    )
    return list(found.scalars())


def _held(table: str, holds: Sequence[Hold]) -> bool:
    return any(h.account is None and h.covers_table(table) for h in holds)


def _accounts(holds: Sequence[Hold]) -> tuple[str, ...]:
    return tuple(sorted({h.account for h in holds if h.account is not None}))
