"""What others do is seen, slows the run down, and in the end makes it give way."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import text

from shared import holds
from shared.context import Context
from shared.database import Database
from shared.errors import Outcome
from shared.retention.pace import Limits, Pace, Surroundings, look
from shared.retention.ranges import _Stride
from tests.conftest import ManualClock
from tests.retention.conftest import PACE, Execute, Rows, Sweep


def _seen(db: Database, rows: Rows) -> Surroundings:
    oid = rows("select cast(cast('log' as regclass) as bigint)")[0][0]
    with db.transaction() as connection:
        return look(connection, [oid], "db_cleanup/12345678", "db_cleanup/heartbeat")


def test_alone_nothing_is_seen_and_company_is(
    table: Callable[..., None], db: Database, rows: Rows, execute: Execute
) -> None:
    table("log", "at timestamptz)")
    written = _seen(db, rows).written
    assert _seen(db, rows) == Surroundings(written, 0, 0, 0.0, 0.0, False)
    with db.transaction() as other:
        other.execute(text("select 1"))
        assert _seen(db, rows).transactions == 1
    with db.transaction(name="db_cleanup/12345678") as own:
        own.execute(text("select 1"))
        assert _seen(db, rows).transactions == 0
    with db.transaction() as vacuum:
        vacuum.execute(text("lock table log in share update exclusive mode"))
        assert _seen(db, rows).maintained


def test_short_transactions_between_two_looks_are_company_and_batches_of_ours_are_not(
    db: Database, execute: Execute, clock: ManualClock
) -> None:
    class Run:
        task, run_id = SimpleNamespace(name="db_cleanup"), "12345678"
        read = db.transaction

        def check(self) -> None:
            """Nobody stops this run."""

    run = Run()
    run.clock = clock  # type: ignore[attr-defined]
    pace = Pace(cast(Context, run), Limits(**PACE | {"batch_rows": 100_000}))
    seen = []
    for others in (0, 0, 3):
        pace.ready([])
        seen.append((pace.busy, pace.rows))
        for _ in range(1 + others):
            execute("select pg_current_xact_id()")
        pace.took(0.001)
    pace.ready([])
    assert seen == [(False, 4000), (False, 32_000), (False, 100_000)]
    assert pace.busy
    pace.took(0.1)
    assert pace.rows == 25_000


_DAY = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("day", [_DAY, _DAY.replace(tzinfo=None), 1_700_000_000_000])
def test_where_a_batch_ends_is_guessed_only_after_one_that_was_as_large_as_expected(day: Any) -> None:
    second: Any = 1000 if isinstance(day, int) else timedelta(seconds=1)
    stride = _Stride(day + 1000 * second)
    assert stride.beyond(None, 10) is None
    stride.went(day, day + 10 * second, 10, 10)
    assert stride.beyond(day + 10 * second, 100) == day + 110 * second
    assert stride.beyond(day + 950 * second, 100) is None  # beyond the cutoff the index says where the end is
    stride.went(day + 10 * second, day + 110 * second, 100, 3)
    assert stride.beyond(day + 110 * second, 100) is None
    stride.went("-infinity", day, 10, 10)
    assert stride.beyond(day, 10) is None


def test_a_guess_that_catches_far_more_than_expected_loses_and_keeps_nothing_wrong(
    table: Callable[..., None], sweep: Sweep, rows: Rows
) -> None:
    table(
        "log",
        "n int primary key, at timestamptz)",
        "create index on log (at)",
        # One an hour for long, then thousands in one, then one an hour again; the last at the cutoff itself.
        "insert into log select n, timestamptz '2025-01-01' + n * interval '1 hour' from generate_series(1, 6000) n",
        "insert into log select n, timestamptz '2025-09-01' + n * interval '1 ms' from generate_series(6001, 12000) n",
        "insert into log select n, timestamptz '2024-09-01' + n * interval '1 h' from generate_series(12001, 12900) n",
        "insert into log values (0, timestamptz '2026-06-15 12:00+00' - interval '30 days')",
    )
    due = len(rows("select 1 from log where at < timestamptz '2026-06-15 12:00+00' - interval '30 days'"))
    assert sweep({"table": "log"}, pace={"batch_rows": 300}).counts["log.deleted"] == due == 12_900
    assert [row.n for row in rows("select n from log")] == [0]


def test_while_somebody_waits_for_the_table_the_run_stands_still_and_gives_way(
    table: Callable[..., None], sweep: Sweep, rows: Rows, db: Database
) -> None:
    table("log", "at timestamptz)", "insert into log values ('2026-01-01')")
    table("fine", "at timestamptz)", "insert into fine values ('2026-01-01')")
    waiting = threading.Event()

    def wait() -> None:
        with db.transaction(lock_timeout_ms=60_000) as connection:
            waiting.set()
            connection.execute(text("lock table log in share row exclusive mode"))

    # A lock that readers do not feel, and somebody who waits for the same.
    with db.transaction() as holder:
        holder.execute(text("lock table log in share row exclusive mode"))
        thread = threading.Thread(target=wait)
        thread.start()
        waiting.wait(10)
        while not rows("select 1 from pg_locks where not granted"):
            pass
        result = sweep({"table": "log"}, {"table": "fine"})
    thread.join()
    assert result.outcome is Outcome.STOPPED
    assert "1 session waiting for a lock" in (result.error or "")
    assert result.counts == {"log.deleted": 0, "fine.deleted": 1}
    assert sweep({"table": "log"}).counts["log.deleted"] == 1


@pytest.mark.parametrize("index", ["create index on log (at)", ""])
def test_a_hold_placed_while_the_run_deletes_keeps_what_is_left(
    table: Callable[..., None], sweep: Sweep, rows: Rows, db: Database, clock: ManualClock, index: str, execute: Execute
) -> None:
    table(
        "log",
        "n int primary key, at timestamptz)",
        *([index] if index else []),
        "insert into log select n, timestamptz '2026-01-01' + n * interval '1 minute' from generate_series(1, 3000) n",
        # The 150th row that goes places the hold, as somebody else would: it counts from the next batch on.
        "create function hold_it() returns trigger language plpgsql security definer as $f$ begin"
        " if old.n = 150 then insert into groundskeeper.legal_hold (hold_id, table_name, reason, placed_by, placed_at)"
        " values (gen_random_uuid(), 'log', 'case 3', 'ann', '2026-06-15'); end if; return old; end $f$",
        "create trigger holds after delete on log for each row execute function hold_it()",
    )
    result = sweep({"table": "log"})
    assert result.outcome is Outcome.OK, result.error
    gone = result.counts["log.deleted"]
    assert 150 <= gone < 1600  # by place, a batch is eight pages at least
    assert len(rows("select 1 from log")) == 3000 - gone
    with db.transaction(read_only=True) as connection:
        assert len(holds.in_force(connection, clock.now())) == 1


def test_a_connection_lost_in_a_batch_is_tried_again_and_loses_no_count(
    table: Callable[..., None], sweep: Sweep, rows: Rows, execute: Execute
) -> None:
    table(
        "log",
        "n int primary key, at timestamptz)",
        "create index on log (at)",
        "insert into log select n, timestamptz '2026-01-01' + n * interval '1 minute' from generate_series(1, 500) n",
        "create function cut() returns trigger language plpgsql security definer as $f$ begin"
        " if old.n = 250 then perform pg_terminate_backend(pg_backend_pid()); end if; return old; end $f$",
        "create trigger cuts after delete on log for each row execute function cut()",
    )
    result = sweep({"table": "log"})
    assert result.outcome is Outcome.RETRY, result.error
    (run,) = rows("select counts from groundskeeper.task_run")
    left = len(rows("select 1 from log"))
    assert run.counts["log.deleted"] == 500 - left
    execute("drop trigger cuts on log")
    assert sweep({"table": "log"}).counts["log.deleted"] == left
