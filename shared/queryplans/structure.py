"""A plan's shape: what it reads, by which index, joined how; without costs, rows and values. Its hash tells a change.

A partition is called by its table's name, and equal branches of an Append count once: a new day's partition is no new
plan.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from shared.queryplans.lexer import masked

# What of a node makes it another plan, besides its type and what it reads.
_TELLING = ("Join Type", "Strategy", "Partial Mode", "Operation", "Scan Direction", "Command", "Function Name")
_SHOWN = ("Filter", "Index Cond", "Hash Cond", "Merge Cond", "Join Filter", "Recheck Cond")
_MANY = ("Append", "Merge Append")


@dataclass(frozen=True)
class Node:
    """One step of a plan. `rows` is the planner's estimate, `conditions` are without values."""

    what: str
    table: str | None
    index: str | None
    telling: tuple[str, ...]
    rows: int
    conditions: tuple[str, ...]
    children: tuple["Node", ...] = field(default=())

    def shape(self) -> list[Any]:
        """What the hash covers."""
        branches = [child.shape() for child in self.children]
        if self.what in _MANY or self.what == "ModifyTable":
            branches = [list(b) for b in dict.fromkeys(_frozen(branch) for branch in branches)]
        return [self.what, self.table, self.index, list(self.telling), branches]

    def walk(self) -> Iterator["Node"]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def lines(self, depth: int = 0) -> Iterator[str]:
        """The plan as people read it."""
        using = f" using {self.index}" if self.index else ""
        on = f" on {self.table}" if self.table else ""
        telling = f" ({', '.join(self.telling)})" if self.telling else ""
        conditions = f"  [{'; '.join(self.conditions)}]" if self.conditions else ""
        yield f"{'  ' * depth}{self.what}{telling}{using}{on}  rows={self.rows}{conditions}"
        for child in self.children:
            yield from child.lines(depth + 1)

    def document(self) -> dict[str, Any]:
        """The node as it is stored."""
        return {
            "what": self.what,
            "table": self.table,
            "index": self.index,
            "telling": list(self.telling),
            "rows": self.rows,
            "conditions": list(self.conditions),
            "children": [child.document() for child in self.children],
        }


def stored(document: Mapping[str, Any]) -> Node:
    """The node that `document` was."""
    return Node(
        document["what"],
        document["table"],
        document["index"],
        tuple(document["telling"]),
        document["rows"],
        tuple(document["conditions"]),
        tuple(stored(child) for child in document["children"]),
    )


def hash_of(node: Node) -> str:
    """Sixteen hex digits over the shape."""
    return hashlib.sha256(json.dumps(node.shape()).encode()).hexdigest()[:16]


def _frozen(branch: list[Any]) -> tuple[Any, ...]:
    return tuple(_frozen(part) if isinstance(part, list) else part for part in branch)


@dataclass(frozen=True)
class Partitions:
    """What partitions and their indexes are parts of: by name (of an index, its schema before it) the root's name."""

    roots: Mapping[str, str]

    def root(self, name: str) -> str:
        return self.roots.get(name, name)


def partitions(connection: Connection) -> Partitions:
    """The partitions there are."""
    found = connection.execute(
        text("""
        select n.nspname || '.' || c.relname, m.nspname || '.' || r.relname
          from pg_class c
          join pg_namespace n on n.oid = c.relnamespace
          join pg_class r on r.oid = pg_partition_root(c.oid)
          join pg_namespace m on m.oid = r.relnamespace
         where c.relispartition""")
    )
    return Partitions({str(name): str(root) for name, root in found.all()})


def node_of(plan: Mapping[str, Any], parts: Partitions) -> Node:
    """The node that EXPLAIN's JSON describes."""
    schema = plan.get("Schema")
    table = plan.get("Relation Name") or plan.get("CTE Name") or plan.get("Tuplestore Name")
    named = f"{schema}.{table}" if schema and table else table
    index = plan.get("Index Name")
    return Node(
        what=plan["Node Type"],
        table=None if named is None else parts.root(named),
        index=None if index is None else _index(index, schema, parts),
        telling=tuple(str(plan[key]) for key in _TELLING if key in plan and plan[key] not in ("Forward", "Simple")),
        rows=round(plan.get("Plan Rows", 0)),
        conditions=tuple(masked(str(plan[key])) for key in _SHOWN if key in plan),
        children=tuple(node_of(child, parts) for child in plan.get("Plans", [])),
    )


def _index(index: str, schema: str | None, parts: Partitions) -> str:
    """An index of a partition by its table's index. A bitmap's does not say its schema: any counts."""
    if schema:
        return parts.root(f"{schema}.{index}").removeprefix(f"{schema}.")
    roots = {root for name, root in parts.roots.items() if name.endswith(f".{index}")}
    return roots.pop().partition(".")[2] if len(roots) == 1 else index
