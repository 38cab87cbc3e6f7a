"""kill -9 between every two steps of a deletion: the next run ends it, with nothing left and nobody else touched."""

import itertools
import re
from datetime import timedelta
from typing import Any

import pytest

from shared.accounts import progress
from shared.clock import rfc3339
from shared.manifest import FUNCTIONS
from shared.settings import Settings
from tests.accounts import world as worlds
from tests.accounts.fixtures import using as using
from tests.accounts.fixtures import world as world
from tests.accounts.world import KEY, World
from tests.conftest import NOW
from tests.killing import Killer, killer

_numbers = itertools.count(1)


def _delete(world: World, kill: Killer, step: int | None) -> tuple[int, dict[str, Any]]:
    """Delete an account of its own, killed at `step` and gone on with; the first run's steps, and the receipt."""
    number = next(_numbers)
    name, slot = f"gone{number:05d}x", rfc3339(NOW + timedelta(minutes=5 * number))
    world.account(name, rows=1)
    with world.db.transaction() as connection:
        begun = progress.begin(connection, name, f"uid-{name}", KEY, NOW)
    life = kill.run(slot=slot, now=slot, step=step)
    if step is not None:
        assert life.killed, step
        with world.db.transaction() as connection:
            connection.exec_driver_sql(
                "update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s'"
            )
        again = kill.run(slot=slot, now=slot)
        assert again.outcome in ("ok", "skipped"), (step, again)
    else:
        assert life.outcome == "ok", life.error
    assert world.traces(name) == {}, step
    assert world.files(name) == [], step
    with world.db.transaction() as connection:
        done = progress.locked(connection, begun.erasure_id)
    assert done.receipt is not None, step
    return life.steps, dict(done.receipt)


def _plain(receipt: dict[str, Any]) -> dict[str, Any]:
    """What must be the same however often it was killed: all but times, and what went uncounted into the kill."""
    told = {k: v for k, v in receipt.items() if not re.search("_at|_id|still_exists", k)}
    ended = told.pop("subscription")
    deleted = dict(told.pop("deleted"))
    objects = deleted.pop("objects")
    assert objects in (2, 3)
    assert ended["cancelled"] + ended["ended_before"] == 1
    return {**told, "deleted": deleted}


def _each(world: World, kill: Killer, *, start: int, every: int) -> int:
    world.account("kept91bc", rows=1)
    steps, undisturbed = _delete(world, kill, None)
    before, files = worlds.snapshot(world.db, without="gone"), world.files("kept91bc")
    for step in range(start, steps + 1, every):
        assert _plain(_delete(world, kill, step)[1]) == _plain(undisturbed), step
    after = worlds.snapshot(world.db, without="gone")
    emptied = ("bug_report", "threat_report", "data_encryption_key")  # what stays of those that are gone
    assert {t: r for t, r in after.items() if t not in emptied} == {t: r for t, r in before.items() if t not in emptied}
    assert all(set(before[t]) <= set(after[t]) for t in emptied)
    assert world.files("kept91bc") == files
    assert {s["status"] for s in world.stripe_store.newest("subscription")} == {"active", "canceled"}
    assert len([s for s in world.stripe_store.newest("subscription") if s["status"] == "active"]) == 1
    return steps


def test_killed_at_some_steps_the_next_run_ends_the_deletion(world: World, using: Settings) -> None:
    with killer(dict(using.environ), FUNCTIONS / "finish_deletions") as kill:
        _each(world, kill, start=40, every=60)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_killed_at_every_fourth_step_the_next_run_ends_the_deletion(world: World, using: Settings) -> None:
    with killer(dict(using.environ), FUNCTIONS / "finish_deletions") as kill:
        assert _each(world, kill, start=1, every=4) > 150  # every=1 is the whole proof, of some minutes
