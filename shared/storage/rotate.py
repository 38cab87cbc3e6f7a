"""One night's rotation of a place: a folder's files, or a prefix's objects, whose archive a lifecycle rule empties."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from shared import holds
from shared.context import Context
from shared.errors import Partial
from shared.objects import Changed, Exists, Missing, Objects, Stat, failures, told
from shared.plans import Item, Plan
from shared.storage import files, lifecycle, rotation
from shared.storage.files import File, Gone, InUse
from shared.storage.lifecycle import Deletes, Unknown
from shared.storage.logs import held
from shared.storage.rotation import Rotation
from shared.wording import counted


@dataclass(frozen=True)
class Night:
    """What there is to do: files or objects to rotate, archives to remove, and the plan that says so."""

    waiting: tuple[File | Stat, ...]
    expired: tuple[File | Stat, ...]
    plan: Plan


def look(ctx: Context, store: Objects, rule: Rotation) -> Night:
    """See what is to be rotated and removed; nothing is removed that a live lifecycle rule removes."""
    waiting: list[File | Stat] = []
    expired: list[File | Stat] = []
    notes: list[str] = []
    if store.location.startswith("gs://"):
        ruled = _ruled(store, rule, notes)
        for found in store.list():
            folder, _, name = found.name.rpartition("/")
            if not folder and found.size and any(fnmatchcase(name, p) for p in rule.patterns):
                waiting.append(found)
            elif folder == rule.archive and not ruled and found.created < rule.cutoff(ctx.now):
                expired.append(found)
    else:
        root = Path(store.location)
        waiting += rotation.waiting(root, rule)
        expired += rotation.expired(root, rule, ctx.now)
    if held(ctx.holds()):
        notes.append("under a legal hold: no archive is removed")
        expired.clear()
    limit = rule.cutoff(ctx.now).isoformat()
    why = f"archives of before {limit} ({counted(rule.keep_days, 'day')})"
    items = (
        Item("rotated", len(waiting), unit="rotations", why=", ".join(rule.patterns), bytes=None),
        Item("archives", len(expired), unit="files", why=why, bytes=sum(f.size for f in expired)),
    )
    predicates = {"place": store.location, "patterns": list(rule.patterns), "archives": why}
    return Night(tuple(waiting), tuple(expired), Plan(items, predicates, tuple(notes)))


def _ruled(store: Objects, rule: Rotation, notes: list[str]) -> bool:
    """Whether a live lifecycle rule removes archives in time."""
    wanted = Deletes(f"{rule.archive}/", rule.keep_days)
    try:
        found = lifecycle.live(store)
    except Unknown as unknown:
        notes.append(f"{unknown}: archives are removed here")
        return False
    if found is None or wanted not in found:
        notes.append(f"no live lifecycle rule deletes {wanted}, so archives are removed here: apply terraform")
        return False
    return True


def act(ctx: Context, store: Objects, rule: Rotation, night: Night) -> dict[str, int]:
    """Rotate and remove; one file's trouble is no other's. Raises Partial naming those that failed."""
    failed: list[str] = []
    for name in ("logs.rotated", "logs.emptied", "archives.removed"):
        ctx.count(name, 0)
    if not store.location.startswith("gs://"):
        with ctx.begin():
            ctx.count("logs.rotated", rotation.recover(Path(store.location), rule))
    for found in night.waiting:
        ctx.check()
        try:
            _rotate(ctx, store, rule, found)
        except (Gone, Missing):
            ctx.log.info("a log went before it was rotated", log=found.name)
        except (InUse, Changed):
            ctx.count("logs.in_use")
        except failures() as error:
            failed.append(f"{found.name}: {told(error)}")
    for found in night.expired:
        ctx.check()
        with ctx.begin() as connection:
            if held(holds.in_force(connection, ctx.clock.now())):
                break
            try:
                if isinstance(found, File):
                    files.delete(Path(store.location) / rule.archive, found)
                else:
                    store.delete(found.name, generation=found.generation)
                ctx.count("archives.removed")
            except (Gone, Missing, InUse, Changed):
                ctx.log.info("an archive was left", archive=found.name)
            except failures() as error:
                failed.append(f"{found.name}: {told(error)}")
    if failed:
        raise Partial(failed, {})
    return ctx.counts


def _rotate(ctx: Context, store: Objects, rule: Rotation, found: File | Stat) -> None:
    if isinstance(found, File):
        root = Path(store.location)
        copied = rotation.copy(root, rule, found, ctx.now)
        with ctx.begin():
            ctx.count("logs.emptied", int(rotation.take_away(root, rule, found, copied)))
            ctx.count("logs.rotated")
        return
    target = f"{rule.archive}/{found.name}.{found.generation}"
    try:
        copy = store.copy(found.name, store, target)
    except Exists:
        copy = store.stat(target)  # a killed run's: the generation in its name says that it is the same
    if (copy.size, copy.crc32c) != (found.size, found.crc32c):
        raise Changed(found.name)
    with ctx.begin():
        store.delete(found.name, generation=found.generation)
        ctx.count("logs.rotated")
