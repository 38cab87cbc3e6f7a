"""vacuum_analyze on real tables: what is due is done and proven, what is not is left, and a lack of rights is red."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from shared import plans
from shared.call import by_hand
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.postgres import Postgres
from shared.manifest import FUNCTIONS
from shared.result import Result
from shared.task import load
from shared.vacuum.need import Limits, Need, Table, look, need_of, ranked
from shared.vacuum.treat import Pace, statement
from shared.vacuum.warnings import Alarms
from tests.conftest import ManualClock, as_role, prepare, settings_for

LIMITS = Limits(100, 0.1, 0.2, 0.1, 100_000_000, 200_000_000)
NEED = {**vars(LIMITS)}
PACE = {"cost_limit": 10000, "cost_delay_ms": 0.1, "lock_timeout_ms": 100, "table_s": 60}
ALARMS = {
    "warn_age": 500_000_000,
    "alarm_age": 1_200_000_000,
    "held_share": 0.5,
    "bloat_share": 0.4,
    "bloat_mb": 0,
}
QUIET = Table(
    oid=1,
    schema="public",
    name="rows",
    partitioned=False,
    catalogue=False,
    bytes=8192,
    filled=True,
    rows=1000,
    dead=0,
    inserted=0,
    changed=0,
    age=10,
    multixact_age=10,
    analyzed_at=ManualClock().moment,
    leaves_analyzed_at=None,
    vacuums=0,
    analyzes=0,
    unattended=False,
    may=True,
    busy=False,
)


class Place:
    """A migrated database on one version of PostgreSQL, and the task run in it as its own role."""

    def __init__(self, url: str) -> None:
        self.settings = settings_for(url)
        self.engine = create_engine(Database(self.settings).url, poolclass=NullPool)
        self.database = Database(self.settings, "test")
        self.clock = ManualClock()
        self.role = "vacuum-analyze"

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A superuser's connection outside transactions."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection

    def does(self, *statements: str) -> None:
        with self.session() as connection:
            for one in statements:
                connection.exec_driver_sql(one)
            connection.exec_driver_sql("select pg_stat_force_next_flush()")

    def settled(self) -> None:
        """Leave nothing due but what a test arranges."""
        self.does("vacuum (freeze, analyze)")
        self.does("vacuum (freeze) pg_catalog.pg_statistic")

    def bloated(self, name: str, *, dead: int = 800, options: str = "") -> None:
        self.does(
            f"create table {name} (n int, pad text) {options}",
            f"insert into {name} select n, repeat('x', 100) from generate_series(1, 1000) n",
            "select pg_stat_force_next_flush()",
            f"vacuum analyze {name}",
            f"delete from {name} where n <= {dead}",
        )

    def run(self, *, planning: bool = False, **params: Any) -> Result:
        given = {"need": NEED, "pace": PACE, "alarms": ALARMS, **params}
        with self.database.transaction() as connection:
            request = plans.request_run(
                connection,
                task="vacuum_analyze",
                actor="tester",
                why="a test",
                params=given,
                planning=planning,
                now=self.clock.now(),
            )
        entry = load(FUNCTIONS / "vacuum_analyze")
        runner = entry.runner(as_role(self.settings, self.role), self.clock)
        try:
            return runner.execute(by_hand(request))
        finally:
            runner.close()

    def table(self, name: str) -> Table:
        with self.database.transaction(read_only=True) as connection:
            return next(t for t in look(connection) if t.label == f"public.{name}")


_places: dict[int, str] = {}
_number = iter(range(10_000))


def _make(server: Postgres) -> Iterator[Place]:
    if id(server) not in _places:
        prepare(server, "template_vacuum")
        _places[id(server)] = "template_vacuum"
    name = f"v{next(_number)}"
    place = Place(server.create_database(name, template="template_vacuum"))
    place.settled()
    yield place
    place.database.close()
    place.engine.dispose()
    server.drop_database(name)


@pytest.fixture
def place(server: Postgres) -> Iterator[Place]:
    yield from _make(server)


@pytest.fixture
def each_place(each_server: Postgres) -> Iterator[Place]:
    yield from _make(each_server)


@pytest.fixture
def rightless(place: Place) -> Iterator[Place]:
    """The task's role as somebody left it who never ran `keeper migrate --grants`."""
    place.does('revoke pg_maintain from "vacuum-analyze"')
    yield place
    place.does('grant pg_maintain to "vacuum-analyze"')


