"""The database is out of reach: say so once, and once that it is back, without a ledger to remember it in.

An object stands for the incident: whoever creates it tells, and its deletion is the end.
"""

from collections.abc import Mapping
from contextlib import suppress

from shared import objects, secrets
from shared.clock import Clock
from shared.endings import Ended
from shared.logs import log
from shared.settings import Settings
from shared.watch.channels import Alert, Channel, channels, tell

MARKER = "watch/ledger-out-of-reach"


def begin(settings: Settings, clock: Clock, how: Ended, *, docs: str) -> None:
    """Tell that no run can be opened, unless that was told before."""
    place = objects.at(settings.bucket("archive"))
    try:
        with place.create(MARKER) as stream:
            stream.write(clock.now().isoformat().encode())
    except objects.Exists:
        log.warning("the ledger is still out of reach", error=how.error)
        return
    alert = Alert(MARKER, "error", False, f"the plane cannot reach its ledger: {how.error}", f"{docs}/operations.md")
    if not tell(_channels(settings), alert):
        _forget(place)  # the next run tries again to tell somebody


def end(place: objects.Objects, to: Mapping[str, Channel], *, docs: str) -> bool:
    """Tell that the ledger is back, where its loss was told; whether it was."""
    if not stands(place):
        return False
    text = "the plane reaches its ledger again"
    if tell(dict(to), Alert(MARKER, "error", True, text, f"{docs}/operations.md")):
        _forget(place)
    return True


def stands(place: objects.Objects) -> bool:
    """Whether the ledger's loss was told, and its return was not."""
    try:
        place.stat(MARKER)
    except objects.Missing:
        return False
    return True


def _forget(place: objects.Objects) -> None:
    with suppress(objects.Missing, objects.Changed):
        place.delete(MARKER, generation=place.stat(MARKER).generation)


def _channels(settings: Settings) -> dict[str, Channel]:
    return channels(secrets.store(settings).get)
