"""Nobody else's data: whatever accounts are called, deleting one leaves the others' rows and objects as they were."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from shared.accounts import progress, stored
from shared.accounts.inventory import PROFILE, REPORTS, STORES
from shared.errors import Outcome
from shared.settings import Settings
from tests.accounts.fixtures import using as using
from tests.accounts.fixtures import world as world
from tests.accounts.world import KEY, World, fill
from tests.conftest import RunTask

# Ids that begin, contain and quote each other, and signs that mean something to SQL, to LIKE and to paths.
_ID = st.text(alphabet="ab%_'\"/\\. é", min_size=1, max_size=4)
_NAMES = st.lists(_ID, min_size=2, max_size=4, unique=True)
_CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def _others(world: World, gone: str, reports: Mapping[str, set[int]]) -> dict[str, list[str]]:
    """Every row that is not of `gone`."""
    with world.db.transaction() as connection:
        rows = {
            store.table: connection.execute(
                text(f"select cast(t as text) from {store.table} t where ({store.match}) is not true order by 1"),
                {"account": gone},
            ).scalars().all()
            for store in (*STORES, PROFILE)
        }  # fmt: skip
        for store in REPORTS:
            rows[store.table] = connection.execute(
                text(f"select cast(t as text) from {store.table} t where not id = any(:ids) order by 1"),
                {"ids": sorted(reports[store.table])},
            ).scalars().all()  # fmt: skip
    return {table: list(found) for table, found in rows.items()}


def _objects(world: World) -> list[Path]:
    return sorted(p for bucket in ("general", "telemetry") for p in (world.objects / bucket).rglob("*") if p.is_file())


def _delete_one(world: World, run_task: RunTask, using: Settings, names: list[str], rows: list[int]) -> None:
    gone = names[0]
    with world.db.transaction() as connection:
        connection.execute(text("truncate user_profile, bug_report, threat_report, groundskeeper.erasure cascade"))
        connection.execute(text("truncate outbox_event, groundskeeper.outbox, groundskeeper.billing_event"))
        connection.execute(text("truncate groundskeeper.billing_grant, groundskeeper.billing_customer"))
        for number, (name, count) in enumerate(zip(names, rows, strict=False)):
            fill(connection, name, f"uid-{name}", f"cus_{number}" if number else None, count, world.clock.now())
        reports = {
            store.table: set(
                connection.execute(
                    text(f"select id from {store.table} where account_id = :gone"), {"gone": gone}
                ).scalars()
            )
            for store in REPORTS
        }
        progress.begin(connection, gone, f"uid-{gone}", KEY, world.clock.now() - timedelta(hours=1))
    for name in names:
        place = world.objects / "general" / stored.prefix(name)
        place.mkdir(parents=True, exist_ok=True)
        (place / "one.bin").write_bytes(b"1")
    rows_before, objects_before = _others(world, gone, reports), _objects(world)
    result = run_task("finish_deletions", using=using)
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["accounts.deleted"] == 1
    assert _others(world, gone, reports) == rows_before
    own = world.objects / "general" / stored.prefix(gone) / "one.bin"
    assert _objects(world) == [p for p in objects_before if p != own]
    with world.db.transaction() as connection:
        assert all(store.count(connection, gone) == 0 for store in (*STORES, *REPORTS, PROFILE))


_GIVEN: Any = given(names=_NAMES, rows=st.lists(st.integers(0, 3), min_size=4, max_size=4))


@settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=_CHECKS)
@_GIVEN
def test_others_keep_every_row_and_object(
    world: World, run_task: RunTask, using: Settings, names: list[str], rows: list[int]
) -> None:
    _delete_one(world, run_task, using, names, rows)


@pytest.mark.full
@pytest.mark.timeout(900)
@settings(max_examples=50, deadline=None, suppress_health_check=_CHECKS)
@_GIVEN
def test_others_keep_every_row_and_object_whatever_they_are_called(
    world: World, run_task: RunTask, using: Settings, names: list[str], rows: list[int]
) -> None:
    _delete_one(world, run_task, using, names, rows)