def owned(place: Place, name: str) -> None:
    """Give a table to a role that cannot log in, and the task the rights that its version of PostgreSQL knows."""
    place.does(
        "do $$ begin create role app_owner nologin; exception when duplicate_object then null; end $$",
        f"alter table {name} owner to app_owner",
    )
    if place.engine.dialect.server_version_info < (17,):  # type: ignore[operator]
        place.does('grant app_owner to "vacuum-analyze"')


# --- what is due


def test_dead_rows_go_and_the_servers_own_count_proves_it(each_place: Place) -> None:
    each_place.bloated("Sloppy")
    owned(each_place, "Sloppy")
    before = each_place.table("sloppy")
    result = each_place.run()
    after = each_place.table("sloppy")
    assert (result.outcome, result.error) == (Outcome.OK, None)
    assert (before.dead, after.dead) == (800, 0)
    assert (after.vacuums, after.analyzes) == (before.vacuums + 1, before.analyzes + 1)
    counts = result.counts
    assert (counts["due"], counts["vacuumed"], counts["analyzed"]) == (1, 1, 1)
    assert (counts["dead_before"], counts["dead_after"]) == (800, 0)
    assert counts["bytes_before"] == counts["bytes_after"] > 0


def test_twice_in_a_row_the_second_finds_nothing_due(place: Place) -> None:
    place.bloated("sloppy")
    assert place.run().counts["due"] == 1
    again = place.run()
    assert (again.outcome, again.counts["due"]) == (Outcome.OK, 0)


def test_the_worst_goes_first_and_what_needs_nothing_is_left(place: Place) -> None:
    place.bloated("worse", dead=900)
    place.bloated("bad", dead=300)
    place.bloated("fine", dead=50)
    with place.database.transaction(read_only=True) as connection:
        order = [n.table.name for n in ranked(look(connection), LIMITS)]
    assert order == ["worse", "bad"]
    assert place.run().counts["vacuumed"] == 2
    assert place.table("fine").dead == 50


def test_a_table_never_analysed_is_and_then_vacuumed_for_what_that_showed(place: Place) -> None:
    place.bloated("lost")
    # as after a crash: nobody knows of the dead rows
    place.does("select pg_stat_reset_single_table_counters('lost'::regclass)")
    assert place.table("lost").dead == 0
    result = place.run()
    assert result.counts["due"] == 2  # analysed, then due again for the dead rows that this showed
    assert place.table("lost").dead == 0
    assert place.table("lost").vacuums == 1


def test_a_partitioned_table_is_analysed_when_a_partition_was(each_place: Place) -> None:
    each_place.does(
        "create table days (d int, n int) partition by range (d)",
        "create table days_1 partition of days for values from (0) to (10)",
        "insert into days select 1, n from generate_series(1, 1000) n",
    )
    for name in ("days", "days_1"):
        owned(each_place, name)
    result = each_place.run()
    assert (result.outcome, result.counts["analyzed"]) == (Outcome.OK, 2)
    with each_place.session() as connection:
        known = connection.exec_driver_sql("select count(*) from pg_stats where tablename = 'days' and inherited")
        assert known.scalar_one() == 2
    assert each_place.run().counts["due"] == 0


def test_old_transaction_ids_are_frozen(place: Place) -> None:
    place.does("create table aged (n int)", "insert into aged values (1)", "analyze aged")
    with place.session() as connection:
        for _ in range(60):
            connection.exec_driver_sql("select pg_current_xact_id()")
        others = connection.exec_driver_sql(
            "select string_agg(cast(cast(oid as regclass) as text), ', ') from pg_class"
            " where relkind in ('r', 'm') and relname <> 'aged'"
        ).scalar_one()
    place.does(f"vacuum (freeze) {others}")
    assert place.table("aged").age > 50
    result = place.run(need={**NEED, "freeze_age": 50})
    assert result.counts["frozen"] == 1
    assert place.table("aged").age < 50


