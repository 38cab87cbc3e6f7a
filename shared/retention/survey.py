"""Plan: what a policy would delete now, by the conditions it deletes by, and what it cannot do and why."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared.context import Context
from shared.holds import Hold
from shared.plans import Item, Plan
from shared.redaction import sqlstate
from shared.retention import catalogue, duplicates, held, moments, partitions, preflight, shelf
from shared.retention.catalogue import Reference
from shared.retention.duplicates import Copies
from shared.retention.partitions import Size
from shared.retention.preflight import Target, Unfit
from shared.retention.rules import Condition, Policy, Rule, inlined
from shared.retention.shelf import NotArchived
from shared.wording import counted

_TOO_LONG = "57014"


@dataclass(frozen=True)
class Survey:
    """What `look` found: the plan, what it stands on, and which rules cannot be kept (`name: why`)."""

    plan: Plan
    targets: tuple[Target, ...]
    copies: tuple[Copies, ...]
    problems: tuple[str, ...]
    held: dict[str, int]  # rule -> due rows that a legal hold keeps
    archives: int  # how many archives are over


class _Found(NamedTuple):
    items: list[Item]
    notes: list[str]
    held: int


def look(ctx: Context, policy: Policy, *, count_within_s: int) -> Survey:
    """Examine every rule of `policy` at the run's `now`. Counting one takes at most `count_within_s` seconds; beyond
    that the planner's estimate stands, marked as such."""
    holds = ctx.holds()
    items: list[Item] = []
    notes: list[str] = []
    problems: list[str] = []
    targets: list[Target] = []
    copies: list[Copies] = []
    kept: dict[str, int] = {}
    for rule in policy.rules:
        try:
            with ctx.read() as connection:
                target = preflight.examine(connection, rule, ctx.now)
            found = _count(ctx, target, holds, count_within_s)
        except Unfit as unfit:
            problems.append(f"{rule.name}: {unfit}")
            items.append(Item(rule.name, 0, why=f"not possible: {unfit}"))
            continue
        targets.append(target)
        items += found.items
        notes += [f"{rule.name}: {note}" for note in (*target.notes, *found.notes)]
        if found.held:
            kept[rule.name] = found.held
    for surplus in policy.duplicates:
        try:
            with ctx.read() as connection:
                seen = duplicates.examine(connection, surplus)
                rows = 0 if seen.held(holds) else duplicates.count(connection, seen)
        except Unfit as unfit:
            problems.append(f"{surplus.name}: {unfit}")
            items.append(Item(surplus.name, 0, why=f"not possible: {unfit}"))
            continue
        copies.append(seen)
        why = (
            "under a legal hold"
            if seen.held(holds)
            else f"duplicates by {', '.join(surplus.key)}; the first by {surplus.keep} stays"
        )
        items.append(Item(surplus.name, rows, why=why))
    over = _archives(ctx, policy.rules)
    if over:
        items.append(Item("archives", over, unit="archives", why="their time is over"))
    if plain := [rule.name for rule in policy.rules if rule.archive is None]:
        notes.append(f"no undo (data minimisation): {', '.join(plain)}")
    predicates = {
        **{r.name: f"{r.table}: {r.describe(ctx.now)}; children {r.children or 'none'}" for r in policy.rules},
        **{d.name: f"{d.table}: by {', '.join(d.key)}; {d.keep}" for d in policy.duplicates},
    }
    return Survey(
        Plan(tuple(items), notes=tuple(notes), predicates=predicates),
        tuple(targets),
        tuple(copies),
        tuple(problems),
        kept,
        over,
    )


def _archives(ctx: Context, rules: Sequence[Rule]) -> int:
    try:
        stores = shelf.stores(ctx, rules)
    except NotArchived:  # said by each rule that archives; without a place there is nothing to destroy
        return 0
    with ctx.read() as connection:
        return sum(len(shelf.expired(connection, ctx, store)) for store in stores)


def _count(ctx: Context, target: Target, holds: Sequence[Hold], within_s: int) -> _Found:
    state = held.of(target, holds)
    began = ctx.clock.monotonic()
    try:
        with ctx.read(statement_timeout_ms=within_s * 1000) as connection:
            fans = _fan_out(connection, target)
            return _exactly(ctx, connection, target, state, fans)
    except DBAPIError as error:
        if sqlstate(error) != _TOO_LONG:
            raise
    ctx.log.info("counted by estimate", rule=target.rule.name, seconds=ctx.clock.monotonic() - began)
    with ctx.read() as connection:
        return _roughly(ctx, connection, target, state)


