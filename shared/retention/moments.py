"""A cutoff in the terms of a column: with a zone, without one, a day, or a count since 1970.

Where a column says less than a moment, the doubt is the row's: it stays until every reading of it is past.
"""

from datetime import date, datetime, timedelta
from math import floor
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from shared.retention.rules import Rule

Bound = datetime | date | int

_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")


def bound(rule: Rule, kind: str, cutoff: datetime) -> Bound:
    """What a value of `rule`'s timestamp, of the SQL type `kind`, must be below to be surely before `cutoff`.

    Raises ValueError in words where the rule does not say how to read such a column.
    """
    if kind == "timestamp with time zone":
        return cutoff
    if kind == "timestamp without time zone":
        if not rule.assume_tz:
            raise ValueError(f"{rule.table}.{rule.timestamp} has no zone: add assume_tz, such as Europe/Berlin or UTC")
        return _local(cutoff, _zone(rule.assume_tz))
    if kind == "date":
        # A day is over when its last moment is, where its day is counted.
        return cutoff.astimezone(_zone(rule.assume_tz or "UTC")).date()
    if kind in _NUMBERS:
        if not rule.unit:
            raise ValueError(f"{rule.table}.{rule.timestamp} is a number: add unit, s or ms since 1970")
        return floor(cutoff.timestamp() * (1000 if rule.unit == "ms" else 1))
    raise ValueError(
        f"{rule.table}.{rule.timestamp} is of type {kind}: expected timestamptz, timestamp, date or a number"
    )


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"assume_tz: there is no zone {name!r}: write an IANA name such as Europe/Berlin") from None


def _local(cutoff: datetime, zone: ZoneInfo) -> datetime:
    local = cutoff.astimezone(zone)
    first, second = local.replace(fold=0).utcoffset(), local.replace(fold=1).utcoffset()
    naive = local.replace(tzinfo=None, fold=0)
    if local.fold == 0 and first is not None and second is not None and second < first:
        # This hour of the clock comes a second time, after the cutoff: what it stamps may still be young.
        return naive - (first - second)
    return naive


def read_bound(kind: str, text: str) -> Bound | None:
    """A partition's bound, as the catalogue shows it in UTC; None where it is no plain value (MAXVALUE, infinity)."""
    value = text.strip().strip("'")
    try:
        if kind.startswith("timestamp"):
            return datetime.fromisoformat(value)
        if kind == "date":
            return date.fromisoformat(value)
        return int(value)
    except ValueError:
        return None


def age(rule: Rule, kind: str, value: object, now: datetime) -> timedelta | None:
    """How old a row with this timestamp is; None for one that is no moment (-infinity)."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=_zone(rule.assume_tz or "UTC"))
        return now - aware
    if isinstance(value, date):
        return now - datetime(value.year, value.month, value.day, tzinfo=_zone(rule.assume_tz or "UTC"))
    if kind in _NUMBERS and value is not None:
        return timedelta(seconds=now.timestamp() - float(str(value)) / (1000 if rule.unit == "ms" else 1))
    return None
