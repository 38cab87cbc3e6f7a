"""Time as an argument, so that a test or a simulation can replace it. The core's only reader of the system clock."""

import time
from datetime import UTC, date, datetime, timedelta
from datetime import time as datetime_time
from typing import Protocol


class Clock(Protocol):
    """What tells the time: aware UTC `now`, `monotonic` seconds for durations, and `sleep` in seconds."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))


def rfc3339(moment: datetime) -> str:
    """`moment` as RFC 3339 in UTC with a Z, microseconds only where there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_rfc3339(text: str) -> datetime:
    """The moment in `text`. Raises ValueError when it is not RFC 3339 with an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset: expected RFC 3339 like 2026-01-01T02:00:00Z")
    return moment.astimezone(UTC)


def end_of_day(text: str) -> datetime:
    """The last instant, in UTC, of a date like 2027-01-01. Raises ValueError for anything else."""
    return datetime.combine(date.fromisoformat(text), datetime_time.max, UTC)


def months_before(moment: datetime, months: int) -> datetime:
    """The moment as many calendar months earlier, in UTC.

    Where that month has no such day, its end: nothing is read as older than it is, and a later moment never gives
    an earlier answer.
    """
    at = moment.astimezone(UTC)
    years, month = divmod(at.year * 12 + at.month - 1 - months, 12)
    first = at.replace(year=years, month=month + 1, day=1)
    earlier = first + timedelta(days=at.day - 1)
    if earlier.month == first.month:
        return earlier
    return earlier.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
