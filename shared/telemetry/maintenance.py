"""Maintenance windows: when a service is expected to be away, in the owner's own time.

A window is {"start", "end", "zone", "repeat"}. `repeat` daily: start and end are HH:MM; weekly or none: local times
like 2026-06-15T02:00, weekly from the first one on. `zone` is an IANA zone. The end is not part of the window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import tzdata  # noqa: F401 - the zones, where the system has none: zoneinfo finds them by this package's name

_DAY = timedelta(days=1)
_KEYS = {"start", "end", "zone", "repeat"}
_LONGEST = timedelta(days=31)


class BadWindow(ValueError):
    """A window nobody can read; the message names the key and the remedy."""


@dataclass(frozen=True)
class Window:
    """Wall-clock times of `zone`. For `daily` their dates say only whether the window goes over midnight."""

    start: datetime
    end: datetime
    zone: ZoneInfo
    repeat: str

    def covers(self, moment: datetime) -> bool:
        """Whether the aware `moment` is in the window, clock changes and all."""
        if self.repeat == "none":
            return self._instance(timedelta(), moment)
        step = _DAY if self.repeat == "daily" else 7 * _DAY
        passed = (moment.astimezone(self.zone).replace(tzinfo=None) - self.start) // step
        # The one before may still be on; the next one too, since a clock change moves an edge over the boundary.
        around = range(passed - 1, passed + 2)
        return any(self._instance(n * step, moment) for n in around if self.repeat == "daily" or n >= 0)

    def _instance(self, shift: timedelta, moment: datetime) -> bool:
        start, end = self.start + shift, self.end + shift
        # An hour that comes twice belongs to the window both times; one that does not exist moves it later.
        ends = max(end.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        return start.replace(tzinfo=self.zone, fold=0).astimezone(UTC) <= moment < ends


def windows(document: Any) -> tuple[Window, ...]:
    """The windows in a service's `maintenance`. Raises BadWindow for the first that is none."""
    if not isinstance(document, list):
        raise BadWindow("maintenance: expected a list of windows")
    return tuple(_window(entry, f"maintenance[{number}]") for number, entry in enumerate(document))


def under_maintenance(found: Sequence[Window], moment: datetime) -> bool:
    """Whether any window covers `moment`."""
    return any(window.covers(moment) for window in found)


def _window(entry: Any, where: str) -> Window:
    if not isinstance(entry, dict) or set(entry) != _KEYS or not all(isinstance(v, str) for v in entry.values()):
        raise BadWindow(f"{where}: expected the texts start, end, zone and repeat")
    repeat = entry["repeat"]
    if repeat not in ("none", "daily", "weekly"):
        raise BadWindow(f"{where}.repeat: expected none, daily or weekly")
    try:
        zone = ZoneInfo(entry["zone"])
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadWindow(f"{where}.zone: expected an IANA zone like Europe/Berlin") from None
    try:
        start, end = (_time(entry[key], daily=repeat == "daily") for key in ("start", "end"))
    except ValueError:
        form = "HH:MM" if repeat == "daily" else "a local time like 2026-06-15T02:00"
        raise BadWindow(f"{where}: expected start and end as {form}") from None
    if repeat == "daily" and end <= start:
        end += _DAY
    if not start < end <= start + {"none": _LONGEST, "daily": _DAY, "weekly": 7 * _DAY}[repeat]:
        raise BadWindow(f"{where}: expected an end after the start and within the repetition (31 days without one)")
    return Window(start, end, zone, repeat)


def _time(text: str, *, daily: bool) -> datetime:
    """A wall-clock time. Raises ValueError."""
    if daily:
        return datetime.combine(datetime(2001, 1, 1), time.fromisoformat(text))  # noqa: DTZ001 - local by design
    found = datetime.fromisoformat(text)
    if found.tzinfo is not None:
        raise ValueError("a local time has no offset")
    return found
