"""Plans, caps, approvals, the backup gate: what a destructive run may do, and who allowed it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared import plans
from shared.call import by_hand, of_slot
from shared.database import Database
from shared.errors import Outcome, Refused
from shared.manifest import Cron
from shared.result import Result
from shared.settings import Settings
from tests.conftest import NOW, ManualClock
from tests.shared.conftest import MakeTask

Rows = Callable[..., list[Any]]
SLOT = of_slot(Cron("0 6 * * *"), datetime(2026, 6, 15, 6, tzinfo=UTC))

DESTRUCTIVE = {"extra": "destructive: true\ncaps: {rows: 5}"}
DELETES = """
with ctx.read() as connection:
    due = connection.execute(text("select count(*) from victim where at < :now"), {"now": ctx.now}).scalar_one()
ctx.authorize(Plan((Item("victim", due),), predicates={"victim": f"at < {ctx.now.isoformat()}"}))
with ctx.begin() as connection:
    ctx.count("deleted", connection.execute(text("delete from victim where at < :now"), {"now": ctx.now}).rowcount)
return ctx.counts
"""


@pytest.fixture
def victims(db: Database) -> Callable[[int], None]:
    def insert(number: int) -> None:
        with db.transaction() as connection:
            connection.execute(text("create table if not exists victim (at timestamptz)"))
            connection.execute(
                text("insert into victim select :at from generate_series(1, :n)"),
                {"at": NOW - timedelta(days=1), "n": number},
            )

    return insert


def approved(db: Database, clock: ManualClock, by: str = "ann", operators: tuple[str, ...] = ("ann", "bob")) -> str:
    """Approve the one open approval; its plan's hash."""
    with db.transaction() as connection:
        (waiting,) = plans.pending(connection, clock.now())
        return plans.decide(
            connection,
            waiting.approval_id,
            approve=True,
            by=by,
            why="looked at it",
            now=clock.now(),
            operators=operators,
        ).plan_hash


def ask(db: Database, clock: ManualClock, plan_hash: str | None = None, **asking: Any) -> Any:
    with db.transaction() as connection:
        return by_hand(
            plans.request_run(
                connection,
                task="sample_task",
                actor="ann",
                why="a test",
                now=clock.now(),
                plan_hash=plan_hash,
                **asking,
            )
        )


def count(rows: Rows) -> int:
    return int(rows("select count(*) n from victim")[0].n)


def test_below_the_cap_a_run_acts_and_its_plan_is_kept(make: MakeTask, victims: Any, rows: Rows) -> None:
    victims(5)
    result = make(DELETES, **DESTRUCTIVE).execute(SLOT)
    assert (result.outcome, result.counts) == (Outcome.OK, {"deleted": 5})
    (kept,) = rows("select plan_hash, items from groundskeeper.plan")
    assert kept.plan_hash == result.plan_hash
    assert [(i["what"], i["count"]) for i in kept.items] == [("victim", 5)]


def test_a_plan_writes_nothing_and_shows_what_a_run_would_do(
    make: MakeTask, victims: Any, db: Database, clock: ManualClock, rows: Rows
) -> None:
    victims(5)
    result = make(DELETES, **DESTRUCTIVE).execute(ask(db, clock, planning=True))
    assert result.outcome is Outcome.PLANNED
    assert result.counts == {"planned.rows": 5}
    assert result.plan is not None
    assert result.plan["items"][0]["count"] == 5
    assert count(rows) == 5


def test_observe_mode_plans_nightly_and_writes_nothing(
    make: MakeTask, victims: Any, settings: Settings, rows: Rows
) -> None:
    victims(5)
    result = make(DELETES, using=replace(settings, mode="observe"), **DESTRUCTIVE).execute(SLOT)
    assert result.outcome is Outcome.PLANNED
    assert count(rows) == 5


def test_a_planning_run_cannot_write_even_by_mistake(
    make: MakeTask, db: Database, clock: ManualClock, rows: Rows
) -> None:
    body = 'with ctx.begin() as connection:\n    connection.execute(text("create table oops ()"))\nreturn {}'
    assert make(body).execute(ask(db, clock, planning=True)).outcome is Outcome.PLANNED
    assert rows("select to_regclass('oops') as found")[0].found is None