@given(dead=st.integers(0, 400), rows=st.integers(0, 5000))
def test_a_table_exactly_at_its_threshold_is_due_and_one_row_below_is_not(dead: int, rows: int) -> None:
    need = need_of(replace(QUIET, dead=dead, rows=rows), LIMITS)
    assert (need is not None and need.vacuum) == (dead >= 100 + 0.1 * rows)


def test_the_statement_follows_the_need_and_the_version() -> None:
    need = Need(replace(QUIET, name='o"dd'), vacuum=True, analyze=True, freeze=True, score=1, why="")
    assert statement(need, 150_000) == 'vacuum (truncate false, parallel 0, freeze, analyze) "public"."o""dd"'
    assert "skip_database_stats" in statement(need, 160_000)
    assert "index_cleanup off" in statement(replace(need, table=replace(QUIET, age=1_700_000_000)), 150_000)
    parent = Need(replace(QUIET, partitioned=True), vacuum=False, analyze=True, freeze=False, score=1, why="")
    assert statement(parent, 170_000) == 'analyze "public"."rows"'
    assert statement(parent, 180_000) == 'analyze only "public"."rows"'


# --- who may


def test_without_the_right_the_run_is_red_and_names_the_remedy(rightless: Place) -> None:
    rightless.bloated("sloppy")
    result = rightless.run()
    assert result.outcome is Outcome.REFUSED
    assert "keeper migrate --grants" in (result.error or "")
    assert (result.counts["not_permitted"], result.counts["vacuumed"]) == (1, 0)
    assert rightless.table("sloppy").dead == 800


def test_a_non_owner_is_red_before_version_17_too(each_place: Place) -> None:
    with each_place.session() as connection:
        if connection.exec_driver_sql("select 1 from pg_roles where rolname = 'pg_maintain'").all():
            return  # the test above
    each_place.bloated("sloppy")
    assert each_place.run().outcome is Outcome.REFUSED
    assert each_place.table("sloppy").dead == 800


def test_some_tables_out_of_reach_do_not_keep_the_others_from_their_turn(rightless: Place) -> None:
    rightless.bloated("mine")
    rightless.bloated("theirs")
    owned(rightless, "mine")
    rightless.does('grant app_owner to "vacuum-analyze"')
    try:
        result = rightless.run()
    finally:
        rightless.does('revoke app_owner from "vacuum-analyze"')
    assert result.outcome is Outcome.PARTIAL
    assert "public.theirs" in (result.error or "")
    assert (rightless.table("mine").dead, rightless.table("theirs").dead) == (0, 800)


def test_a_vacuum_that_ended_well_and_did_nothing_is_a_failure(place: Place) -> None:
    place.bloated("sloppy")

    def too_late(_c: object, _u: object, said: str, *_: object) -> None:
        if said.startswith("vacuum (truncate"):
            place.does('revoke pg_maintain from "vacuum-analyze"')

    event.listen(Engine, "before_cursor_execute", too_late)
    try:
        result = place.run()
    finally:
        event.remove(Engine, "before_cursor_execute", too_late)
        place.does('grant pg_maintain to "vacuum-analyze"')
    assert result.outcome is Outcome.PARTIAL
    assert "did nothing" in (result.error or "")


def test_nothing_is_counted_where_the_server_counts_nothing(place: Place) -> None:
    name = place.engine.url.database
    place.does(f"alter database {name} set track_counts = off")
    result = place.run()
    assert result.outcome is Outcome.REFUSED
    assert "track_counts" in (result.error or "")


# --- others at work


def _while_locked(place: Place, mode: str, act: Callable[[], Result]) -> Result:
    with place.engine.begin() as other:
        other.exec_driver_sql(f"lock table sloppy in {mode} mode")
        return act()


def test_a_table_autovacuum_is_at_is_left_to_it(place: Place) -> None:
    place.bloated("sloppy")
    result = _while_locked(place, "share update exclusive", place.run)
    assert (result.outcome, result.counts["busy"], result.counts["vacuumed"]) == (Outcome.OK, 1, 0)


