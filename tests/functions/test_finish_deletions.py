"""finish_deletions: what was begun ends without its caller, and accounts that a restore brought back go again."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from shared import erasure, holds
from shared.accounts import progress
from shared.database import Database
from shared.errors import Outcome
from shared.settings import Settings
from tests.accounts.fixtures import Answer
from tests.accounts.fixtures import ask as ask
from tests.accounts.fixtures import using as using
from tests.accounts.fixtures import world as world
from tests.accounts.world import KEY, World, fill
from tests.conftest import ManualClock, RunTask

Ask = Callable[..., Answer]


def begun(world: World, name: str) -> None:
    with world.db.transaction() as connection:
        progress.begin(connection, name, f"uid-{name}", KEY, world.clock.now())


def test_nothing_begun_is_nothing_done(world: World, run_task: RunTask, using: Settings) -> None:
    world.account("kept91bc")
    result = run_task("finish_deletions", using=using)
    assert (result.outcome, result.counts) == (Outcome.OK, {})
    assert world.traces("kept91bc")["user_profile"] == 1


def test_a_deletion_whose_caller_went_away_is_finished_and_a_fresh_one_left_to_its_caller(
    world: World, run_task: RunTask, using: Settings, clock: ManualClock
) -> None:
    world.account("gone7f3a")
    begun(world, "gone7f3a")
    clock.advance(timedelta(seconds=89))
    assert run_task("finish_deletions", using=using).counts == {}
    clock.advance(timedelta(seconds=1))
    assert run_task("finish_deletions", using=using).counts["accounts.deleted"] == 1
    assert world.traces("gone7f3a") == {}


def test_one_that_is_held_or_fails_hides_no_other(
    world: World, run_task: RunTask, using: Settings, clock: ManualClock, db: Database
) -> None:
    for name in ("held2d5e", "hung6a", "gone7f3a"):
        world.account(name, rows=1, customer=False)
        begun(world, name)
    world.account("kept91bc", rows=1, customer=False)
    with db.transaction() as connection:
        holds.add(connection, reason="a case", by="counsel", now=clock.now(), account="held2d5e")
        connection.execute(
            text("""
                update monitored_service set status_page_id = (select id from status_page where account_id = 'hung6a')
                 where account_id = 'kept91bc'""")
        )
    clock.advance(timedelta(minutes=2))
    result = run_task("finish_deletions", using=using)
    assert result.outcome is Outcome.PARTIAL
    assert (result.counts["held"], result.counts["accounts.deleted"]) == (1, 1)
    assert "hung" not in str(result.error)
    assert "gone7f3a" not in world.traces("gone7f3a")
    assert world.traces("held2d5e")["user_profile"] == 1


def test_an_account_that_a_restore_of_the_database_brought_back_goes_again(
    world: World, ask: Ask, run_task: RunTask, using: Settings, clock: ManualClock, db: Database
) -> None:
    world.account("gone7f3a", rows=1, customer=False)
    world.account("kept91bc", rows=1, customer=False)
    assert ask(token=world.token("gone7f3a"))[0] == 200
    with db.transaction() as connection:  # as the database was before
        connection.execute(text("delete from groundskeeper.erasure"))
        fill(connection, "gone7f3a", "uid-gone7f3a", None, 1, clock.now())
        assert not erasure.erased(connection, "gone7f3a", KEY)
    clock.advance(timedelta(hours=1))
    result = run_task("finish_deletions", using=using, params={"replay": True, "after_s": 0})
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["tombstones_brought_back"] == 1
    assert (result.counts["accounts_back"], result.counts["accounts.deleted"]) == (1, 1)
    assert world.traces("gone7f3a") == {}
    assert world.traces("kept91bc")["user_profile"] == 1


def test_an_erased_account_is_known_by_its_keyed_hash_only(world: World, ask: Ask, db: Database) -> None:
    world.account("gone7f3a", rows=1, customer=False)
    ask(token=world.token("gone7f3a"))
    with db.transaction() as connection:
        assert erasure.erased(connection, "gone7f3a", KEY)
        assert not erasure.erased(connection, "gone7f3a", "another key")
        assert not erasure.erased(connection, "gone7f3", KEY)
        assert erasure.among(connection, ["gone7f3a", "kept91bc"], KEY) == {"gone7f3a"}


def test_a_rerun_and_two_at_once_end_the_same(
    world: World, run_task: RunTask, using: Settings, clock: ManualClock
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    world.account("gone7f3a", rows=4, customer=False)
    begun(world, "gone7f3a")
    clock.advance(timedelta(minutes=2))

    def delete(_: int) -> Any:
        return run_task("delete_account", world.call("DELETE", token=world.token("gone7f3a")), using=using)

    with ThreadPoolExecutor(3) as at_once:
        results = list(at_once.map(delete, range(3)))
    assert {r.outcome for r in results} <= {Outcome.OK, Outcome.RETRY}
    assert sum(r.counts.get("accounts.deleted", 0) for r in results) == 1
    assert world.traces("gone7f3a") == {}
