"""Remove surplus copies: of the rows that agree in a key, the first by the policy's order stays.

A walk along an index of the key, a batch of whole groups at a time, so that each group is judged once and in one
statement however many copies it has.
"""

from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from shared import holds
from shared.context import Context
from shared.holds import Hold
from shared.retention import catalogue
from shared.retention.catalogue import Leaf, Relation
from shared.retention.pace import Pace
from shared.retention.preflight import Unfit
from shared.retention.rules import Condition, Duplicates, escaped, quoted

_LOCK_MS, _STATEMENT_MS = 2000, 60_000


class Copies(NamedTuple):
    """A policy and the table it found."""

    policy: Duplicates
    relation: Relation
    leaf: Leaf

    @property
    def key(self) -> str:
        """The key's columns as SQL."""
        return ", ".join(map(quoted, self.policy.key))

    def surplus(self, among: Condition) -> Condition:
        """The ctid of the surplus rows `among` some; a group must lie wholly inside."""
        given = " and ".join(f"{quoted(column)} is not null" for column in self.policy.key)
        return Condition(
            f"select ctid from (select ctid, row_number() over (partition by {self.key} order by"
            f" {escaped(self.policy.keep)}) as place from only {self.leaf.name} t"
            f" where {given} and {among.sql}) ranked where place > 1",
            among.binds,
        )

    def held(self, found: list[Hold]) -> bool:
        """Whether a hold covers the table. An account's hold does not: a copy that stays says the same."""
        about = self.relation.names | {self.policy.table}
        return any(h.account is None and h.run_id is None and (h.table is None or h.table in about) for h in found)


def examine(connection: Connection, policy: Duplicates) -> Copies:
    """Find the policy's table. Raises Unfit."""
    found = catalogue.relation(connection, policy.table)
    if found is None:
        raise Unfit(f"table {policy.table} does not exist, or its schema is closed to this role")
    if found.kind != "r":
        raise Unfit(f"duplicates are looked for in a plain table: {policy.table} is none")
    for column in policy.key:
        if column not in found.columns:
            raise Unfit(f"table {policy.table} has no column {column}")
    if found.rls:
        raise Unfit(f"row-level security on {policy.table} applies to this role, which would not see every copy")
    if catalogue.references(connection, found.oid):
        raise Unfit(f"other tables point at {policy.table}: which copy they mean must be decided by hand")
    (leaf,) = catalogue.leaves(connection, found.oid)
    if not leaf.may_delete:
        raise Unfit(f"no right to select, update (to lock) and delete on {policy.table}: run `keeper migrate --grants`")
    copies = Copies(policy, found, leaf)
    key = copies.key
    if not catalogue.index_for(connection, f"select {key} from only {leaf.name} t order by {key} limit 1"):
        raise Unfit(f"no index leads with {key}: `create index concurrently on {found.name} ({key})`")
    return copies


def count(connection: Connection, copies: Copies) -> int:
    """How many rows are surplus."""
    surplus = copies.surplus(Condition("true", {}))
    rows: int = connection.execute(text(f"select count(*) from ({surplus.sql}) surplus"), surplus.binds).scalar_one()
    return rows


def delete(ctx: Context, copies: Copies, pace: Pace) -> None:
    """Delete the surplus rows; the run counts them as `<policy>.deleted`."""
    low: tuple[Any, ...] | None = None
    pace.anew()
    while True:
        pace.ready([copies.relation.oid])
        began = ctx.clock.monotonic()
        with ctx.begin(lock_timeout_ms=_LOCK_MS, statement_timeout_ms=_STATEMENT_MS) as connection:
            if copies.held(holds.in_force(connection, ctx.clock.now())):
                return
            edge = _edge(connection, copies, low, pace.rows)
            surplus = copies.surplus(_between(copies, low, edge))
            deleted = connection.execute(
                text(f"delete from only {copies.leaf.name} t where ctid in ({surplus.sql})"), surplus.binds
            ).rowcount
            ctx.count(f"{copies.policy.name}.deleted", deleted)
        pace.took(ctx.clock.monotonic() - began)
        if edge is None:
            return
        low = edge


def _between(copies: Copies, low: tuple[Any, ...] | None, high: tuple[Any, ...] | None) -> Condition:
    """The groups from `low` to before `high`."""
    sql = "true"
    binds: dict[str, Any] = {}
    for sign, side, edge in ((">=", "low", low), ("<", "high", high)):
        if edge is not None:
            names = [f"{side}{i}" for i in range(len(edge))]
            sql += f" and ({copies.key}) {sign} ({', '.join(':' + n for n in names)})"
            binds |= dict(zip(names, edge, strict=True))
    return Condition(sql, binds)


def _edge(connection: Connection, copies: Copies, low: tuple[Any, ...] | None, rows: int) -> tuple[Any, ...] | None:
    """The key at which the next batch begins, or None at the end; a group is never cut."""
    while True:
        span = _between(copies, low, None)
        row = connection.execute(
            text(
                f"select {copies.key} from only {copies.leaf.name} t where {span.sql}"
                f" order by {copies.key} offset :rows limit 1"
            ),
            {**span.binds, "rows": rows},
        ).one_or_none()
        edge = None if row is None else tuple(row)
        if edge is None or edge != low:
            return edge
        rows *= 4  # the group at `low` is larger than a batch
