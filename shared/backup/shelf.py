"""Where backups lie, and which of them are kept: the newest of each day, week and month, and the last verified one.

<bucket>/dumps/20260615T000003Z-1a2b3c4d-1/dump.pgc
<bucket>/dumps/20260615T000003Z-1a2b3c4d-1/manifest.json      last; what has none does not exist
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.backup.manifest import Manifest, Unreadable, parse
from shared.errors import Refused
from shared.objects import Missing, Objects
from shared.settings import Settings

BUCKET, FOLDER = "backups", "dumps"
DUMP, MANIFEST = "dump.pgc", "manifest.json"

# Nothing younger is ever removed: longer than the bucket's retention, which would refuse it, and than any dump takes.
LEAST_AGE = timedelta(days=8)

_MOST_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Keep:
    """How many days, weeks and months keep the newest backup of theirs."""

    daily: int
    weekly: int
    monthly: int

    def __post_init__(self) -> None:
        if self.daily < LEAST_AGE.days + 1 or self.weekly < 0 or self.monthly < 0:
            raise ValueError(
                f"keep: expected daily of at least {LEAST_AGE.days + 1} (the bucket refuses to delete what is younger) "
                f"and weekly and monthly of at least 0, got {self}"
            )


def location(settings: Settings, place: str) -> str:
    """Where backups lie: the plane's own bucket, a location, or, as BACKUP_BUCKET is written, a bucket by its name.

    Raises ConfigurationError when nobody said where the plane's own is.
    """
    if place == BUCKET:
        return settings.bucket(BUCKET)
    return place if "/" in place else f"gs://{place}"


@dataclass(frozen=True)
class Entry:
    """A backup as the listing shows it, by its name alone; whether it can be read its manifest says."""

    name: str
    taken_at: datetime


def name_of(taken_at: datetime, run_id: str, attempt: int) -> str:
    """A backup's name: sorted by time, and of this attempt alone."""
    return f"{taken_at:%Y%m%dT%H%M%SZ}-{run_id[:8]}-{attempt}"


def dump_of(name: str) -> str:
    return f"{FOLDER}/{name}/{DUMP}"


def manifest_of(name: str) -> str:
    return f"{FOLDER}/{name}/{MANIFEST}"


def entries(store: Objects) -> list[Entry]:
    """The backups there are, the oldest first. What was not named by us is passed over."""
    return sorted(
        (entry for stat in store.list(f"{FOLDER}/") if (entry := _entry(stat.name, MANIFEST)) is not None),
        key=lambda entry: (entry.taken_at, entry.name),
    )


def _entry(path: str, file: str) -> Entry | None:
    folder, _, last = path.removeprefix(f"{FOLDER}/").rpartition("/")
    try:
        taken_at = datetime.strptime(folder.partition("-")[0] + "+0000", "%Y%m%dT%H%M%SZ%z")
    except ValueError:
        return None
    return Entry(folder, taken_at) if last == file else None


def read(store: Objects, name: str) -> Manifest:
    """The manifest of the backup `name`. Raises Refused, in words, when it is missing, unreadable or another's."""
    try:
        with store.open(manifest_of(name)) as stream:
            found = parse(stream.read(_MOST_MANIFEST_BYTES))
    except Missing:
        raise Refused(f"there is no backup {name}: `keeper backup list` shows those there are") from None
    except Unreadable as error:
        raise Refused(f"the manifest of backup {name} cannot be read: {error}") from None
    if found.name != name:
        raise Refused(f"the manifest of backup {name} is that of {found.name}: somebody moved or copied it")
    return found


def of_run(store: Objects, run_id: str) -> Manifest | None:
    """The backup that an earlier attempt of this run finished, if one did."""
    made = [entry.name for entry in entries(store) if entry.name.split("-")[1:2] == [run_id[:8]]]
    return next((found for name in made if (found := read(store, name)).run_id == run_id), None)


def kept(found: Iterable[Entry], keep: Keep) -> dict[str, tuple[str, ...]]:
    """The backups that a grade keeps, by name, with the grades: the newest of each day, ISO week and month."""
    newest_first = sorted(found, key=lambda entry: (entry.taken_at, entry.name), reverse=True)
    grades: Mapping[str, tuple[int, Callable[[datetime], object]]] = {
        "daily": (keep.daily, lambda at: at.date()),
        "weekly": (keep.weekly, lambda at: at.isocalendar()[:2]),
        "monthly": (keep.monthly, lambda at: (at.year, at.month)),
    }
    why: dict[str, tuple[str, ...]] = {}
    for grade, (most, period_of) in grades.items():
        periods: dict[object, str] = {}
        for entry in newest_first:
            periods.setdefault(period_of(entry.taken_at), entry.name)
        for name in list(periods.values())[:most]:
            why[name] = (*why.get(name, ()), grade)
    return why


def removable(found: list[Entry], keep: Keep, *, verified: str | None, now: datetime) -> list[str]:
    """The backups to remove: of no grade, older than LEAST_AGE, not the newest, not the last verified one."""
    if not found:
        return []
    spared = set(kept(found, keep)) | {found[-1].name, verified}
    return [entry.name for entry in found if entry.name not in spared and now - entry.taken_at > LEAST_AGE]


def remove(store: Objects, name: str) -> None:
    """Remove a backup: its manifest first, so that there is never one without a dump."""
    for path in (manifest_of(name), dump_of(name)):
        try:
            store.delete(path, generation=store.stat(path).generation)
        except Missing:
            continue  # gone is what was wanted: a killed run was here before


def leftovers(store: Objects, now: datetime) -> list[str]:
    """Dumps without a manifest, of killed attempts, older than LEAST_AGE."""
    known = {entry.name for entry in entries(store)}
    dumps = [entry for stat in store.list(f"{FOLDER}/") if (entry := _entry(stat.name, DUMP)) is not None]
    return [e.name for e in dumps if e.name not in known and now - e.taken_at > LEAST_AGE]
