"""Which backups are kept: pure decisions."""

from datetime import UTC, datetime, timedelta

import yaml
from hypothesis import given
from hypothesis import strategies as st

from shared.backup import shelf
from shared.backup.shelf import Entry, Keep
from shared.manifest import ROOT
from tests.conftest import NOW

KEEP = Keep(daily=9, weekly=2, monthly=2)
DAY = timedelta(days=1)


def test_the_newest_of_each_day_week_and_month_is_kept() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    found = [Entry(f"{n:04}", start + n * timedelta(hours=12)) for n in range(2 * 181)]  # to June 30
    kept = shelf.kept(found, KEEP)
    by_name = {e.name: e.taken_at for e in found}
    graded = {
        grade: sorted(by_name[name].date() for name, grades in kept.items() if grade in grades)
        for grade in ("daily", "weekly", "monthly")
    }
    assert graded["daily"] == [datetime(2026, 6, day, tzinfo=UTC).date() for day in range(22, 31)]
    assert graded["weekly"] == [datetime(2026, 6, day, tzinfo=UTC).date() for day in (28, 30)]
    assert graded["monthly"] == [datetime(2026, *md, tzinfo=UTC).date() for md in ((5, 31), (6, 30))]
    assert all(by_name[name].hour == 12 for name in kept)


def test_the_last_verified_and_the_newest_and_the_young_are_never_removed() -> None:
    found = [Entry(str(age), NOW - age * DAY) for age in range(200, 100, -1)]
    assert "150" not in shelf.removable(found, KEEP, verified="150", now=NOW)
    assert "101" not in shelf.removable(found, KEEP, verified="150", now=NOW)
    young = [Entry(f"h{hour}", NOW - timedelta(hours=hour)) for hour in range(24 * 8, 0, -1)]
    assert shelf.removable(young, KEEP, verified=None, now=NOW) == []


@given(
    ages=st.lists(st.integers(0, 24 * 800), max_size=60, unique=True),
    daily=st.integers(9, 30),
    weekly=st.integers(0, 10),
    monthly=st.integers(0, 24),
)
def test_removing_twice_removes_nothing_more_and_a_backup_always_stays(
    ages: list[int], daily: int, weekly: int, monthly: int
) -> None:
    keep = Keep(daily, weekly, monthly)
    found = [Entry(f"{hours:05}", NOW - timedelta(hours=hours)) for hours in sorted(ages, reverse=True)]
    verified = found[len(found) // 2].name if found else None
    gone = set(shelf.removable(found, keep, verified=verified, now=NOW))
    left = [entry for entry in found if entry.name not in gone]
    assert shelf.removable(left, keep, verified=verified, now=NOW) == []
    assert verified not in gone
    assert bool(left) == bool(found)
    assert len(left) <= daily + weekly + monthly + 2 + sum(hours <= 24 * 8 for hours in ages)


def test_nothing_is_removed_that_the_bucket_would_not_let_go() -> None:
    bucket = yaml.safe_load((ROOT / "terraform" / "data" / "buckets.yaml").read_text())[shelf.BUCKET]
    assert timedelta(days=bucket["retention_days"]) < shelf.LEAST_AGE
