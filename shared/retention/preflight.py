"""Look at the live catalogue before the first write: can this rule be kept, by which way, and at whose cost?

What is wrong is said in words, and only that rule stays behind. Nothing here writes.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared.redaction import sqlstate
from shared.retention import catalogue, moments
from shared.retention.catalogue import Leaf, Reference, Relation
from shared.retention.rules import Condition, Rule, inlined, inner, quoted
from shared.wording import counted

# Above so many rows, finding the rows that point at a deleted one without an index is no longer cheap.
_SMALL = 10_000


class Unfit(Exception):
    """The rule cannot be kept as things are; the message names the thing and the remedy."""


class Target(NamedTuple):
    """A rule and the table it found. `bound` is the cutoff in the column's own terms.

    `leaves` hold the rows that are deleted one by one; `whole` are the partitions that go as a whole, oldest first.
    """

    rule: Rule
    relation: Relation
    kind: str
    cutoff: datetime
    bound: moments.Bound
    leaves: tuple[tuple[Leaf, bool], ...]  # and whether an index orders its rows by the timestamp
    whole: tuple[catalogue.Child, ...]
    references: tuple[Reference, ...]
    notes: tuple[str, ...]

    @property
    def timestamp(self) -> str:
        """The timestamp's column as SQL."""
        return quoted(self.rule.timestamp)

    @property
    def source(self) -> str:
        """What archives and restored rows call the table."""
        return self.relation.name

    def expired(self) -> Condition:
        """What makes a row expired, whatever points at it."""
        sql, binds = f"{self.timestamp} < :cutoff", {"cutoff": self.bound}
        if self.rule.where:
            sql += f" and {inner(self.rule.where)}"
        return Condition(sql, binds)

    def due(self) -> Condition:
        """What makes a row due, holds apart: the one condition of plan, archive and delete."""
        sql, binds = self.expired().sql, self.expired().binds
        if self.rule.children == "keep":
            for reference in self.restricting:
                sql += f" and not exists (select 1 from {reference.child} r where {reference.join('t', 'r')})"
        return Condition(sql, binds)

    @property
    def restricting(self) -> tuple[Reference, ...]:
        """The references that refuse a deletion or go with it: those a rule must have chosen about."""
        return tuple(r for r in self.references if r.action in "arc")


def examine(connection: Connection, rule: Rule, now: datetime) -> Target:
    """Find `rule`'s table and how its rows can go. Raises Unfit."""
    found = catalogue.relation(connection, rule.table)
    if found is None:
        raise Unfit(f"table {rule.table} does not exist, or its schema is closed to this role")
    _check_table(found, rule)
    kind = found.columns[rule.timestamp]
    cutoff = rule.cutoff(now)
    try:
        bound = moments.bound(rule, kind, cutoff)
    except ValueError as error:
        raise Unfit(str(error)) from error
    notes: list[str] = []
    references = tuple(catalogue.references(connection, found.oid))
    target = Target(rule, found, kind, cutoff, bound, (), (), references, ())
    _check_condition(connection, target)
    _check_references(connection, target, notes)
    if nameless := catalogue.nameless(connection, found.oid):
        raise Unfit(
            f"{nameless} is published and has no replica identity, so PostgreSQL refuses to delete from it: give it a "
            "primary key, or `alter table … replica identity full`"
        )
    if rule.archive and not found.key:
        raise Unfit(f"table {rule.table} has no primary key, so its rows cannot be archived: add one, or drop archive")
    expired, young = _by_bounds(connection, target)
    whole = _droppable(connection, target, expired, notes) if expired else ()
    gone = {child.oid for child in whole} | young
    leaves = []
    for leaf in catalogue.leaves(connection, found.oid):
        if leaf.branch in gone:
            continue
        if leaf.kind != "r":
            raise Unfit(f"{leaf.name} is a foreign table: delete its rows where they are kept")
        if not leaf.may_delete:
            raise Unfit(
                f"no right to select, update (to lock) and delete on {leaf.name}: `tables.write` in task.yaml, then "
                "`keeper migrate --grants`"
            )
        leaves.append((leaf, indexed(connection, target, leaf)))
    unindexed = [leaf for leaf, ordered in leaves if not ordered and leaf.bytes > 64 << 20]
    if unindexed:
        size = sum(leaf.bytes for leaf in unindexed) >> 20
        notes.append(
            f"no index on {rule.timestamp}: each run reads the whole table ({size:,} MiB); "
            f"`create index concurrently on {found.name} ({quoted(rule.timestamp)})` makes it cheap"
        )
    return Target(rule, found, kind, cutoff, bound, tuple(leaves), whole, references, tuple(notes))


def _check_table(found: Relation, rule: Rule) -> None:
    if found.kind not in "rp":
        what = {"v": "a view", "m": "a materialised view", "f": "a foreign table"}.get(found.kind, "not a table")
        raise Unfit(f"{rule.table} is {what}: name the table the rows are in")
    if rule.timestamp not in found.columns:
        raise Unfit(f"table {rule.table} has no column {rule.timestamp}")
    if rule.objects and rule.objects.column not in found.columns:
        raise Unfit(f"table {rule.table} has no column {rule.objects.column}, which objects name")
    if found.rls:
        raise Unfit(
            f"row-level security on {rule.table} applies to this role, which would delete fewer rows than are due: "
            "give the role bypassrls, or the table's ownership"
        )


