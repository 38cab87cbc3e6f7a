"""Act on a survey: what is due goes, rule by rule; what one rule cannot do does not keep the others from theirs.

Never touches a table no rule names, a row at or after the cutoff, or a row under a legal hold.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError

from shared.context import Context
from shared.errors import Partial, Stopped
from shared.redaction import sqlstate
from shared.retention import archive, catalogue, companions, duplicates, partitions, preflight, shelf
from shared.retention.catalogue import Leaf
from shared.retention.pace import GaveWay, Limits, Pace
from shared.retention.partitions import Undroppable
from shared.retention.preflight import Target, Unfit
from shared.retention.ranges import delete_rows
from shared.retention.shelf import NotArchived
from shared.retention.survey import Survey

# What the database may say about one table without anything being wrong with the others, by SQLSTATE.
_ONE_TABLE = {
    "23503": "rows elsewhere point at what is due",
    "42501": "the role lacks a right: run `keeper migrate --grants`",
    "42P01": "the table is gone",
    "42703": "a column is gone",
    "55P03": "a lock was not granted in time",
    "57014": "a statement took longer than its limit, however small the batch",
    "40P01": "a deadlock was resolved at our cost",
    "55000": "the table is not in the state this needs",
    "P0001": "a trigger refused",
}


def purge(ctx: Context, survey: Survey, limits: Limits) -> dict[str, int]:
    """Delete what `survey` planned; the counts are `<rule>.deleted` and what else became of rows.

    Stops at the deadline, and gives way to others; the next run goes on. Raises Partial naming the rules that
    could not be kept, Stopped where time or others' needs ended it early.
    """
    pace = Pace(ctx, limits)
    outcome = _Outcome(list(survey.problems))
    for name in (*(t.rule.name for t in survey.targets), *(c.policy.name for c in survey.copies)):
        ctx.count(f"{name}.deleted", 0)
    for rule, rows in survey.held.items():
        ctx.count(f"{rule}.held", rows - ctx.counts.get(f"{rule}.held", 0))
    try:
        for target in survey.targets:
            with outcome.of(target.rule.name):
                _keep(ctx, target, pace, outcome)
        for copies in survey.copies:
            with outcome.of(copies.policy.name):
                duplicates.delete(ctx, copies, pace)
        if survey.archives:
            with outcome.of("archives"):
                for store in shelf.stores(ctx, [target.rule for target in survey.targets]):
                    shelf.destroy_expired(ctx, store)
    except Stopped as stopped:
        if outcome.failed:
            raise Partial([*outcome.failed, f"stopped: {stopped}"], {}) from stopped
        raise
    if outcome.failed:
        raise Partial([*outcome.failed, *outcome.gave_way], {})
    if outcome.gave_way:
        raise Stopped(f"gave way; the next run goes on: {'; '.join(outcome.gave_way)}")
    return ctx.counts


@dataclass
class _Outcome:
    """What could not be done, in words: for good reasons of others (`gave_way`), or because something is wrong."""

    failed: list[str]
    gave_way: list[str] = field(default_factory=list)

    @contextmanager
    def of(self, rule: str) -> Iterator[None]:
        """What goes wrong inside is said of `rule`; a broken connection or a stop concerns the whole run."""
        try:
            yield
        except GaveWay as waited:
            self.gave_way.append(f"{rule}: {waited}")
        except (Unfit, Undroppable, NotArchived) as unfit:
            self.failed.append(f"{rule}: {unfit}")
        except DBAPIError as error:
            state = sqlstate(error)
            if state not in _ONE_TABLE:
                raise
            self.failed.append(f"{rule}: {_ONE_TABLE[state]} (SQLSTATE {state})")


def _keep(ctx: Context, target: Target, pace: Pace, outcome: _Outcome) -> None:
    """Do what one rule asks for: partitions that are due go whole, other rows one by one."""
    name = target.rule.name
    outcome.failed += [f"{name}: {left}" for left in partitions.recover(ctx, target)]
    in_use = 0
    if target.rule.archive:
        shelf.remove_unknown(ctx, target)
    if target.rule.objects:
        missing = f"{name}.missing"
        ctx.count(missing, -ctx.counts.get(missing, 0))  # what an attempt before this one missed is missed again
        outcome.failed += companions.finish(ctx, target)
    for leaf, indexed in [*_undropped(ctx, target, pace, outcome), *target.leaves]:
        if target.rule.archive:
            try:
                archive.archive_rows(ctx, target, leaf, indexed=indexed, pace=pace)
            except NotArchived as why:  # what was archived before it is done, and its objects can go
                outcome.failed.append(f"{name}: {why}")
            continue
        in_use += delete_rows(ctx, target, leaf, indexed=indexed, pace=pace)
    if target.rule.objects:
        outcome.failed += companions.finish(ctx, target)
    if in_use:
        ctx.count(f"{name}.in_use", in_use)
        ctx.log.info("left rows that others are at", rule=name, rows=in_use)


def _undropped(ctx: Context, target: Target, pace: Pace, outcome: _Outcome) -> list[tuple[Leaf, bool]]:
    """Drop the partitions that are due; the leaves of those that could not go whole."""
    remaining = list(target.whole)
    by_row = []
    if not remaining:
        return []
    with partitions.outside(ctx) as detaching:
        while remaining:
            child = remaining[0]
            try:
                if not partitions.drop(ctx, target, child, pace, detaching):
                    by_row.append(child)
            except Undroppable as refused:
                ctx.log.warning("a partition could not go whole", partition=child.name, why=str(refused))
                if refused.lost:
                    outcome.failed.append(f"{target.rule.name}: {refused}")
                    remaining.pop(0)
                break  # what stops one stops the others
            remaining.pop(0)
    oids = {child.oid for child in (*by_row, *remaining)}
    with ctx.read() as connection:
        return [
            (leaf, preflight.indexed(connection, target, leaf))
            for leaf in catalogue.leaves(connection, target.relation.oid)
            if leaf.branch in oids
        ]
