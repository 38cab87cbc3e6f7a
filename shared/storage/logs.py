"""Log files past their time, in a folder or below a bucket's prefix."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from shared import holds
from shared.context import Context
from shared.errors import ConfigurationError, Unavailable
from shared.objects import Changed, Missing, Objects, Stat, failures, told
from shared.plans import Item
from shared.storage import files
from shared.storage.files import File, Gone, InUse
from shared.wording import counted

# Of one transaction, which a legal hold waits for.
_BATCH = 200


@dataclass(frozen=True)
class LogRule:
    """Log files at `place` (a logical bucket or a location) whose last change is before now - `keep_days` go.

    `patterns` are of the name without its folder. A file exactly at the limit stays, and so does one that is open.
    """

    place: str
    keep_days: int
    patterns: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.keep_days < 1:
            raise ValueError(f"keep_days: expected at least 1, got {self.keep_days}")
        if Path(self.place) == Path("/"):
            raise ValueError("place: / is no folder of logs: give the one the application writes to")

    def cutoff(self, now: datetime) -> datetime:
        """Files last changed before this moment are expired."""
        return now - timedelta(days=self.keep_days)


def place_of(ctx: Context, place: str) -> Objects:
    """Where logs are. Raises Unavailable where nobody said."""
    try:
        return ctx.place(place)
    except ConfigurationError as error:
        raise Unavailable(str(error)) from error


def expired(store: Objects, rule: LogRule, now: datetime) -> Iterator[File | Stat]:
    """What `rule` deletes at `now`, in order of name."""
    cutoff = rule.cutoff(now)
    if not store.location.startswith("gs://"):
        yield from (f for f in files.walk(Path(store.location), rule.patterns) if f.modified < cutoff)
        return
    for found in store.list():
        name = found.name.rpartition("/")[2]
        if found.created < cutoff and any(fnmatchcase(name, p) for p in rule.patterns):
            yield found


def item(ctx: Context, store: Objects, rule: LogRule) -> Item:
    """The plan's line."""
    count = size = 0
    oldest: datetime | None = None
    for found in expired(store, rule, ctx.now):
        moment = found.modified if isinstance(found, File) else found.created
        count, size, oldest = count + 1, size + found.size, min(moment, oldest or moment)
    if held(ctx.holds()):
        return Item("logs", 0, unit="files", why="under a legal hold")
    limit = rule.cutoff(ctx.now).isoformat()
    return Item(
        "logs",
        count,
        unit="files",
        why=f"{', '.join(rule.patterns)} last changed before {limit} ({counted(rule.keep_days, 'day')})",
        bytes=size,
        oldest=oldest.isoformat() if oldest else None,
    )


def delete(ctx: Context, store: Objects, rule: LogRule) -> list[str]:
    """Delete what is expired; counts `logs.deleted` and `logs.in_use`. What could not be deleted, in words."""
    failed: list[str] = []
    ctx.count("logs.deleted", 0)
    waiting = expired(store, rule, ctx.now)
    while batch := list(islice(waiting, _BATCH)):
        ctx.check()
        with ctx.begin() as connection:
            if held(holds.in_force(connection, ctx.clock.now())):
                return failed
            for found in batch:
                _delete(ctx, store, found, failed)
    return failed


def _delete(ctx: Context, store: Objects, found: File | Stat, failed: list[str]) -> None:
    try:
        if isinstance(found, File):
            files.delete(Path(store.location), found)
        else:
            store.delete(found.name, generation=found.generation)
    except (Gone, Missing):
        return  # gone is what was wanted
    except (InUse, Changed):
        ctx.count("logs.in_use")
    except failures() as error:
        failed.append(f"logs: {found.name}: {told(error)}")
    else:
        ctx.count("logs.deleted")


def held(found: list[holds.Hold]) -> bool:
    """Whether everything, or the logs, are held. Nobody's account owns a log file."""
    return any(h.account is None and h.run_id is None and h.table in (None, "logs") for h in found)
