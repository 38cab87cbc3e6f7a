"""Mark or delete the objects that policies call for, page by page, in bounded memory.

Whether a row names an object, and whether a legal hold covers it, is looked up again right before it goes, in the
transaction that keeps new holds out meanwhile.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import ColumnClause, Connection, column, select, table
from sqlalchemy.sql.expression import exists

from shared import holds
from shared.context import Context
from shared.errors import Partial
from shared.objects import Changed, Missing, Objects, Stat, failures, told
from shared.plans import Item, Plan
from shared.storage import lifecycle
from shared.storage.lifecycle import Deletes, Unknown
from shared.storage.policies import ObjectPolicy, Unfit, held

_PAGE = 1000
# Of one transaction, which a legal hold waits for: a second or two of deleting.
_BATCH = 200
_GIB = 1 << 30


@dataclass(frozen=True)
class Sweep:
    """A policy and where its objects are."""

    policy: ObjectPolicy
    store: Objects


@dataclass(frozen=True)
class Survey:
    """What there is to do, and which policies or rules are wrong (`name: why`)."""

    sweeps: tuple[Sweep, ...]
    plan: Plan
    problems: tuple[str, ...]


def by_rules(ctx: Context, place: Objects, declared: Iterable[Deletes]) -> tuple[list[Sweep], list[str]]:
    """Compare the live lifecycle rules with the `declared` ones: what differs, in words.

    A folder has none: there the sweeps that stand for them.
    """
    rules = list(declared)
    try:
        found = lifecycle.live(place)
    except Unknown as unknown:
        return [], [f"lifecycle: {unknown}"]
    if found is not None:
        return [], [f"lifecycle of {place.location}: {words}" for words in lifecycle.differences(rules, found)]
    return [
        Sweep(ObjectPolicy(f"aged{number or ''}", "", rule.age_days, prefix=rule.prefix, account="none"), place)
        for number, rule in enumerate(r for r in rules if r.age_days)
    ], []


def look(ctx: Context, sweeps: Iterable[Sweep], problems: Iterable[str], *, usd_per_gib_month: float) -> Survey:
    """Count what would go: objects, bytes, the oldest, and what keeping them costs."""
    items: list[Item] = []
    fit: list[Sweep] = []
    wrong = list(problems)
    size = 0
    for sweep in sweeps:
        try:
            item = _item(ctx, sweep)
        except Unfit as unfit:
            wrong.append(f"{sweep.policy.name}: {unfit}")
            items.append(Item(sweep.policy.name, 0, unit="objects", why=f"not possible: {unfit}"))
            continue
        fit.append(sweep)
        items.append(item)
        size += item.bytes or 0
    notes = [
        "no undo (data minimisation): what goes is gone after the bucket's grace",
        f"keeping {size:,} bytes costs {size / _GIB * usd_per_gib_month:.4f} USD a month",
        *wrong,
    ]
    predicates = {s.policy.name: f"{s.store.location}: {s.policy.action} {s.policy.describe(ctx.now)}" for s in fit}
    return Survey(tuple(fit), Plan(tuple(items), predicates, tuple(notes)), tuple(wrong))


def _item(ctx: Context, sweep: Sweep) -> Item:
    policy = sweep.policy
    count = size = kept = 0
    oldest: datetime | None = None
    with ctx.read() as connection:
        state = held(policy, holds.in_force(connection, ctx.clock.now()))
    for page in _pages(due(ctx, sweep), _PAGE):
        ctx.check()
        with ctx.read() as connection:
            free = unnamed(connection, policy, page)
        for found in free:
            if state.covers(policy, found):
                kept += 1
                continue
            count, size = count + 1, size + found.size
            oldest = min(found.created, oldest or found.created)
    why = policy.describe(ctx.now) + (f"; {kept} under a hold stay" if kept else "")
    moment = oldest.isoformat() if oldest else None
    return Item(policy.name, count, unit="objects", why=why, bytes=size, oldest=moment)


def due(ctx: Context, sweep: Sweep) -> Iterator[Stat]:
    """The objects past their time, in order of name."""
    return (found for found in sweep.store.list(sweep.policy.prefix) if sweep.policy.due(found, ctx.now))


def _pages(found: Iterator[Stat], size: int) -> Iterator[list[Stat]]:
    while page := list(islice(found, size)):
        yield page


def unnamed(connection: Connection, policy: ObjectPolicy, page: list[Stat]) -> list[Stat]:
    """Those of `page` no row names. Raises Unfit where no row names anything: then the table is not the one meant."""
    if policy.unnamed_by is None:
        return page
    named_by = policy.unnamed_by
    source = table(named_by.table.rpartition(".")[2], schema=named_by.table.rpartition(".")[0] or None)
    name: ColumnClause[str] = column(named_by.column)
    source.append_column(name)
    if not connection.execute(select(exists(select(1).select_from(source).where(name.is_not(None))))).scalar_one():
        raise Unfit(f"{named_by.table}.{named_by.column} names nothing at all, so every object would be nobody's")
    named = set(connection.execute(select(name).where(name.in_([found.name for found in page]))).scalars())
    return [found for found in page if found.name not in named]


def act(ctx: Context, survey: Survey, *, concurrency: int) -> dict[str, int]:
    """Do what was planned, by the same predicates. Raises Partial naming what failed; it hides nothing else."""
    failed = list(survey.problems)
    with ThreadPoolExecutor(concurrency) as pool:
        for sweep in survey.sweeps:
            ctx.count(f"{sweep.policy.name}.{_done(sweep)}", 0)
            for batch in _pages(due(ctx, sweep), _BATCH):
                ctx.check()
                try:
                    _batch(ctx, sweep, batch, pool, failed)
                except Unfit as unfit:
                    failed.append(f"{sweep.policy.name}: {unfit}")
                    break
    if failed:
        raise Partial(failed, {})
    return ctx.counts


def _batch(ctx: Context, sweep: Sweep, batch: list[Stat], pool: ThreadPoolExecutor, failed: list[str]) -> None:
    policy = sweep.policy
    with ctx.begin() as connection:
        state = held(policy, holds.in_force(connection, ctx.clock.now()))
        free = unnamed(connection, policy, batch)
        going = [found for found in free if not state.covers(policy, found)]
        results = list(pool.map(lambda found: _one(ctx, sweep, found), going))
        for what, count in (
            (_done(sweep), results.count("")),
            ("held", len(free) - len(going)),
            ("changed", results.count("changed")),
        ):
            if count:
                ctx.count(f"{policy.name}.{what}", count)
    failed += [
        f"{policy.name}: {found.name}: {why}"
        for found, why in zip(going, results, strict=True)
        if why not in ("", "changed", "gone")
    ]


def _done(sweep: Sweep) -> str:
    return "marked" if _marks(sweep) else "deleted"


def _marks(sweep: Sweep) -> bool:
    """Whether the deletion is left to a rule; a folder has none."""
    return sweep.policy.action == "mark" and sweep.store.location.startswith("gs://")


def _one(ctx: Context, sweep: Sweep, found: Stat) -> str:
    """Delete or mark one object as it was found; empty, or what came of it instead."""
    try:
        if _marks(sweep):
            sweep.store.mark(found.name, ctx.now, generation=found.generation)
        else:
            sweep.store.delete(found.name, generation=found.generation)
    except Missing:
        return "gone"
    except Changed:
        return "changed"
    except failures() as error:
        return told(error)
    return ""
