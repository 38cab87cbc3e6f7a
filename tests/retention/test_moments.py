"""A cutoff in a column's own terms: whatever a value may mean, a young row is never read as an old one."""

# ruff: noqa: DTZ001 - values without a zone are what is tested

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clock import months_before
from shared.retention.moments import bound, read_bound
from shared.retention.rules import Rule

NAIVE, DATE = "timestamp without time zone", "date"
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia")


def rule(**given: str) -> Rule:
    return Rule(name="r", table="t", timestamp="at", keep_days=30, **given)  # type: ignore[arg-type]


@given(
    st.datetimes(datetime(2015, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(ZONES),
    st.timedeltas(timedelta(0), timedelta(hours=30)),
)
def test_what_happened_at_or_after_the_cutoff_is_never_below_its_bound(
    cutoff: datetime, zone: str, later: timedelta
) -> None:
    moment = (cutoff + later).astimezone(ZoneInfo(zone))
    assert not moment.replace(tzinfo=None) < bound(rule(assume_tz=zone), NAIVE, cutoff)
    assert not moment.date() < bound(rule(assume_tz=zone), DATE, cutoff)
    for unit, scale in (("s", 1), ("ms", 1000)):
        assert not int(moment.timestamp() * scale) < bound(rule(unit=unit), "bigint", cutoff)


@given(st.datetimes(datetime(2015, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)), st.sampled_from(ZONES))
def test_what_happened_two_days_before_the_cutoff_is_always_below_it(cutoff: datetime, zone: str) -> None:
    moment = (cutoff - timedelta(days=2)).astimezone(ZoneInfo(zone))
    assert moment.replace(tzinfo=None) < bound(rule(assume_tz=zone), NAIVE, cutoff)  # type: ignore[operator]
    assert moment.date() < bound(rule(assume_tz=zone), DATE, cutoff)  # type: ignore[operator]


def test_in_the_hour_that_comes_twice_the_later_reading_counts() -> None:
    # Berlin's clock went from 03:00 back to 02:00 at 01:00 UTC; 02:15 may mean 00:15 or 01:15.
    cutoff = datetime(2025, 10, 26, 0, 30, tzinfo=UTC)
    assert bound(rule(assume_tz="Europe/Berlin"), NAIVE, cutoff) == datetime(2025, 10, 26, 1, 30)
    later = datetime(2025, 10, 26, 1, 30, tzinfo=UTC)
    assert bound(rule(assume_tz="Europe/Berlin"), NAIVE, later) == datetime(2025, 10, 26, 2, 30)


@pytest.mark.parametrize(
    ("kind", "shown", "meant"),
    [
        ("timestamp with time zone", "'2026-05-01 00:00:00+00'", datetime(2026, 5, 1, tzinfo=UTC)),
        (NAIVE, "'2026-05-01 12:30:00'", datetime(2026, 5, 1, 12, 30)),
        (DATE, "'2026-05-01'", date(2026, 5, 1)),
        ("bigint", "'1700000000'", 1700000000),
        ("timestamp with time zone", "MAXVALUE", None),
        (DATE, "'infinity'", None),
        (DATE, "'0044-03-15 BC'", None),
    ],
)
def test_a_partitions_bound_is_read_or_known_to_be_unreadable(kind: str, shown: str, meant: object) -> None:
    assert read_bound(kind, shown) == meant


def test_an_unknown_zone_is_told() -> None:
    with pytest.raises(ValueError, match="IANA"):
        bound(rule(assume_tz="Middle/Earth"), NAIVE, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("now", "months", "earlier"),
    [
        ("2026-06-15T12:00:00", 18, "2024-12-15T12:00:00"),
        ("2026-01-31T23:59:59", 12, "2025-01-31T23:59:59"),
        ("2025-02-28T18:00:00", 12, "2024-02-28T18:00:00"),  # the leap day is not twelve months old yet
        ("2025-03-01T00:00:00", 12, "2024-03-01T00:00:00"),  # and now it is
        ("2026-03-31T12:00:00", 1, "2026-03-01T00:00:00"),  # no 31 February: February is over
        ("2024-03-30T12:00:00", 1, "2024-03-01T00:00:00"),
        ("2026-08-31T12:00:00", 18, "2025-03-01T00:00:00"),
    ],
)
def test_calendar_months_are_counted_by_the_calendar(now: str, months: int, earlier: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert months_before(moment, months) == datetime.fromisoformat(earlier).replace(tzinfo=UTC)


@given(
    st.datetimes(datetime(2015, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    st.timedeltas(timedelta(0), timedelta(days=40)),
    st.integers(1, 30),
)
def test_a_later_moment_never_has_an_earlier_cutoff(now: datetime, later: timedelta, months: int) -> None:
    assert months_before(now, months) <= months_before(now + later, months) <= now + later
