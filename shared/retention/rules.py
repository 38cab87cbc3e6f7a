"""A retention policy as data: which table, which clock, how long, on what condition; and the SQL that means it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.dialects.postgresql import dialect

_preparer = dialect().identifier_preparer  # type: ignore[no-untyped-call]


def quoted(name: str) -> str:
    """`name` (`table` or `schema.table` or a column) as SQL, each part quoted where it must be."""
    return ".".join(_preparer.quote(part) for part in name.split("."))


@dataclass(frozen=True)
class Condition:
    """A where clause and its binds."""

    sql: str
    binds: dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """Rows of `table` whose `timestamp` is before now - `keep_days` go, if `where` (SQL) holds too.

    A row exactly at the limit stays. `personal` says that the rows hold personal data. `account` names the column
    by which an account's legal hold finds its rows. `name` tells two rules of one table apart.
    """

    name: str
    table: str
    timestamp: str
    keep_days: int
    where: str = ""
    personal: bool = False
    account: str = ""

    def __post_init__(self) -> None:
        if self.keep_days < 1:
            raise ValueError(f"rule {self.name}: keep_days: expected at least 1, got {self.keep_days}")

    def cutoff(self, now: datetime) -> datetime:
        """Rows before this moment are expired."""
        return now - timedelta(days=self.keep_days)

    def expired(self, now: datetime, held_accounts: Sequence[str] = ()) -> Condition:
        """The condition under which a row goes: the one of the plan and of the delete."""
        sql, binds = f"{quoted(self.timestamp)} < :cutoff", {"cutoff": self.cutoff(now)}
        if self.where:
            sql += f" and ({self.where})"
        if held_accounts and self.account:
            # `is not true`: a row of no account belongs to no held one
            sql += f" and ({quoted(self.account)} = any(:held)) is not true"
            binds["held"] = list(held_accounts)  # type: ignore[assignment]
        return Condition(sql, binds)

    def describe(self, now: datetime) -> str:
        """The rule in words, for plans."""
        condition = f" and {self.where}" if self.where else ""
        return f"{self.timestamp} before {self.cutoff(now).isoformat()} ({self.keep_days} days){condition}"


@dataclass(frozen=True)
class Duplicates:
    """Of the rows of `table` that agree in all of `key`, the first by `keep` (an SQL order) stays, the others go."""

    name: str
    table: str
    key: tuple[str, ...]
    keep: str

    def extra(self) -> str:
        """The query of the surplus rows' ctid."""
        return (
            f"select ctid from (select ctid, row_number() over (partition by "
            f"{', '.join(map(quoted, self.key))} order by {self.keep}) as place"
            f" from {quoted(self.table)}) ranked where place > 1"
        )
