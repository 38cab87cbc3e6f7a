"""Which objects are past their time, as data: what lifecycle rules cannot say, since they know no metadata's value, no
database and no legal hold."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from shared.holds import Hold
from shared.objects import Stat
from shared.wording import counted


class Unfit(Exception):
    """The policy cannot be kept as things are; the message names the thing and the remedy."""


@dataclass(frozen=True)
class NamedBy:
    """A table's column that names objects, below the policy's place."""

    table: str
    column: str


@dataclass(frozen=True)
class ObjectPolicy:
    """Objects at `place` below `prefix`, written before now - `keep_days`, go; those exactly at the limit stay.

    `metadata`: only those with these values. `unnamed_by`: only those no row names. `account` is the metadata key of
    the account an object belongs to, or `none` where objects are nobody's. `mark` leaves the deletion to the bucket's
    rule for marked objects, `delete` deletes the very generation that was found.
    """

    name: str
    place: str
    keep_days: int
    prefix: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    unnamed_by: NamedBy | None = None
    account: str = ""
    action: Literal["delete", "mark"] = "delete"

    def __post_init__(self) -> None:
        if self.keep_days < 1:
            raise ValueError(f"policy {self.name}: keep_days: expected at least 1, got {self.keep_days}")
        if self.unnamed_by and self.prefix and not self.prefix.endswith("/"):
            raise ValueError(f"policy {self.name}: prefix: expected a folder, such as drafts/, got {self.prefix!r}")

    def due(self, found: Stat, now: datetime) -> bool:
        """Whether the object is past its time, whoever names or holds it."""
        if found.created >= now - timedelta(days=self.keep_days):
            return False
        if self.action == "mark" and found.custom_time is not None and found.custom_time <= now:
            return False  # marked already: the rule will
        values = dict(found.metadata)
        return all(values.get(key) == value for key, value in self.metadata.items())

    def describe(self, now: datetime) -> str:
        """The policy in words, for plans."""
        said = [
            f"written before {(now - timedelta(days=self.keep_days)).isoformat()} ({counted(self.keep_days, 'day')})"
        ]
        said += [f"{key} is {value!r}" for key, value in sorted(self.metadata.items())]
        if self.unnamed_by:
            said.append(f"no {self.unnamed_by.table}.{self.unnamed_by.column} names them")
        return f"below {self.prefix!r}: {', '.join(said)}" if self.prefix else ", ".join(said)


@dataclass(frozen=True)
class Held:
    """What legal holds take out of a policy's reach."""

    whole: bool
    accounts: frozenset[str]

    def covers(self, policy: ObjectPolicy, found: Stat) -> bool:
        """Whether `found` must stay: by a legal hold, or one of Cloud Storage's own."""
        return found.held or self.whole or dict(found.metadata).get(policy.account) in self.accounts


def held(policy: ObjectPolicy, found: Iterable[Hold]) -> Held:
    """What of `policy` is held; a hold names it as it names a table. Raises Unfit where an account is held and the
    policy cannot tell its objects."""
    about = [h for h in found if h.run_id is None and h.table in (None, policy.name)]
    accounts = frozenset(h.account for h in about if h.account is not None)
    if accounts and not policy.account:
        raise Unfit(
            f"{counted(len(accounts), 'account')} under a legal hold, but the policy does not say how to find an "
            "account's objects: add account (a metadata key, or `none` where objects are nobody's)"
        )
    return Held(any(h.account is None for h in about), frozenset() if policy.account == "none" else accounts)