def test_a_destructive_task_that_skips_its_plan_is_a_defect(make: MakeTask, victims: Any, rows: Rows) -> None:
    victims(1)
    result = make(
        'with ctx.begin() as c:\n    c.execute(text("delete from victim"))\nreturn {}', **DESTRUCTIVE
    ).execute(SLOT)
    assert result.outcome is Outcome.FAILED
    assert count(rows) == 1


def above_cap(make: MakeTask, victims: Any) -> tuple[Any, Result]:
    victims(6)
    runner = make(DELETES, **DESTRUCTIVE)
    return runner, runner.execute(SLOT)


def test_above_the_cap_a_run_is_refused_before_its_first_write(make: MakeTask, victims: Any, rows: Rows) -> None:
    _, result = above_cap(make, victims)
    assert result.outcome is Outcome.REFUSED
    assert "6 rows (at most 5)" in (result.error or "")
    assert count(rows) == 6
    (approval,) = rows("select plan_hash, requested_by, expires_at, decided_at from groundskeeper.approval")
    assert (approval.plan_hash, approval.requested_by) == (result.plan_hash, "scheduler")
    assert approval.expires_at == NOW + plans.APPROVAL_LIFETIME


def test_an_approved_run_has_its_plans_cutoff_and_deletes_no_more(
    make: MakeTask, victims: Any, db: Database, clock: ManualClock, rows: Rows
) -> None:
    runner, _ = above_cap(make, victims)
    plan_hash = approved(db, clock)
    clock.advance(timedelta(hours=3))
    rows(
        "insert into victim values (:at) returning 1", at=NOW + timedelta(hours=1)
    )  # past, but after the plan's moment
    result = runner.execute(ask(db, clock, plan_hash))
    assert (result.outcome, result.counts) == (Outcome.OK, {"deleted": 6})
    assert count(rows) == 1


def test_an_approval_is_spent_by_one_run(make: MakeTask, victims: Any, db: Database, clock: ManualClock) -> None:
    runner, _ = above_cap(make, victims)
    plan_hash = approved(db, clock)
    assert runner.execute(ask(db, clock, plan_hash)).outcome is Outcome.OK
    victims(6)
    again = runner.execute(ask(db, clock, plan_hash))
    assert again.outcome is Outcome.REFUSED
    assert "no unused approval" in (again.error or "")


def test_an_approved_run_refuses_above_what_was_approved(
    make: MakeTask, victims: Any, db: Database, clock: ManualClock, rows: Rows
) -> None:
    runner, _ = above_cap(make, victims)
    plan_hash = approved(db, clock)
    victims(1)
    result = runner.execute(ask(db, clock, plan_hash))
    assert result.outcome is Outcome.REFUSED
    assert count(rows) == 7


def test_an_unapproved_plan_above_the_cap_cannot_be_run_by_its_hash(
    make: MakeTask, victims: Any, db: Database, clock: ManualClock, rows: Rows
) -> None:
    runner, refused = above_cap(make, victims)
    assert runner.execute(ask(db, clock, refused.plan_hash)).outcome is Outcome.REFUSED
    assert count(rows) == 6


def test_an_approval_expires_at_its_moment(make: MakeTask, victims: Any, db: Database, clock: ManualClock) -> None:
    above_cap(make, victims)
    with db.transaction(read_only=True) as connection:
        (waiting,) = plans.pending(connection, clock.now())
    clock.advance(plans.APPROVAL_LIFETIME)
    with db.transaction() as connection, pytest.raises(Refused, match="expired"):
        plans.decide(connection, waiting.approval_id, approve=True, by="ann", why="late", now=clock.now(), operators=())


def test_an_approved_plan_whose_approval_ran_out_is_refused(
    make: MakeTask, victims: Any, db: Database, clock: ManualClock
) -> None:
    runner, _ = above_cap(make, victims)
    plan_hash = approved(db, clock)
    clock.advance(plans.APPROVAL_LIFETIME)
    assert runner.execute(ask(db, clock, plan_hash)).outcome is Outcome.REFUSED


