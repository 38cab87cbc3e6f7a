"""analyze_query_plans: the worst since last time, explained without being run; what has no plan is named."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from shared.database import Database
from shared.errors import Outcome
from shared.settings import Settings
from tests.conftest import NOW, ManualClock, RunTask, as_role

Rows = Callable[..., list[Any]]


@pytest.fixture
def counted(db: Database) -> None:
    """A database whose statements are counted from now on, with a table worth reading by an index."""
    with db.autocommit() as connection:
        connection.execute(text("create extension pg_stat_statements"))
        connection.execute(text("create table orders (id int primary key, customer int, note text, at timestamptz)"))
        connection.execute(
            text(
                """insert into orders select n, mod(n, 100), repeat('x', 1000), :now from generate_series(1, 20000) n"""
            ),
            {"now": NOW},
        )
        connection.execute(text("create table lines (order_id int references orders, price int)"))
        connection.execute(text("create index orders_twin on orders (id)"))
        connection.execute(text("vacuum analyze orders"))
        connection.execute(text("select pg_stat_statements_reset()"))


def _do(db: Database, sql: str, times: int = 1, **binds: Any) -> None:
    with db.transaction() as connection:
        for _ in range(times):
            connection.execute(text(sql), binds)


def _of(rows: Rows, like: str) -> Any:
    (found,) = rows(
        "select * from groundskeeper.query_plan where sql like :like and at ="
        " (select max(at) from groundskeeper.query_plan)",
        like=like,
    )
    return found


def test_the_worst_are_explained_and_kept_without_values(
    counted: None, db: Database, run_task: RunTask, rows: Rows
) -> None:
    _do(db, "select note from orders where customer = :c", 3, c=7)
    result = run_task("analyze_query_plans")
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["explained"] + result.counts["not_explained"] == result.counts["statements"] > 0
    (look,) = rows("select * from groundskeeper.query_analysis")
    assert (look.run_id, look.explained, look.was_reset) == (result.run_id, result.counts["explained"], False)
    found = _of(rows, "select note from orders%")
    assert (found.calls, found.rows, found.sql) == (3, 600, "select note from orders where customer = $1")
    assert found.plan["what"] == "Seq Scan"
    assert found.plan["conditions"] == ["(orders.customer = $1)"]
    (scan,) = found.findings
    assert (scan["kind"], scan["subject"]) == ("scan_of_a_big_table", "public.orders")


def test_nothing_is_executed(counted: None, db: Database, settings: Settings, run_task: RunTask, rows: Rows) -> None:
    """Even by a role that could: its deletes are planned and its sequence stays."""
    with db.transaction() as connection:
        connection.execute(text("create sequence drawn"))
        connection.execute(text('grant all on orders, drawn to "analyze-query-plans"'))
    _do(db, "select nextval('drawn')")
    _do(db, "delete from orders where id < :n", n=0)
    before = rows("select last_value from drawn")
    result = run_task("analyze_query_plans")
    assert result.outcome is Outcome.OK, result.error
    assert _of(rows, "delete from orders%").plan["what"] == "ModifyTable"
    assert _of(rows, "select nextval%").plan is not None
    assert rows("select count(*) from orders")[0][0] == 20000
    assert rows("select last_value from drawn") == before


def test_what_has_no_plan_is_named_with_its_reason(counted: None, db: Database, run_task: RunTask, rows: Rows) -> None:
    _do(db, "update orders set note = :x where id = 1", x="y")
    _do(db, "create table gone (x int)")
    _do(db, "select * from gone")
    _do(db, "drop table gone")
    _do(db, "create role pwd_test password 'a secret of a test'")
    _do(db, "drop role pwd_test")
    result = run_task("analyze_query_plans", params={"limit": 5000})
    assert result.outcome is Outcome.OK, result.error
    assert _of(rows, "update orders%").reason == "no privilege"
    assert _of(rows, "select * from gone%").reason.startswith("a table is not found")
    (look,) = rows("select reasons from groundskeeper.query_analysis")
    assert look.reasons["create: not a statement with a plan"] >= 2
    stored = rows("select string_agg(cast(p as text), ' ') from groundskeeper.query_plan p")[0][0]
    assert "a secret of a test" not in stored
    assert sum(look.reasons.values()) == result.counts["not_explained"] + result.counts["utilities"]


def test_the_limit_is_spent_on_statements_that_can_have_a_plan(
    counted: None, db: Database, run_task: RunTask, rows: Rows
) -> None:
    for n in range(3):
        _do(db, f"create table made_{n} as select generate_series(1, 20000) n")
    _do(db, "select note from orders where customer = :c", c=7)
    _do(db, "select count(*) from orders")
    result = run_task("analyze_query_plans", params={"limit": 2})
    assert (result.counts["statements"], result.counts["explained"]) == (2, 2), result.error
    assert result.counts["utilities"] >= 3
    (look,) = rows("select reasons from groundskeeper.query_analysis")
    assert look.reasons["create: not a statement with a plan"] == 3
    kept = rows("select plan_hash is not null as planned from groundskeeper.query_plan order by rank")
    assert sum(row.planned for row in kept) == 2
    assert len(kept) <= 4


def test_only_what_came_since_the_last_look_counts(
    counted: None, db: Database, run_task: RunTask, rows: Rows, clock: ManualClock
) -> None:
    _do(db, "select note from orders where customer = :c", 5, c=1)
    run_task("analyze_query_plans")
    clock.advance(timedelta(days=1))
    _do(db, "select note from orders where customer = :c", 2, c=1)
    run_task("analyze_query_plans")
    assert _of(rows, "select note from orders%").calls == 2


def test_a_reset_of_the_counters_is_noticed(
    counted: None, db: Database, run_task: RunTask, rows: Rows, clock: ManualClock
) -> None:
    _do(db, "select note from orders where customer = :c", 5, c=1)
    run_task("analyze_query_plans")
    _do(db, "select pg_stat_statements_reset()")
    _do(db, "select note from orders where customer = :c", 4, c=1)
    clock.advance(timedelta(days=1))
    result = run_task("analyze_query_plans")
    assert result.counts["counters_reset"] == 1
    assert _of(rows, "select note from orders%").calls == 4


def test_a_plan_that_changed_is_told_and_one_that_did_not_is_not(
    counted: None, db: Database, run_task: RunTask, rows: Rows, clock: ManualClock
) -> None:
    def look() -> bool:
        """Whether this statement's plan changed; of the house's own some may, as their tables fill."""
        clock.advance(timedelta(days=1))
        _do(db, "select note from orders where customer = :c", c=1)
        result = run_task("analyze_query_plans")
        assert result.outcome is Outcome.OK, result.error
        changed = _of(rows, "select note from orders%").before is not None
        assert result.counts["plans_changed"] >= changed
        return changed

    assert not look()
    assert not look()
    before = _of(rows, "select note from orders%")
    _do(db, "create index on orders (customer)")
    assert look()
    after = _of(rows, "select note from orders%")
    assert (after.before, after.plan["table"]) == (before.plan_hash, "public.orders")
    assert after.plan_hash != before.plan_hash
    assert not look()


def test_a_new_partition_is_no_new_plan(
    counted: None, db: Database, run_task: RunTask, rows: Rows, clock: ManualClock
) -> None:
    for statement in (
        "create table days (at date, n int) partition by range (at)",
        "create index on days (n)",
        "create table days_1 partition of days for values from ('2026-01-01') to ('2026-01-02')",
        "create table days_2 partition of days for values from ('2026-01-02') to ('2026-01-03')",
    ):
        _do(db, statement)
    _do(db, "select * from days where n = :n", n=1)
    run_task("analyze_query_plans")
    first = _of(rows, "select * from days%")
    _do(db, "create table days_3 partition of days for values from ('2026-01-03') to ('2026-01-04')")
    _do(db, "select * from days where n = :n", n=1)
    clock.advance(timedelta(days=1))
    assert run_task("analyze_query_plans").counts["plans_changed"] == 0
    assert _of(rows, "select * from days%").plan_hash == first.plan_hash


def test_the_catalogues_findings_name_the_thing(counted: None, run_task: RunTask, rows: Rows) -> None:
    run_task("analyze_query_plans")
    (look,) = rows("select findings from groundskeeper.query_analysis")
    found = {(f["kind"], f["subject"]) for f in look.findings}
    assert ("foreign_key_without_index", "lines") in found
    assert ("duplicate_index", "orders_twin") in found


def test_an_estimate_far_off_is_found(counted: None, db: Database, run_task: RunTask, rows: Rows) -> None:
    _do(db, "update orders set customer = 1 where id > 100")
    _do(db, "select note from orders where customer = :c", c=1)
    run_task("analyze_query_plans")
    kinds = {f["kind"] for f in _of(rows, "select note from orders%").findings}
    assert "misestimate" in kinds


def test_without_the_extension_it_is_unavailable_in_words(run_task: RunTask) -> None:
    result = run_task("analyze_query_plans")
    assert result.outcome is Outcome.UNAVAILABLE
    assert "create extension pg_stat_statements" in (result.error or "")


def test_a_planning_run_writes_nothing(counted: None, run_task: RunTask, rows: Rows) -> None:
    assert run_task("analyze_query_plans", planning=True).outcome is Outcome.PLANNED
    assert rows("select 1 from groundskeeper.query_analysis") == []


def test_the_role_reads_all_and_writes_only_its_own(counted: None, settings: Settings) -> None:
    mine = Database(as_role(settings, "analyze-query-plans"), "test")
    with pytest.raises(DBAPIError, match="permission denied"), mine.transaction() as connection:
        connection.execute(text("delete from orders"))
    mine.close()
