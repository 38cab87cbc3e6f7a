"""Vacuums and analyses the tables that need it, worst first, and proves that it happened.

It never takes an exclusive lock, never works beside autovacuum on the same table, and never calls a table done whose
counter did not move. What VACUUM cannot cure (ids running out, rows held on to, bloat) it says early.
"""

from dataclasses import dataclass

from shared.errors import Partial, Refused
from shared.plans import Item, Plan
from shared.task import Context, entrypoint
from shared.vacuum.need import Limits, Need, look, ranked
from shared.vacuum.treat import Ended, Pace, Treated, close, treat
from shared.vacuum.warnings import Alarms, attended, counted, free_share, holder, oldest_age

# Statistics made in one pass may show what nobody knew before: a second one, and a third for partitioned parents.
_PASSES = 3

_COUNTS = (
    "tables due vacuumed analyzed frozen busy locked not_permitted failed dead_before dead_after bytes_before"
    " bytes_after held_back bloated unmeasured unattended oldest_transaction"
)


@dataclass(frozen=True)
class Params:
    need: Limits
    pace: Pace
    alarms: Alarms


def run(ctx: Context, params: Params) -> dict[str, int]:
    for name in _COUNTS.split():
        ctx.count(name, 0)
    done: list[Treated] = []
    for turn in range(_PASSES):
        needs = _due(ctx, params.need, seen={t.need.table.oid: t.need for t in done}, first=turn == 0)
        for need in needs:
            done.append(treat(ctx, need, limits=params.need, pace=params.pace))
            _report(ctx, done[-1], params.alarms)
    close(ctx, params.pace)
    problems = [t.error for t in done if t.error] + _look_around(ctx, done, params.alarms)
    if done and all(t.ended is Ended.NOT_PERMITTED for t in done):
        raise Refused(f"none of the tables due may be maintained ({len(done)}); {problems[0]}")
    if problems:
        raise Partial(problems, ctx.counts)
    return ctx.counts


def _due(ctx: Context, limits: Limits, *, seen: dict[int, Need], first: bool) -> list[Need]:
    """What is due and was not done in this run; a table analysed before may turn out to need vacuuming."""
    with ctx.read() as connection:
        if not counted(connection):
            raise Refused("track_counts is off, so nothing tells which table needs what: switch it on")
        tables = look(connection)
    needs = [n for n in ranked(tables, limits) if (s := seen.get(n.table.oid)) is None or (n.vacuum and not s.vacuum)]
    if first:
        ctx.count("tables", len(tables))
        if ctx.planning:
            items = [Item(n.table.label, 1, "tables", n.why, n.table.bytes) for n in needs]
            ctx.authorize(Plan(tuple(items), {"need": vars(limits)}))
    ctx.count("due", len(needs))
    return needs


def _report(ctx: Context, treated: Treated, alarms: Alarms) -> None:
    """Count and log what became of one table."""
    need, after = treated.need, treated.after
    if treated.ended is not Ended.DONE or after is None:
        if treated.ended is not Ended.NOT_NEEDED:
            ctx.count(treated.ended.value)
            ctx.log.info("table left as it is", table=need.table.label, ended=treated.ended.value, why=need.why)
        return
    before = need.table
    ctx.count("vacuumed", int(need.vacuum))
    ctx.count("analyzed", int(need.analyze))
    ctx.count("frozen", int(need.freeze))
    for name, table in (("before", before), ("after", after)):
        ctx.count(f"dead_{name}", table.dead)
        ctx.count(f"bytes_{name}", table.bytes)
    held = need.vacuum and after.dead > alarms.held_share * before.dead and after.dead > 0
    ctx.count("held_back", int(held))
    said = ctx.log.warning if held else ctx.log.info
    said(
        "dead rows cannot be removed yet" if held else "table treated",
        table=before.label,
        why=need.why,
        dead=[before.dead, after.dead],
        bytes=[before.bytes, after.bytes],
        age=[before.age, after.age],
    )


def _look_around(ctx: Context, done: list[Treated], alarms: Alarms) -> list[str]:
    """Warn of what VACUUM does not cure; what must not go on ends the run otherwise than well."""
    with ctx.read() as connection:
        age, held, on = oldest_age(connection), holder(connection), attended(connection)
        alone = [t for t in look(connection) if t.unattended]
    ctx.count("oldest_transaction", age)
    ctx.count("unattended", len(alone))
    if age >= alarms.warn_age or ctx.counts["held_back"]:
        who = {"kind": held.kind, "age": held.age, "since": held.since} if held else None
        ctx.log.warning("transaction ids or dead rows are held back", oldest_transaction=age, holder=who)
    if alone or not on:
        ctx.log.warning("autovacuum is off", server=not on, tables=[t.label for t in alone[:20]])
    for table in [t.after for t in done if t.after and t.need.vacuum and t.after.bytes >= alarms.bloat_mb << 20]:
        share = free_share(ctx, table.oid)
        ctx.count("unmeasured", int(share is None))
        if share is not None and share >= alarms.bloat_share:
            ctx.count("bloated")
            ctx.log.warning("table is bloated", table=table.label, free=round(share, 2), bytes=table.bytes)
    if age >= alarms.alarm_age:
        return [f"the oldest transaction is {age} ago, of 2147 million at most: find who holds it back, then freeze"]
    return []


main = entrypoint(__file__, run)