def _exactly(
    ctx: Context, connection: Connection, target: Target, state: held.Held, fans: dict[Reference, int]
) -> _Found:
    rule, due, spared = target.rule, target.due(), held.spared(target, state)
    oids = [child.oid for child in target.whole] + [o.oid for o in partitions.orphans(connection, target)]
    total, kept, ages, whole = Size(), 0, [], len(target.whole)
    for oid in oids:
        total += partitions.size(connection, oid)
    if state.some:
        for child in target.whole:
            spoken = f"select count(*) from {child.name} t where not coalesce({spared.sql}, false)"
            spoken_for = connection.execute(text(spoken), spared.binds).scalar_one()
            kept += spoken_for
            whole -= spoken_for > 0
    total = replace(total, rows=total.rows - kept)
    for leaf, _ in target.leaves:
        rows, oldest = preflight.count(connection, target, spared, leaf.name)
        total += Size(rows)
        ages.append(moments.age(rule, target.kind, oldest, ctx.now))
        if state.some:
            kept += preflight.count(connection, target, due, leaf.name)[0] - rows
    for child in target.whole:  # oldest first, and the oldest may be empty
        oldest = connection.execute(text(f"select min({target.timestamp}) from {child.name}")).scalar()
        if oldest is not None:
            ages.append(moments.age(rule, target.kind, oldest, ctx.now))
            break
    why = rule.describe(ctx.now)
    oldest_age = max((age for age in ages if age is not None), default=None)
    behind = rule.cutoff(ctx.now) - (ctx.now - oldest_age) if oldest_age else timedelta()
    ctx.log.info(  # the metrics of backlog and growth
        "retention measured",
        rule=rule.name,
        due=total.rows,
        backlog_s=max(0, int(behind.total_seconds())),
        rows=target.relation.rows,
        bytes=target.relation.bytes,
    )
    if state.whole:
        return _Found([Item(rule.name, 0, why="under a legal hold")], [], kept + total.rows)
    if kept:
        why += f"; kept under a legal hold: {counted(kept, 'row')}"
    if target.whole:
        why += f"; {counted(whole, 'partition')} to go whole"
        if by_row := len(target.whole) - whole:
            why += f", {by_row} by row, since rows of theirs are held"
    items = [
        Item(
            rule.name,
            total.rows,
            why=why + _gone_after(ctx, target),
            bytes=target.relation.bytes * total.rows // max(target.relation.rows, total.rows, 1),
            oldest=(ctx.now - oldest_age).isoformat() if oldest_age else None,
            exact=total.exact,
        )
    ]
    if rule.children == "delete":
        by_child: dict[str, int] = {}
        for reference, rows in fans.items():
            if reference in target.restricting:
                by_child[reference.child] = by_child.get(reference.child, 0) + rows
        items += [Item(f"{rule.name}.{c}", n, why=f"they point at rows of {rule.table}") for c, n in by_child.items()]
    notes = [
        f"{counted(rows, 'row')} of {r.child} pointing at what goes ({r.constraint})"
        for r, rows in fans.items()
        if rows
    ]
    notes += _kept_by_children(connection, target)
    if rule.objects:
        notes.append(f"{rule.objects.column} names objects of {rule.objects.place}: they are archived and go as well")
    return _Found(items, notes, kept)


def _roughly(ctx: Context, connection: Connection, target: Target, state: held.Held) -> _Found:
    rule = target.rule
    if state.whole:
        return _Found([Item(rule.name, 0, why="under a legal hold", exact=False)], [], 0)
    rows = sum(partitions.size(connection, child.oid).rows for child in target.whole)
    for leaf, _ in target.leaves:
        condition = inlined(held.spared(target, state))
        rows += int(catalogue.explained(connection, f"select 1 from only {leaf.name} t where {condition}")["Plan Rows"])
    return _Found(
        [Item(rule.name, rows, why=rule.describe(ctx.now) + _gone_after(ctx, target), exact=False)],
        ["counting took too long, so the number is the planner's estimate"],
        0,
    )


def _fan_out(connection: Connection, target: Target) -> dict[Reference, int]:
    """How many rows elsewhere point at what is due. Raises Unfit where the rule has not said what becomes of them."""
    found: dict[Reference, int] = {}
    if target.rule.children == "keep":
        return found
    due: Condition = target.due()
    for reference in target.references:
        found[reference] = connection.execute(
            text(
                f"select count(*) from {reference.child} r where exists (select 1 from {target.relation.name} t"
                f" where {reference.join('t', 'r')} and {due.sql})"
            ),
            due.binds,
        ).scalar_one()
        if found[reference] and reference in target.restricting and not target.rule.children:
            effect = (
                "would go with what is due" if reference.action == "c" else "pointing at what is due would refuse it"
            )
            raise Unfit(
                f"{counted(found[reference], 'row')} of {reference.child} {effect} ({reference.constraint}): "
                "say children: keep, or children: delete"
            )
    return found


def _kept_by_children(connection: Connection, target: Target) -> list[str]:
    """Which expired rows stay because others point at them, in words."""
    said = []
    expired = target.expired()
    for reference in target.restricting if target.rule.children == "keep" else ():
        rows = connection.execute(
            text(
                f"select count(*) from {target.relation.name} t where {expired.sql}"
                f" and exists (select 1 from {reference.child} r where {reference.join('t', 'r')})"
            ),
            expired.binds,
        ).scalar_one()
        if rows:
            said.append(
                f"{counted(rows, 'expired row')} kept for rows of {reference.child} that point there "
                f"({reference.constraint})"
            )
    return said


def _gone_after(ctx: Context, target: Target) -> str:
    rule = target.rule
    if rule.archive is None:
        return ""
    days = (ctx.now - rule.cutoff(ctx.now)).days + rule.archive.keep_days
    kept, gone = counted(rule.archive.keep_days, "day"), counted(days, "day")
    return f"; archived {kept}, gone after {gone} and the bucket's grace (backups apart)"
