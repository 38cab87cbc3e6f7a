"""The words in which a run ends otherwise than `ok`, and what each means to the caller.

A task raises `Refused`, `Retry`, `Unavailable` or `Partial`; anything else it raises is a defect. The
table of outcomes with their HTTP statuses and exit codes is `OUTCOMES`, the single copy in the product.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """How a run ended. The value is what the ledger, the logs and the JSON say."""

    OK = "ok"
    PLANNED = "planned"
    SKIPPED = "skipped"
    BUSY = "busy"
    STOPPED = "stopped"
    WAITING = "waiting"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"
    RETRY = "retry"
    PARTIAL = "partial"
    FAILED = "failed"


class Meaning(NamedTuple):
    """What an outcome tells the world: HTTP status, exit code, whether its run key is used up, whether to alert.

    `again`: a message or request that ended so must come again (503), since no later run goes on with it.
    """

    http: int
    exit: int
    done: bool = False
    alert: bool = False
    again: bool = False


# Scheduler and Pub/Sub count only 2xx as success: what trying again alone cannot help answers 2xx and alerts.
OUTCOMES: dict[Outcome, Meaning] = {
    Outcome.OK: Meaning(200, 0, done=True),
    Outcome.PLANNED: Meaning(200, 0, done=True),
    Outcome.SKIPPED: Meaning(200, 0),
    Outcome.BUSY: Meaning(503, 4),
    Outcome.STOPPED: Meaning(200, 0, again=True),
    Outcome.WAITING: Meaning(200, 3),
    Outcome.UNAVAILABLE: Meaning(200, 5, alert=True, again=True),
    Outcome.REFUSED: Meaning(200, 3, done=True, alert=True),
    Outcome.RETRY: Meaning(503, 4),
    Outcome.PARTIAL: Meaning(500, 1, alert=True),
    Outcome.FAILED: Meaning(500, 1, alert=True),
}


def flat_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """`counts` if a ledger row can hold them. Raises TypeError: a task that returns anything else has a defect."""
    for name, count in counts.items():
        if not isinstance(name, str) or not isinstance(count, int) or isinstance(count, bool):
            raise TypeError(f"counts are whole numbers by name, got {type(count).__name__} for one of them")
    return dict(counts)


class Ending(Exception):
    """Base of everything that ends a run in words. The message goes to the ledger: no secret, no personal data."""

    outcome: Outcome = Outcome.FAILED


class Refused(Ending):
    """Running again alone cannot help: a cap, a hold, bad input."""

    outcome = Outcome.REFUSED


class Retry(Ending):
    """The world was not ready; the same run may succeed later."""

    outcome = Outcome.RETRY


class Unavailable(Ending):
    """A part the task needs is not installed or not configured; the message names it."""

    outcome = Outcome.UNAVAILABLE


class Waiting(Ending):
    """An approval is open; the run did nothing and the approved run will be another one."""

    outcome = Outcome.WAITING


class Partial(Ending):
    """Some items failed, the others are done. `failed` names them (by key, never by content); `counts` says what was
    achieved."""

    outcome = Outcome.PARTIAL

    def __init__(self, failed: Sequence[str], counts: Mapping[str, int]) -> None:
        shown = "; ".join(failed[:5])
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        super().__init__(f"{len(failed)} failed: {shown}{more}")
        self.failed = tuple(failed)
        self.counts = flat_counts(counts)


class Stopped(Ending):
    """The deadline, SIGTERM or a pause came; progress is kept and the next run goes on."""

    outcome = Outcome.STOPPED


class LeaseLost(Exception):
    """Another run has taken this one's lease: this one is a zombie and may write nothing more."""


class ConfigurationError(Exception):
    """The process cannot start as configured; the message names the variable or file, its value and the remedy."""