def _check_condition(connection: Connection, target: Target) -> None:
    """Let the planner read the whole condition: names, types and rights, before a row is touched."""
    rule = target.rule
    for what, sql in (("where", inlined(target.due())), ("account", rule.account_sql)):
        if not sql:
            continue
        try:
            with connection.begin_nested():
                catalogue.explained(connection, f"select 1 from {target.relation.name} t where ({sql}) is not null")
        except DBAPIError as error:
            if sqlstate(error) == "42501":
                raise Unfit(f"no right to read {rule.table}: run `keeper migrate --grants`") from error
            said = error.orig.args[0].get("M", "") if error.orig and isinstance(error.orig.args[0], dict) else ""
            raise Unfit(f"{what} of the rule does not fit table {rule.table}: {said}") from error


def _check_references(connection: Connection, target: Target, notes: list[str]) -> None:
    rule = target.rule
    for reference in target.references:
        if not reference.indexed and reference.rows > _SMALL:
            columns = ", ".join(reference.child_columns)
            raise Unfit(
                f"{reference.child} points here by {reference.constraint} without an index, so each deleted row "
                f"would read all of it: `create index concurrently on {reference.child} ({columns})`"
            )
        if reference.action in "nd":
            notes.append(
                f"{reference.child} loses its link to what goes ({reference.constraint}): its rows stay, "
                f"{', '.join(reference.child_columns)} is emptied"
            )
    if rule.children == "delete":
        for reference in target.restricting:
            if reference.child_oid == target.relation.oid:
                raise Unfit(f"{rule.table} points at itself: only children: keep is possible")
            if not reference.may_delete:
                raise Unfit(f"children: delete needs the right to delete on {reference.child}")
            below = [r for r in catalogue.references(connection, reference.child_oid) if r.action in "arc"]
            if below:
                raise Unfit(
                    f"{below[0].child} points at {reference.child}, whose rows would go first: give {reference.child} "
                    "a rule of its own, or use children: keep"
                )


def _by_bounds(connection: Connection, target: Target) -> tuple[list[catalogue.Child], set[int]]:
    """The partitions that lie wholly before the cutoff, oldest first, and the oids of those wholly after it."""
    if target.relation.kind != "p":
        return [], set()
    how = catalogue.partitioning(connection, target.relation.oid, target.rule.timestamp)
    if not how.by_range:
        return [], set()
    expired, young = [], set()
    for child in catalogue.children(connection, target.relation.oid):
        if child.pending or not child.bounds.startswith("FOR VALUES FROM ("):
            continue
        low, high = (
            moments.read_bound(target.kind, side.split(", ")[0])
            for side in child.bounds.removeprefix("FOR VALUES FROM (").removesuffix(")").split(") TO (")
        )
        # With further columns in the key, rows at the upper bound's first value may be inside.
        if high is not None and (high <= target.bound if how.alone else high < target.bound):  # type: ignore[operator]
            expired.append((high, child))
        elif low is not None and low >= target.bound:  # type: ignore[operator]
            young.add(child.oid)
    expired.sort(key=lambda pair: pair[0])
    return [child for _, child in expired], young


def _droppable(
    connection: Connection, target: Target, expired: Sequence[catalogue.Child], notes: list[str]
) -> tuple[catalogue.Child, ...]:
    """Those that can go by detaching and dropping; a note says why others go row by row."""
    rule, oid = target.rule, target.relation.oid
    how = catalogue.partitioning(connection, oid, rule.timestamp)
    heard = catalogue.listeners(connection, oid)
    why = (
        "the rule has a condition"
        if rule.where
        else "their rows are archived"
        if rule.archive
        else "a DEFAULT partition forbids detaching without a lock"
        if how.has_default
        else f"{target.references[0].child} points at them"
        if target.references
        else f"{heard[0]} must hear of each deletion"
        if heard
        else "this role does not own the table: `tables.own` in task.yaml, then `keeper migrate --grants`"
        if not target.relation.may_own
        else ""
    )
    if why:
        notes.append(
            f"{counted(len(expired), 'expired partition')} of {target.relation.name} to be emptied row by row: {why}"
        )
        return ()
    foreign = [child for child in expired if not child.may_own]
    if foreign:
        notes.append(f"{foreign[0].name} is not owned by this role, so its rows are deleted one by one")
    return tuple(child for child in expired if child.may_own)


def indexed(connection: Connection, target: Target, leaf: Leaf) -> bool:
    """Whether an index orders the due rows of `leaf` by the timestamp."""
    condition = inlined(Condition(f"{target.timestamp} < :cutoff", {"cutoff": target.bound}))
    if target.rule.where:
        condition += f" and {inlined(Condition(inner(target.rule.where), {}))}"
    return catalogue.index_for(
        connection,
        f"select {target.timestamp} from only {leaf.name} t where {condition} order by {target.timestamp} limit 1",
    )


def count(connection: Connection, target: Target, condition: Condition, leaf: str) -> tuple[int, object]:
    """How many rows of `leaf` meet `condition`, and the oldest one's timestamp."""
    row = connection.execute(
        text(f"select count(*), min({target.timestamp}) from only {leaf} t where {condition.sql}"), condition.binds
    ).one()
    return row[0], row[1]
