"""Slots: the boundary instants, both ways, and that a list of slots agrees with next and last."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.manifest import Cron, Every, Topic
from shared.schedule import last_slot, next_slot, slots


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "last", "following"),
    [
        ("2026-06-15 01:59:59.999999", "2026-06-14 02:00", "2026-06-15 02:00"),
        ("2026-06-15 02:00:00", "2026-06-15 02:00", "2026-06-16 02:00"),
        ("2026-06-15 02:00:59.999999", "2026-06-15 02:00", "2026-06-16 02:00"),
    ],
)
def test_a_daily_slot_at_its_boundary_instants(moment: str, last: str, following: str) -> None:
    daily = Cron("0 2 * * *")
    assert last_slot(daily, at(moment)) == at(last)
    assert next_slot(daily, at(moment)) == at(following)


def test_an_every_trigger_has_a_slot_a_minute() -> None:
    assert next_slot(Every(5), at("2026-06-15 02:00:00")) == at("2026-06-15 02:01")
    assert last_slot(Every(5), at("2026-06-15 02:00:30")) == at("2026-06-15 02:00")


def test_a_topic_has_no_slot() -> None:
    assert next_slot(Topic("events"), at("2026-06-15 02:00")) is None
    assert last_slot(Topic("events"), at("2026-06-15 02:00")) is None


def test_monthly_and_quarterly_slots_of_a_year() -> None:
    year = (at("2026-01-01 00:00"), at("2027-01-01 00:00"))
    assert len(list(slots(Cron("0 0 1 * *"), *year))) == 12
    assert [s.month for s in slots(Cron("0 0 1 1,4,7,10 *"), *year)] == [1, 4, 7, 10]


MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(max_examples=60, deadline=None)
@given(MOMENTS, st.sampled_from(["0 2 * * *", "*/5 * * * *", "0 0 1 * *", "30 3 * * 0", "0 0 29 2 *"]))
def test_next_last_and_the_list_of_slots_agree(moment: datetime, expression: str) -> None:
    trigger = Cron(expression)
    following, last = next_slot(trigger, moment), last_slot(trigger, moment)
    assert following is not None
    assert last is not None
    assert last <= moment < following
    assert list(slots(trigger, last, following)) == [last]
    assert next_slot(trigger, last) == following
    assert list(slots(trigger, last + timedelta(microseconds=1), following + timedelta(microseconds=1))) == [following]