def test_a_table_somebody_has_to_himself_holds_up_no_other(place: Place) -> None:
    place.bloated("sloppy", dead=900)
    place.bloated("other")
    result = _while_locked(place, "access exclusive", place.run)
    assert (result.outcome, result.counts["locked"], result.counts["vacuumed"]) == (Outcome.OK, 1, 1)
    assert place.table("other").dead == 0


def test_dead_rows_that_an_open_transaction_holds_on_to_are_told(place: Place) -> None:
    with place.engine.connect().execution_options(isolation_level="REPEATABLE READ") as other:
        other.exec_driver_sql("select 1 from user_profile")
        place.bloated("sloppy")
        result = place.run()
    assert (result.outcome, result.counts["held_back"]) == (Outcome.OK, 1)
    assert result.counts["dead_after"] == 800


def test_a_table_that_fails_does_not_hide_the_others(place: Place) -> None:
    place.bloated("broken", dead=900)
    place.bloated("other")
    place.does(
        "create function odd(int) returns int language plpgsql immutable as $$ begin return $1; end $$",
        "create index on broken (odd(n))",
        "create or replace function odd(int) returns int language plpgsql immutable as"
        " $$ begin raise exception 'person@example.com'; end $$",
    )
    result = place.run()
    assert result.outcome is Outcome.PARTIAL
    assert "public.broken: SQLSTATE P0001" in (result.error or "")
    assert "person" not in (result.error or "")
    assert place.table("other").dead == 0


def test_a_table_that_takes_too_long_is_named_and_the_next_goes_on(place: Place) -> None:
    place.bloated("sloppy", dead=900)
    slow = {**PACE, "cost_limit": 1, "cost_delay_ms": 100, "table_s": 1}
    result = place.run(pace=slow)
    assert result.outcome is Outcome.PARTIAL
    assert "public.sloppy: took longer than 1 s" in (result.error or "")


# --- what vacuum does not cure


def test_ids_running_out_are_an_alarm_and_warned_of_before(place: Place) -> None:
    result = place.run(alarms={**ALARMS, "warn_age": 1, "alarm_age": 1_200_000_000})
    assert result.outcome is Outcome.OK
    age = result.counts["oldest_transaction"]
    assert age > 1
    result = place.run(alarms={**ALARMS, "warn_age": 1, "alarm_age": 2})
    assert result.outcome is Outcome.PARTIAL
    assert "oldest transaction" in (result.error or "")


def test_bloat_is_measured_where_the_extension_is(place: Place) -> None:
    place.bloated("sloppy")
    assert place.run().counts["unmeasured"] == 1
    place.does("create extension pgstattuple")
    place.does("insert into sloppy select n, 'y' from generate_series(1, 200) n", "delete from sloppy where pad = 'y'")
    counts = place.run().counts
    assert (counts["vacuumed"], counts["unmeasured"], counts["bloated"]) == (1, 0, 1)


def test_tables_autovacuum_was_told_to_leave_are_counted(place: Place) -> None:
    place.does("create table alone (n int) with (autovacuum_enabled = false)")
    assert place.run().counts["unattended"] == 1


# --- plans and parameters


def test_a_plan_names_what_is_due_and_touches_nothing(place: Place) -> None:
    place.bloated("sloppy")
    result = place.run(planning=True)
    assert result.outcome is Outcome.PLANNED
    assert result.plan is not None
    assert [(i["what"], i["unit"]) for i in result.plan["items"]] == [("public.sloppy", "tables")]
    assert place.table("sloppy").dead == 800


@pytest.mark.parametrize(
    "make",
    [
        lambda: Limits(-1, 0.1, 0.2, 0.1, 1, 1),
        lambda: Limits(1, 0.1, 0.2, 0.1, 0, 1),
        lambda: Pace(0, 2, 2000, 60),
        lambda: Pace(200, 101, 2000, 60),
        lambda: Pace(200, 2, 2000, 0),
        lambda: Alarms(2, 1, 0.4, 64, 0.5),
    ],
)
def test_a_parameter_that_cannot_be_meant_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()
