"""A retention policy as data: which table, which clock, how long, on what condition, and what happens to the rows."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from sqlalchemy.dialects.postgresql import dialect

from shared.clock import months_before
from shared.wording import counted

_preparer = dialect().identifier_preparer  # type: ignore[no-untyped-call]

# A condition must mean the same at every batch and in every transaction, so nothing in it may move.
_MOVING = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|random|age)\s*\("
    r"|\b(current_time(stamp)?|current_date|localtime(stamp)?)\b",
    re.I,
)
_QUOTED_OR = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|%%?")
_NOT_IN_CONDITIONS = re.compile(r";|--|/\*|\$\w*\$|\\")


def quoted(name: str) -> str:
    """`name` (`table` or `schema.table` or a column) as SQL, each part quoted where it must be."""
    return dotted(*name.split("."))


def dotted(*parts: str) -> str:
    """The parts of a name as SQL, whatever signs they hold."""
    return ".".join(_preparer.quote(part) for part in parts)


class Condition(NamedTuple):
    """A where clause and its binds."""

    sql: str
    binds: dict[str, Any]


def both(one: Condition, other: Condition) -> Condition:
    """Rows that meet both conditions."""
    return Condition(f"{one.sql} and {other.sql}", {**one.binds, **other.binds})


@dataclass(frozen=True)
class Archive:
    """Keep a verified copy of what goes for so many days, from which `keeper restore` brings it back.

    `place` is a logical bucket or a location; empty is the bucket `archive`.
    """

    keep_days: int
    place: str = ""

    def __post_init__(self) -> None:
        if self.keep_days < 1:
            raise ValueError(f"archive.keep_days: expected at least 1, got {self.keep_days}")


@dataclass(frozen=True)
class Companion:
    """The object at `place` that a row names in `column`: it is archived with its row, and deleted after it.

    A row whose object is `missing` is kept, or goes alone (`delete`).
    """

    column: str
    place: str
    missing: Literal["keep", "delete"] = "keep"


@dataclass(frozen=True)
class Rule:
    """Rows of `table` whose `timestamp` is before now - `keep_days` go, if `where` (SQL) holds too.

    `keep_months` instead of `keep_days` counts calendar months. A row exactly at the limit stays. `name` tells two
    rules of one table apart. A timestamp without zone needs `assume_tz` (an IANA zone), a number `unit` (s or ms since
    1970). `personal`: the rows hold personal data. `account` is the SQL by which an account's legal hold finds its
    rows, or `none` where rows are nobody's. `children` says what happens where other rows point at one that is due:
    `keep` it, or `delete` them before it. `objects`: what a row names goes with it.
    """

    name: str
    table: str
    timestamp: str
    keep_days: int = 0
    keep_months: int = 0
    where: str = ""
    assume_tz: str = ""
    unit: Literal["", "s", "ms"] = ""
    personal: bool = False
    account: str = ""
    children: Literal["", "keep", "delete"] = ""
    archive: Archive | None = None
    objects: Companion | None = None

    def __post_init__(self) -> None:
        if min(self.keep_days, self.keep_months) < 0 or not (self.keep_days or self.keep_months):
            raise ValueError(f"rule {self.name}: keep_days: expected at least 1, got {self.keep_days}")
        if self.keep_days and self.keep_months:
            raise ValueError(f"rule {self.name}: keep_days and keep_months both stand: remove one")
        if self.objects and not self.archive:
            raise ValueError(f"rule {self.name}: objects go with an archive only: add archive")
        if self.where:
            check_expression(f"rule {self.name}: where", self.where)
        if self.account_sql:
            check_expression(f"rule {self.name}: account", self.account_sql)
        if self.archive and self.children == "delete":
            raise ValueError(f"rule {self.name}: children: delete has no undo, so it does not go with an archive")

    @property
    def account_sql(self) -> str:
        """The SQL of the account a row belongs to; empty where rows are nobody's or the rule does not say."""
        return "" if self.account == "none" else self.account

    def cutoff(self, now: datetime) -> datetime:
        """Rows before this moment are expired."""
        return months_before(now, self.keep_months) if self.keep_months else now - timedelta(days=self.keep_days)

    def describe(self, now: datetime) -> str:
        """The rule in words, for plans."""
        condition = f" and {self.where}" if self.where else ""
        span = counted(self.keep_months, "calendar month") if self.keep_months else counted(self.keep_days, "day")
        return f"{self.timestamp} before {self.cutoff(now).isoformat()} ({span}){condition}"


@dataclass(frozen=True)
class Duplicates:
    """Of the rows of `table` that agree in all of `key`, the first by `keep` (an SQL order) stays, the others go.

    Rows with a null in `key` are nobody's duplicates.
    """

    name: str
    table: str
    key: tuple[str, ...]
    keep: str

    def __post_init__(self) -> None:
        if not self.key:
            raise ValueError(f"duplicates {self.name}: key: is empty: name the columns that make two rows the same")
        check_expression(f"duplicates {self.name}: keep", self.keep)
        if "%" in self.keep:
            raise ValueError(f"duplicates {self.name}: keep: % cannot stand in an order: write mod(a, b)")


@dataclass(frozen=True)
class Policy:
    """All that a run deletes by."""

    rules: tuple[Rule, ...]
    duplicates: tuple[Duplicates, ...] = ()

    def __post_init__(self) -> None:
        names = [*(r.name for r in self.rules), *(d.name for d in self.duplicates)]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"the name {twice[0]} stands twice: counts and plans tell rules apart by it")


def check_expression(what: str, sql: str) -> None:
    """Raise ValueError unless `sql` can only mean itself: one expression, its own parentheses, nothing that moves."""
    bare = re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", "x", sql)
    if wrong := _NOT_IN_CONDITIONS.search(bare):
        raise ValueError(f"{what}: {wrong.group()!r} cannot stand in a condition: write one plain SQL expression")
    if moving := _MOVING.search(bare):
        raise ValueError(
            f"{what}: {moving.group().rstrip('(').strip()} moves while the run goes on: use keep_days for time"
        )
    if "'" in bare or '"' in bare:
        raise ValueError(f"{what}: a quotation is not closed in {sql!r}")
    depth = 0
    for sign in bare:
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            break
    if depth:
        raise ValueError(f"{what}: the parentheses do not match in {sql!r}")


def escaped(sql: str) -> str:
    """A policy's own SQL for use inside a statement with named binds: neither colons nor % mean binds there."""
    return _QUOTED_OR.sub(lambda m: "%%" if m[0] == "%" else m[0], sql).replace(":", r"\:")


def inner(sql: str) -> str:
    """A policy's own expression as one term of a statement with named binds."""
    return f"({escaped(sql)})"


def inlined(condition: Condition) -> str:
    """The condition with its binds as literals, for COPY and EXPLAIN, which take none."""

    def literal(found: re.Match[str]) -> str:
        return _literal(condition.binds[found[1]])

    sql = re.sub(r"(?<!\\):(\w+)", literal, condition.sql).replace(r"\:", ":")
    return _QUOTED_OR.sub(lambda m: "%" if m[0] == "%%" else m[0], sql)


def _literal(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        raise TypeError(f"no literal for {value!r}")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"array[{', '.join(map(_literal, value))}]"
    if isinstance(value, datetime):
        kind = "timestamp" if value.tzinfo is None else "timestamptz"
        return f"{kind} '{value.isoformat(sep=' ')}'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"date '{value.isoformat()}'"