def test_the_requester_may_not_approve_where_there_is_another_operator(
    make: MakeTask, victims: Any, db: Database, clock: ManualClock
) -> None:
    victims(6)
    make(DELETES, **DESTRUCTIVE).execute(ask(db, clock))  # asked by ann
    with pytest.raises(Refused, match="another operator"):
        approved(db, clock, by="ann", operators=("ann", "bob"))
    assert approved(db, clock, by="bob", operators=("ann", "bob"))


def test_a_lone_operator_may_approve_what_they_asked_for(
    make: MakeTask, victims: Any, db: Database, clock: ManualClock
) -> None:
    victims(6)
    make(DELETES, **DESTRUCTIVE).execute(ask(db, clock))
    assert approved(db, clock, by="ann", operators=("ann",))


def test_every_decision_is_an_audit_entry(
    make: MakeTask, victims: Any, db: Database, clock: ManualClock, rows: Rows
) -> None:
    above_cap(make, victims)
    approved(db, clock)
    (entry,) = rows("select actor, action, why from groundskeeper.operator_audit")
    assert tuple(entry) == ("ann", "approve", "looked at it")


def test_the_same_refusal_twice_opens_one_approval(
    make: MakeTask, victims: Any, db: Database, clock: ManualClock, rows: Rows
) -> None:
    runner, refused = above_cap(make, victims)
    runner.execute(of_slot(Cron("0 6 * * *"), NOW + timedelta(days=1)))
    assert len(rows("select 1 from groundskeeper.approval where plan_hash = :h", h=refused.plan_hash)) == 1


def test_a_plan_is_void_when_the_parameters_changed(
    make: MakeTask, victims: Any, db: Database, clock: ManualClock
) -> None:
    runner, _ = above_cap(make, victims)
    plan_hash = approved(db, clock)
    result = runner.execute(ask(db, clock, plan_hash, params={"limit": 11}))
    assert result.outcome is Outcome.REFUSED
    assert "no longer holds" in (result.error or "")


def test_the_hash_is_the_same_however_the_table_grows(
    make: MakeTask, victims: Any, db: Database, clock: ManualClock
) -> None:
    victims(1)
    runner = make(DELETES, **DESTRUCTIVE)
    first = runner.execute(ask(db, clock, planning=True))
    victims(2)
    second = runner.execute(ask(db, clock, planning=True))
    assert first.plan_hash == second.plan_hash
    clock.advance(timedelta(seconds=1))
    assert runner.execute(ask(db, clock, planning=True)).plan_hash != first.plan_hash


# --- the backup gate


def _backup(rows: Rows, taken: datetime) -> None:
    rows("insert into groundskeeper.verified_backup values ('m', :t, :t, 60) returning 1", t=taken)


@pytest.mark.parametrize(
    ("age", "outcome"),
    [
        (None, Outcome.REFUSED),
        (timedelta(hours=26), Outcome.OK),
        (timedelta(hours=26, microseconds=1), Outcome.REFUSED),
    ],
)
def test_a_destructive_run_needs_a_fresh_verified_backup(
    make: MakeTask, victims: Any, settings: Settings, rows: Rows, age: timedelta | None, outcome: Outcome
) -> None:
    victims(1)
    if age is not None:
        _backup(rows, NOW - age)
    gated = replace(settings, backup_gate=timedelta(hours=26))
    assert make(DELETES, using=gated, **DESTRUCTIVE).execute(SLOT).outcome is outcome
    assert count(rows) == (0 if outcome is Outcome.OK else 1)


def test_the_glass_can_be_broken_with_a_reason(
    make: MakeTask, victims: Any, settings: Settings, db: Database, clock: ManualClock, rows: Rows
) -> None:
    victims(1)
    gated = replace(settings, backup_gate=timedelta(hours=26))
    result = make(DELETES, using=gated, **DESTRUCTIVE).execute(ask(db, clock, break_glass=True))
    assert result.outcome is Outcome.OK
