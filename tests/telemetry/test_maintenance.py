"""Maintenance windows in the owner's time: edges, midnights, clock changes, and what nobody can read."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.telemetry.maintenance import BadWindow, under_maintenance, windows

INSTANT = timedelta(microseconds=1)
BERLIN = "Europe/Berlin"


def window(start: str, end: str, repeat: str = "daily", zone: str = BERLIN) -> dict[str, str]:
    return {"start": start, "end": end, "zone": zone, "repeat": repeat}


def covers(document: dict[str, str], moment: str) -> bool:
    return under_maintenance(windows([document]), datetime.fromisoformat(moment).replace(tzinfo=UTC))


def test_the_start_is_in_the_window_and_the_end_is_not() -> None:
    found = windows([window("02:00", "02:30")])  # 00:00 to 00:30 UTC in summer
    start, end = datetime(2026, 6, 15, 0, 0, tzinfo=UTC), datetime(2026, 6, 15, 0, 30, tzinfo=UTC)
    assert [under_maintenance(found, m) for m in (start - INSTANT, start, end - INSTANT, end)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("document", "moment", "inside"),
    [
        (window("02:00", "02:30"), "2026-01-15T01:15", True),  # winter: an hour later in UTC
        (window("02:00", "02:30"), "2026-01-15T00:15", False),
        (window("23:30", "00:30", zone="UTC"), "2026-06-15T23:45", True),  # over midnight
        (window("23:30", "00:30", zone="UTC"), "2026-06-16T00:15", True),
        (window("23:30", "00:30", zone="UTC"), "2026-06-16T00:45", False),
        (window("00:00", "00:00", zone="UTC"), "2026-06-16T17:00", True),  # all day
        (window("09:00", "10:00", zone="Pacific/Kiritimati"), "2026-06-14T19:30", True),  # 14 hours ahead
        (window("09:00", "10:00", zone="America/St_Johns"), "2026-06-15T11:45", True),  # half an hour off
        (window("2026-06-15T02:00", "2026-06-15T04:00", "none"), "2026-06-15T01:00", True),
        (window("2026-06-15T02:00", "2026-06-15T04:00", "none"), "2026-06-22T01:00", False),
        (window("2026-06-15T02:00", "2026-06-15T04:00", "weekly"), "2026-06-22T01:00", True),
        (window("2026-06-15T02:00", "2026-06-15T04:00", "weekly"), "2026-06-23T01:00", False),
        (window("2026-06-15T02:00", "2026-06-15T04:00", "weekly"), "2026-06-08T01:00", False),  # not before the first
        (window("2026-06-15T02:00", "2026-06-15T04:00", "weekly"), "2026-12-07T02:00", True),  # and in winter
        (window("2026-06-12T22:00", "2026-06-15T06:00", "weekly"), "2026-06-21T12:00", True),  # a weekend
        (window("2026-06-12T22:00", "2026-06-15T06:00", "weekly"), "2026-06-22T05:00", False),
    ],
)
def test_a_window_is_in_its_owners_time(document: dict[str, str], moment: str, inside: bool) -> None:
    assert covers(document, moment) is inside


@pytest.mark.parametrize(
    ("moment", "inside"),
    [("2026-10-25T00:15", True), ("2026-10-25T01:15", True), ("2026-10-25T01:45", False), ("2026-10-24T23:45", False)],
)
def test_an_hour_that_comes_twice_is_maintenance_both_times(moment: str, inside: bool) -> None:
    assert covers(window("02:00", "02:30"), moment) is inside


def test_an_hour_that_does_not_exist_moves_the_window_later() -> None:
    night = window("02:00", "02:30")  # 29 March 2026: 02:00 is 03:00
    assert covers(night, "2026-03-29T01:15")
    assert not covers(night, "2026-03-29T00:45")
    assert not covers(night, "2026-03-29T01:30")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "list"),
        ([1], "texts"),
        ([{"start": "02:00"}], "texts"),
        ([{**window("02:00", "03:00"), "note": "x"}], "texts"),
        ([window("02:00", "03:00", "hourly")], "repeat"),
        ([window("02:00", "03:00", zone="Mars/Olympus")], "zone"),
        ([window("02:00", "03:00", zone="../../etc/passwd")], "zone"),
        ([window("25:00", "03:00")], "HH:MM"),
        ([window("02:00", "03:00", "none")], "local time"),
        ([window("2026-06-15T02:00+02:00", "2026-06-15T03:00", "none")], "local time"),
        ([window("2026-06-15T02:00", "2026-06-15T02:00", "none")], "end after the start"),
        ([window("2026-06-15T02:00", "2026-08-15T02:00", "none")], "end after the start"),
        ([window("2026-06-15T02:00", "2026-06-25T02:00", "weekly")], "end after the start"),
    ],
)
def test_a_window_nobody_can_read_is_refused_in_words(document: Any, words: str) -> None:
    with pytest.raises(BadWindow, match=words):
        windows(document)


def test_no_window_is_no_maintenance() -> None:
    assert not under_maintenance(windows([]), datetime(2026, 6, 15, tzinfo=UTC))
