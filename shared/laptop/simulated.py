"""What a simulated month is told in: its clock, what became of each task, and what was promised."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shared.errors import OUTCOMES, Outcome
from shared.result import Result


class VirtualClock:
    """A clock that moves when told to, or slept on."""

    def __init__(self, moment: datetime) -> None:
        self._moment, self._origin = moment, moment

    def now(self) -> datetime:
        return self._moment

    def monotonic(self) -> float:
        return (self._moment - self._origin).total_seconds()

    def sleep(self, seconds: float) -> None:
        self._moment += timedelta(seconds=max(seconds, 0.001))

    def move(self, moment: datetime) -> None:
        """Be at `moment`."""
        self._moment = moment


@dataclass
class Tally:
    """What became of one task's slots, and what its runs did."""

    slots: int = 0
    density: str = "every slot"
    outcomes: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    chaos: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    error: str | None = None

    def add(self, result: Result) -> None:
        """Count how a run ended, and what it did if it did anything."""
        self.outcomes[result.outcome.value] += 1
        if result.outcome is not Outcome.SKIPPED:
            self.counts.update(result.counts)
        if OUTCOMES[result.outcome].alert or result.outcome is Outcome.RETRY:
            self.error = result.error


@dataclass(frozen=True)
class Invariant:
    """A promise, whether it held, and what was counted."""

    name: str
    held: bool
    seen: str
