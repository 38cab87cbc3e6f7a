"""Lifecycle rules: what a bucket's live ones delete, and whether they are the declared ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.objects import Objects, failures, told
from shared.wording import counted


class Unknown(Exception):
    """The live rules could not be read; the message says why."""


@dataclass(frozen=True, order=True)
class Deletes:
    """A rule that deletes: objects below `prefix` older than `age_days`, or `marked_days` after their custom time."""

    prefix: str = ""
    age_days: int = 0
    marked_days: int = 0

    def __post_init__(self) -> None:
        if (self.age_days > 0) == (self.marked_days > 0):
            raise ValueError("lifecycle: expected either age_days or marked_days, at least 1")

    def __str__(self) -> str:
        what = f"objects below {self.prefix!r}" if self.prefix else "all objects"
        when = (
            counted(self.age_days, "day") + " old"
            if self.age_days
            else counted(self.marked_days, "day") + " after their mark"
        )
        return f"{what} {when}"


def live(store: Objects) -> frozenset[Deletes] | None:
    """The rules of `store` that delete live objects, below its prefix; None for a folder. Raises Unknown."""
    try:
        rules = store.lifecycle()
    except failures() as error:
        raise Unknown(f"the lifecycle rules of {store.location} cannot be read: {told(error)}") from error
    if rules is None:
        return None
    inside = store.location.removeprefix("gs://").partition("/")[2]
    found = set()
    for rule in rules:
        if rule.get("action", {}).get("type") == "Delete":
            found |= set(_read(rule.get("condition", {}), f"{inside}/" if inside else ""))
    return frozenset(found)


def _read(condition: Mapping[str, Any], inside: str) -> Sequence[Deletes]:
    """What one condition deletes; nothing where it has a part this task does not know."""
    age, marked = int(condition.get("age", 0)), int(condition.get("daysSinceCustomTime", 0))
    if set(condition) - {"age", "daysSinceCustomTime", "matchesPrefix", "isLive"} or bool(age) == bool(marked):
        return ()
    return [
        Deletes("" if inside.startswith(prefix) else prefix.removeprefix(inside), age, marked)
        for prefix in condition.get("matchesPrefix", [""])
        if inside.startswith(prefix) or prefix.startswith(inside)
    ]


def differences(declared: Sequence[Deletes], found: frozenset[Deletes]) -> list[str]:
    """How the live rules differ from the declared ones, in words."""
    wanted = frozenset(declared)
    return [
        *(f"no live rule deletes {rule}: apply terraform" for rule in sorted(wanted - found)),
        *(f"a live rule deletes {rule} and is not declared: apply terraform" for rule in sorted(found - wanted)),
    ]
