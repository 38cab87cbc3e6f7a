"""Expired partitions go whole, whatever state an earlier run or a reader left the table in."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text

from shared import holds
from shared.database import Database
from shared.errors import Outcome
from tests.conftest import NOW, ManualClock
from tests.retention.conftest import Execute, Rows, Sweep

OWNER = "groundskeeper_own_endpoints"
RULE = {"table": "ping", "account": "account_id"}


@pytest.fixture
def ping(execute: Execute) -> Callable[..., None]:
    """A table of five days around the cutoff (16 May 12:00), two rows a day and account, owned as endpoints is."""

    def create(*more: str) -> None:
        execute("create table ping (at timestamptz not null, account_id text) partition by range (at)")
        for day in range(13, 18):
            execute(
                f"create table ping_{day} partition of ping for values from ('2026-05-{day} 00:00+00')"
                f" to ('2026-05-{day + 1} 00:00+00')",
                f"alter table ping_{day} owner to {OWNER}",
                f"insert into ping select timestamptz '2026-05-{day} 06:00+00' + n * interval '10 hours', a"
                " from generate_series(0, 1) n, unnest(array['a1', 'a2']) a",
            )
        execute(f"alter table ping owner to {OWNER}", *more)

    return create


def _left(rows: Rows) -> list[str]:
    return [r[0] for r in rows("select relname from pg_class where relname ~ '^ping_[0-9]+$' order by 1")]


def test_whole_days_are_dropped_and_the_day_of_the_cutoff_is_emptied_by_rows(
    ping: Callable[..., None], sweep: Sweep, rows: Rows
) -> None:
    ping()
    planned = sweep(RULE, planning=True)
    assert planned.plan is not None
    assert [(i["what"], i["count"]) for i in planned.plan["items"]] == [("ping", 14)]
    assert "3 partitions to go whole" in planned.plan["items"][0]["why"]
    result = sweep(RULE)
    assert result.outcome is Outcome.OK, result.error
    assert result.counts == {"ping.deleted": 14, "ping.partitions": 3}
    assert _left(rows) == ["ping_16", "ping_17"]
    assert rows("select min(at) from ping")[0][0] == datetime(2026, 5, 16, 16, tzinfo=UTC)
    assert rows("select 1 from groundskeeper.detached_partition where ended_at is null") == []
    assert sweep(RULE).counts == {"ping.deleted": 0}


@pytest.mark.parametrize(
    ("more", "rule", "why"),
    [
        (["create table ping_rest partition of ping default"], {}, "DEFAULT"),
        ([], {"where": "account_id <> 'nobody'"}, "condition"),
        (["alter table ping owner to postgres"], {}, "own"),
        (
            [
                "create function hear() returns trigger language plpgsql as 'begin return old; end'",
                "create trigger hears after delete on ping for each row execute function hear()",
            ],
            {},
            "trigger hears",
        ),
        (
            [
                *(f"alter table ping_{day} replica identity full" for day in range(13, 18)),
                "create publication out_there for table ping",
            ],
            {},
            "publication out_there",
        ),
    ],
    ids=["default", "condition", "owner", "trigger", "publication"],
)
def test_where_partitions_cannot_go_whole_the_plan_says_why_and_their_rows_go(
    ping: Callable[..., None],
    sweep: Sweep,
    rows: Rows,
    execute: Execute,
    more: list[str],
    rule: dict[str, str],
    why: str,
) -> None:
    ping(*more)
    for name in ["ping", *_left(rows), *(["ping_rest"] if "default" in str(more) else [])]:
        execute(f'grant select, update, delete on {name} to "db-cleanup"')
    planned = sweep({**RULE, **rule}, planning=True)
    assert planned.plan is not None
    assert any("row by row" in note and why in note for note in planned.plan["notes"]), planned.plan["notes"]
    result = sweep({**RULE, **rule})
    assert result.counts == {"ping.deleted": 14}, result.error
    assert len(_left(rows)) == 5


def test_an_open_transaction_at_the_table_makes_rows_go_instead_of_hanging_a_detach(
    ping: Callable[..., None], sweep: Sweep, rows: Rows, db: Database
) -> None:
    ping()
    with db.transaction() as connection:
        connection.execute(text("select 1 from ping limit 1"))
        result = sweep(RULE)
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["ping.deleted"] == 14
    assert len(_left(rows)) == 5
    assert rows("select 1 from pg_inherits where inhdetachpending") == []
    assert sweep(RULE).counts["ping.partitions"] == 3  # empty by now, and still in the way


def test_a_detach_left_pending_by_a_lock_timeout_is_finished_and_dropped_by_the_next_run(
    ping: Callable[..., None], sweep: Sweep, rows: Rows, db: Database, execute: Execute
) -> None:
    ping()
    oid = rows("select cast(oid as bigint) from pg_class where relname = 'ping_13'")[0][0]
    with db.transaction() as connection:
        connection.execute(text("select 1 from ping limit 1"))
        with db.autocommit(lock_timeout_ms=200) as outside, pytest.raises(Exception, match="55P03"):
            outside.execute(text("alter table ping detach partition ping_13 concurrently"))
    assert len(rows("select 1 from pg_inherits where inhdetachpending")) == 1
    execute(
        "insert into groundskeeper.detached_partition (run_id, parent, partition, partition_oid, noted_at)"
        " values (gen_random_uuid(), 'public.ping', 'public.ping_13', :oid, :now)",
        oid=oid,
        now=NOW,
    )
    planned = sweep(RULE, planning=True)
    assert planned.plan is not None
    assert planned.plan["items"][0]["count"] == 14
    result = sweep(RULE)
    assert result.counts == {"ping.deleted": 14, "ping.partitions": 3}, result.error
    assert _left(rows) == ["ping_16", "ping_17"]


def test_what_somebody_else_detached_is_never_dropped(
    ping: Callable[..., None], sweep: Sweep, rows: Rows, execute: Execute
) -> None:
    ping()
    execute("alter table ping detach partition ping_13")
    assert sweep(RULE).counts == {"ping.deleted": 10, "ping.partitions": 2}
    assert _left(rows) == ["ping_13", "ping_16", "ping_17"]


def test_an_orphan_is_kept_where_the_rule_was_lengthened_since(
    ping: Callable[..., None], sweep: Sweep, rows: Rows, execute: Execute
) -> None:
    ping()
    oid = rows("select cast(oid as bigint) from pg_class where relname = 'ping_13'")[0][0]
    execute(
        "alter table ping detach partition ping_13",
        "insert into groundskeeper.detached_partition (run_id, parent, partition, partition_oid, noted_at)"
        f" values (gen_random_uuid(), 'public.ping', 'public.ping_13', {oid}, '2026-06-14')",
    )
    result = sweep({**RULE, "keep_days": 300})
    assert result.outcome is Outcome.PARTIAL
    assert "rows that are not due" in (result.error or "")
    assert sweep(RULE).counts == {"ping.deleted": 14, "ping.partitions": 3}


def test_an_accounts_hold_keeps_its_rows_and_with_them_the_partition(
    ping: Callable[..., None], sweep: Sweep, rows: Rows, db: Database, clock: ManualClock, execute: Execute
) -> None:
    ping()
    execute("delete from ping where account_id = 'a1' and at < '2026-05-14'")
    with db.transaction() as connection:
        hold = holds.add(connection, reason="case 1", by="ann", now=clock.now(), account="a1")
    planned = sweep(RULE, planning=True)
    assert planned.plan is not None
    assert planned.plan["items"][0]["count"] == 7
    assert "kept under a legal hold: 5 rows" in planned.plan["items"][0]["why"]
    assert "1 partition to go whole, 2 by row, since rows of theirs are held" in planned.plan["items"][0]["why"]
    result = sweep(RULE)
    assert result.counts == {"ping.deleted": 7, "ping.partitions": 1, "ping.held": 5}, result.error
    assert _left(rows) == ["ping_14", "ping_15", "ping_16", "ping_17"]
    with db.transaction() as connection:
        holds.release(connection, hold, by="ann", why="over", now=clock.now())
    assert sweep(RULE).counts == {"ping.deleted": 5, "ping.partitions": 2}


def test_the_oldest_due_row_is_found_behind_an_empty_partition(
    ping: Callable[..., None], sweep: Sweep, execute: Execute
) -> None:
    ping()
    execute("delete from ping where at < '2026-05-14'")
    planned = sweep(RULE, planning=True)
    assert planned.plan is not None
    assert planned.plan["items"][0]["oldest"] == "2026-05-14T06:00:00+00:00"


@pytest.mark.parametrize("on", ["ping", "public.ping", None])
def test_a_hold_on_the_table_however_called_keeps_all_of_it(
    ping: Callable[..., None], sweep: Sweep, rows: Rows, db: Database, clock: ManualClock, on: str | None
) -> None:
    ping()
    with db.transaction() as connection:
        holds.add(connection, reason="case 1", by="ann", now=clock.now(), table=on)
    result = sweep(RULE)
    assert result.counts == {"ping.deleted": 0, "ping.held": 14}, result.error
    assert len(_left(rows)) == 5


def test_an_accounts_hold_stops_a_rule_that_cannot_tell_accounts_apart(
    ping: Callable[..., None], sweep: Sweep, rows: Rows, db: Database, clock: ManualClock
) -> None:
    ping()
    with db.transaction() as connection:
        holds.add(connection, reason="case 1", by="ann", now=clock.now(), account="a1")
    result = sweep({"table": "ping", "account": ""})
    assert result.outcome is Outcome.PARTIAL
    assert "add account" in (result.error or "")
    assert len(rows("select 1 from ping")) == 20


@pytest.mark.parametrize(("kind", "edge"), [("date", "'2026-05-{}'"), ("bigint", "{}")])
def test_partitions_by_day_or_epoch_go_whole_too(
    execute: Execute, sweep: Sweep, rows: Rows, kind: str, edge: str
) -> None:
    start = {n: n if kind == "date" else int(datetime(2026, 5, n, tzinfo=UTC).timestamp()) for n in range(13, 20)}
    execute(f"create table ping (at {kind} not null) partition by range (at)")
    for n in range(13, 18):
        execute(
            f"create table ping_{n} partition of ping for values from ({edge.format(start[n])})"
            f" to ({edge.format(start[n + 1])})",
            f"alter table ping_{n} owner to {OWNER}",
            f"insert into ping values ({edge.format(start[n])})",
        )
    execute(f"alter table ping owner to {OWNER}")
    result = sweep({"table": "ping", "unit": "s" if kind == "bigint" else ""})
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["ping.partitions"] == 3
    # At noon of the 16th the day of the 16th is not over; its first second is.
    assert [r[0] for r in rows("select count(*) from ping")] == [2 if kind == "date" else 1]


def test_thirty_partitions_go_without_reading_their_rows(execute: Execute, sweep: Sweep, rows: Rows) -> None:
    execute("create table ping (at timestamptz not null) partition by range (at)")
    first = date(2026, 4, 1)
    for n in range(31):
        low, high = first + timedelta(n), first + timedelta(n + 1)
        execute(
            f"create table ping_{n} partition of ping for values from ('{low} 00:00+00') to ('{high} 00:00+00')",
            f"alter table ping_{n} owner to {OWNER}",
        )
    execute(f"alter table ping owner to {OWNER}")
    result = sweep({"table": "ping"})
    assert result.counts["ping.partitions"] == 31, result.error
