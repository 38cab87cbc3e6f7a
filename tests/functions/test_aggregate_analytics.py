"""aggregate_analytics: equal to a recount, also of late rows; the same when done again; nothing where nothing was."""

import math
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared.clock import rfc3339
from shared.database import Database
from shared.errors import Outcome
from shared.manifest import FUNCTIONS
from shared.platform.partitions import create_ahead
from shared.result import Result
from tests.conftest import NOW, ManualClock, RunTask, as_role
from tests.killing import killer

Rows = Callable[..., list[Any]]
Put = Callable[..., None]
HOUR, DAY, INSTANT = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)
MIDNIGHT = datetime(2026, 6, 15, tzinfo=UTC)
SERVICE, OTHER = 1, 2


@pytest.fixture(autouse=True)
def _world(db: Database) -> None:
    with db.transaction() as connection:
        create_ahead(connection, NOW, 2, since=NOW - 5 * DAY)
        connection.execute(
            text("""
            insert into user_profile (account_id, firebase_uid, email, created_at, updated_at)
            select 'a' || n, 'f' || n, 'a' || n || '@example.com', :now, :now from generate_series(1, 30) n"""),
            {"now": NOW},
        )
        connection.execute(
            text("""
            insert into monitored_service (id, account_id, name, url, created_at)
            values (1, 'a1', 'one', 'https://one.example/', :now), (2, 'a2', 'two', 'https://two.example/', :now)"""),
            {"now": NOW},
        )


@pytest.fixture
def put(db: Database) -> Put:
    """Insert raw rows; what is not said is an answered ping of service 1 in 100 ms."""

    def insert(*many: dict[str, Any]) -> None:
        whole = [
            {
                "account": "a1",
                "service": SERVICE,
                "ms": 100.0,
                "status": 200,
                "active": True,
                "error": None,
                "bot": False,
                "threat": False,
                "asn": None,
                "url": "https://one.example/",
                **one,
            }
            for one in many
        ]
        with db.transaction() as connection:
            connection.execute(
                text("""
                insert into endpoints (last_tested, id, account_id, service_id, url, status_code, response_time,
                                       error, is_active, is_bot, is_threat, asn)
                values (:at, gen_random_uuid(), :account, :service, :url, :status, :ms, :error, :active, :bot,
                        :threat, :asn)"""),
                whole,
            )

    return insert


def rounded(us: int) -> int:
    """To three significant digits, half up: an independent way to say it."""
    step = 10 ** max(0, len(str(us)) - 3)
    return (us + step // 2) // step * step


def recount(raw: Iterable[Any]) -> dict[str, Any] | None:
    """What a bucket of these rows must say."""
    found = list(raw)
    if not found:
        return None
    micros = [round(r.response_time * 1000) for r in found if r.response_time is not None]
    times = sorted(micros if len(micros) <= 1000 else map(rounded, micros))
    failed = [not r.is_active or r.error is not None or (r.status_code or 0) >= 500 for r in found]

    def percentile(p: int) -> float | None:
        return times[math.ceil(len(times) * p / 100) - 1] / 1000 if times else None

    return {
        "requests": len(found),
        "errors": sum(failed),
        "average_ms": sum(micros) / len(micros) / 1000 if micros else None,
        "p50_ms": percentile(50),
        "p95_ms": percentile(95),
        "p99_ms": percentile(99),
        "error_rate": sum(failed) / len(found),
        "uptime": sum(r.is_active for r in found) / len(found) if found[0].service_id is not None else None,
    }


def expected(rows: Rows, width: str, until: datetime) -> dict[Any, Any]:
    groups = defaultdict(list)
    for r in rows(
        f"select *, date_trunc('{width}', last_tested) as bucket from endpoints where last_tested < :until", until=until
    ):
        groups[r.account_id, r.service_id, r.bucket].append(r)
    return {key: recount(group) for key, group in groups.items()}


def found(rows: Rows, granularity: str) -> dict[Any, Any]:
    return {
        (r.account_id, r.service_id, r.bucket_start): {
            name: getattr(r, name)
            for name in ("requests", "errors", "average_ms", "p50_ms", "p95_ms", "p99_ms", "error_rate", "uptime")
        }
        for r in rows("select * from aggregated_analytics where granularity = :g", g=granularity)
    }


def history(seed: int, count: int, *, since: datetime, until: datetime) -> list[dict[str, Any]]:
    """Rows of every sort, at random."""
    rng = random.Random(seed)
    span = (until - since).total_seconds()
    made = []
    for _ in range(count):
        account, service = rng.choice([("a1", SERVICE), ("a1", None), ("a2", OTHER), ("a3", None)])
        up = rng.random() > 0.1
        made.append(
            {
                "at": since + timedelta(seconds=rng.random() * span),
                "account": account,
                "service": service,
                "ms": rng.choice([None, rng.lognormvariate(4, 2), 0.0, 9.9949, 99950.0]),
                "status": rng.choice([200, 200, 404, 500, 503, None]),
                "active": up,
                "error": None if up else "timeout: connect",
            }
        )
    return made


@pytest.fixture
def roll(run_task: RunTask) -> Callable[..., Result]:
    def run(**params: Any) -> Result:
        result = run_task("aggregate_analytics", params=params or None)
        assert result.outcome is Outcome.OK, result.error
        return result

    return run


def test_hours_and_days_equal_a_recount(put: Put, roll: Callable[..., Result], rows: Rows) -> None:
    put(*history(1, 1500, since=MIDNIGHT - DAY, until=NOW + HOUR))
    roll()
    assert found(rows, "hour") == expected(rows, "hour", NOW)
    assert found(rows, "day") == expected(rows, "day", MIDNIGHT)
    assert found(rows, "day")


def test_late_and_erased_rows_are_counted_again_and_nothing_else_is_written(
    put: Put, roll: Callable[..., Result], rows: Rows, db: Database, clock: ManualClock
) -> None:
    put(*history(2, 600, since=MIDNIGHT - DAY, until=NOW))
    roll()
    before = {r.id: r.updated_at for r in rows("select id, updated_at from aggregated_analytics")}
    clock.advance(timedelta(minutes=10))
    put({"at": MIDNIGHT - 3 * HOUR, "ms": 5000.0})
    with db.transaction() as connection:
        connection.execute(
            text("delete from endpoints where account_id = 'a3' and last_tested >= :a and last_tested < :b"),
            {"a": MIDNIGHT + 2 * HOUR, "b": MIDNIGHT + 3 * HOUR},
        )
    result = roll()
    assert (result.counts["hours"], result.counts["days"]) == (2, 1)
    assert found(rows, "hour") == expected(rows, "hour", NOW)
    assert found(rows, "day") == expected(rows, "day", MIDNIGHT)
    changed = [r for r in rows("select id, updated_at from aggregated_analytics") if before.get(r.id) != r.updated_at]
    assert len(changed) == 2  # the late row's hour and day; the erased rows' bucket is gone


def test_a_rerun_gives_identical_rows(put: Put, roll: Callable[..., Result], rows: Rows, clock: ManualClock) -> None:
    put(*history(3, 400, since=MIDNIGHT - DAY, until=NOW))
    roll()
    before = rows("select * from aggregated_analytics order by id"), rows("select * from ml_window order by id")
    clock.advance(timedelta(minutes=5))
    assert roll().counts["hours"] == 0
    assert (
        rows("select * from aggregated_analytics order by id"),
        rows("select * from ml_window order by id"),
    ) == before


def test_a_day_is_no_average_of_hours(put: Put, roll: Callable[..., Result], rows: Rows) -> None:
    put(*({"at": MIDNIGHT - 2 * HOUR, "ms": 10.0} for _ in range(99)), {"at": MIDNIGHT - 5 * HOUR, "ms": 1000.0})
    roll()
    (day,) = found(rows, "day").values()
    assert (day["average_ms"], day["p50_ms"], day["p99_ms"]) == (19.9, 10.0, 10.0)


@pytest.mark.parametrize("hours", [(700, 300), (700, 301), (1000, 1, 1), (1001, 1), (1500, 1001, 9)])
def test_times_are_exact_up_to_a_thousand_in_a_bucket_and_to_three_digits_beyond(
    hours: tuple[int, ...], db: Database, roll: Callable[..., Result], rows: Rows
) -> None:
    with db.transaction() as connection:
        connection.execute(
            text("""
            insert into endpoints (last_tested, id, account_id, service_id, url, status_code, response_time, is_active)
            select cast(:midnight as timestamptz) - make_interval(hours => cast(h as int), secs => n),
                   gen_random_uuid(), 'a1', 1, 'https://one.example/', 200, exp(mod(n * 7919 * h, 10007) / 700.0), true
              from unnest(cast(:hours as int[])) with ordinality each (many, h), generate_series(1, many) n"""),
            {"midnight": MIDNIGHT, "hours": list(hours)},
        )
    roll()
    assert found(rows, "hour") == expected(rows, "hour", NOW)
    assert found(rows, "day") == expected(rows, "day", MIDNIGHT)


def test_no_data_is_no_bucket_and_no_time_is_no_percentile(put: Put, roll: Callable[..., Result], rows: Rows) -> None:
    put({"at": NOW - 2 * HOUR, "ms": None, "status": None, "active": False, "error": "dns: timeout"})
    roll()
    (hour,) = found(rows, "hour").values()
    assert (hour["requests"], hour["errors"], hour["uptime"], hour["error_rate"]) == (1, 1, 0.0, 1.0)
    assert {hour[name] for name in ("average_ms", "p50_ms", "p95_ms", "p99_ms")} == {None}
    assert rows("select 1 from aggregated_analytics where service_id = :other", other=OTHER) == []


@pytest.mark.parametrize("ms", [math.inf, -math.inf, math.nan, -1.0, 86_400_000.1, 1.7e308])
def test_a_time_no_clock_measured_counts_its_row_and_fails_nothing(
    ms: float, put: Put, roll: Callable[..., Result], rows: Rows
) -> None:
    put({"at": NOW - HOUR, "ms": ms}, {"at": NOW - HOUR, "ms": 86_400_000.0})
    assert roll().outcome is Outcome.OK
    (bucket,) = rows("select requests, average_ms from aggregated_analytics where granularity = 'hour'")
    assert bucket == (2, 86_400_000.0)


def test_what_an_application_reports_has_no_uptime(put: Put, roll: Callable[..., Result], rows: Rows) -> None:
    put({"at": NOW - 2 * HOUR, "service": None})
    roll()
    (hour,) = found(rows, "hour").values()
    assert (hour["requests"], hour["uptime"]) == (1, None)


def test_the_instant_between_two_hours(put: Put, roll: Callable[..., Result], rows: Rows) -> None:
    edge = NOW - 3 * HOUR
    put({"at": edge - INSTANT}, {"at": edge}, {"at": edge + HOUR - INSTANT}, {"at": NOW - INSTANT}, {"at": NOW})
    roll()
    got = {key[2]: bucket["requests"] for key, bucket in found(rows, "hour").items()}
    assert got == {edge - HOUR: 1, edge: 2, NOW - HOUR: 1}  # the hour that is still on is not rolled up


def test_a_gap_of_days_is_made_up_for(put: Put, roll: Callable[..., Result], rows: Rows) -> None:
    put({"at": NOW - 5 * DAY})
    assert roll(late_hours=3).counts["hours"] == 1
    put({"at": NOW - 4 * DAY}, {"at": NOW - HOUR})
    assert roll(late_hours=3).counts["hours"] == 2
    assert found(rows, "hour") == expected(rows, "hour", NOW)


def test_later_than_the_limit_is_left_out(put: Put, roll: Callable[..., Result], rows: Rows) -> None:
    put({"at": NOW - HOUR})
    roll(late_hours=3)
    put({"at": NOW - 3 * HOUR - INSTANT}, {"at": NOW - 3 * HOUR})
    roll(late_hours=3)
    assert sorted(key[2] for key in found(rows, "hour")) == [NOW - 3 * HOUR, NOW - HOUR]


def test_rows_of_a_service_that_is_gone_hold_nothing_up(
    put: Put, roll: Callable[..., Result], rows: Rows, db: Database
) -> None:
    put({"at": NOW - HOUR}, {"at": NOW - HOUR, "account": "a2", "service": OTHER})
    with db.transaction() as connection:
        connection.execute(text("delete from monitored_service where id = :id"), {"id": OTHER})
    roll()
    assert [key[1] for key in found(rows, "hour")] == [SERVICE]
    assert roll().counts["hours"] == 0


# --- windows for models


def traffic(accounts: int, at: datetime, **values: Any) -> list[dict[str, Any]]:
    return [{"at": at, "account": f"a{n + 1}", "service": None, **values} for n in range(accounts)]


def test_a_window_below_k_accounts_is_not_written(put: Put, roll: Callable[..., Result], rows: Rows) -> None:
    put(*traffic(19, NOW - 2 * HOUR), *traffic(20, NOW - HOUR))
    put(*({"at": NOW - 2 * HOUR, "account": f"a{n}", "service": SERVICE} for n in range(20, 25)))  # pings do not count
    roll()
    (only,) = rows("select * from ml_window")
    assert (only.window_start, only.width_s, only.accounts, only.requests) == (NOW - HOUR, 3600, 20, 20)


def test_a_window_says_what_its_rows_say(put: Put, roll: Callable[..., Result], rows: Rows) -> None:
    at = NOW - HOUR
    put(*traffic(25, NOW - 2 * HOUR, asn=1))
    put(
        *traffic(25, at, asn=1, url="https://x.example/a?b=1"),
        *traffic(10, at, asn=2, url="https://x.example/b", status=500),
        *traffic(5, at, asn=3, url="https://x.example/a", status=429, bot=True),
        *traffic(5, at, asn=3, url="https://x.example/c", status=403, threat=True),
        *traffic(5, at, asn=3, url="https://x.example/a#d", status=None),
    )
    roll()
    row = rows("select * from ml_window where window_start = :at", at=at)[0]
    assert (row.accounts, row.requests, row.rate_limited, row.blocked, row.indicator_matches) == (25, 50, 5, 5, 5)
    assert (row.error_ratio, row.failure_ratio, row.suspicious_ratio, row.bot_ratio) == (0.2, 0.1, 0.2, 0.1)
    assert (row.rate_change, row.is_attack) == (2.0, None)

    def entropy(*counts: int) -> float:
        return -sum(c / 50 * math.log2(c / 50) for c in counts)

    assert row.asn_entropy == pytest.approx(entropy(25, 10, 15))
    assert row.path_entropy == pytest.approx(entropy(35, 10, 5))


def test_a_label_survives_a_recount_and_a_window_that_falls_below_k_goes(
    put: Put, roll: Callable[..., Result], rows: Rows, db: Database
) -> None:
    put(*traffic(21, NOW - HOUR))
    roll()
    with db.transaction() as connection:
        connection.execute(text("update ml_window set is_attack = true"))
    put({"at": NOW - HOUR, "account": "a1", "service": None})
    roll()
    assert [(r.requests, r.is_attack) for r in rows("select requests, is_attack from ml_window")] == [(22, True)]
    with db.transaction() as connection:
        connection.execute(text("delete from endpoints where account_id in ('a2', 'a3')"))
    roll()
    assert rows("select 1 from ml_window") == []


# --- runs


def test_nothing_to_do_is_ok_with_zero_counts(roll: Callable[..., Result]) -> None:
    assert set(roll().counts.values()) == {0}


def test_two_at_once_count_once(put: Put, run_task: RunTask, rows: Rows) -> None:
    put(*history(4, 300, since=MIDNIGHT, until=NOW))
    results: list[Result] = []
    threads = [threading.Thread(target=lambda: results.append(run_task("aggregate_analytics"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {r.outcome for r in results} <= {Outcome.OK, Outcome.SKIPPED}
    assert found(rows, "hour") == expected(rows, "hour", NOW)


@pytest.mark.parametrize("many", [20_000, pytest.param(1_000_000, marks=pytest.mark.full)])
def test_a_flood_of_late_rows_is_counted_in_one_run_and_the_hours_without_any_are_left_alone(
    many: int, put: Put, roll: Callable[..., Result], rows: Rows, db: Database, clock: ManualClock
) -> None:
    """Over ten hours of yesterday, of two services and of applications; the recount is one statement over raw rows."""
    put({"at": MIDNIGHT - 3 * DAY + HOUR}, {"at": NOW - HOUR}, {"at": MIDNIGHT - HOUR})
    roll()
    untouched = rows("select * from aggregated_analytics where bucket_start < :d order by id", d=MIDNIGHT - DAY)
    clock.advance(timedelta(minutes=10))
    with db.transaction(statement_timeout_ms=120_000) as connection:
        connection.execute(
            text("""
            insert into endpoints (last_tested, id, account_id, service_id, url, status_code, response_time, is_active)
            select cast(:midnight as timestamptz) - make_interval(secs => 36000.0 * n / cast(:many as bigint)),
                   gen_random_uuid(), 'a' || mod(n, 2) + 1,
                   case when mod(n, 4) < 2 then mod(n, 2) + 1 end, 'https://one.example/', 200 + 300 * (mod(n, 10) / 9),
                   case when mod(n, 7) > 0 then mod(n * 7919, 1000) end, mod(n, 20) > 0
              from generate_series(1, cast(:many as bigint)) n"""),
            {"midnight": MIDNIGHT, "many": many},
        )
    result = roll()
    assert (result.counts["hours"], result.counts["days"], result.counts["rows"]) == (10, 1, many + 1)
    recounted = """
        select date_trunc(:width, last_tested) as bucket_start, account_id, service_id, count(*) as requests,
               count(*) filter (where not is_active or status_code >= 500) as errors,
               round(cast(avg(response_time) as numeric), 9) as average_ms,
               percentile_disc(array[0.5, 0.95, 0.99]) within group (order by response_time) as percentiles,
               case when service_id > 0 then round(avg(cast(is_active as integer)), 9) end as uptime
          from endpoints
         where last_tested between :since and :until
         group by 1, 2, 3"""
    told = """
        select bucket_start, account_id, service_id, requests, errors, round(cast(average_ms as numeric), 9),
               array[p50_ms, p95_ms, p99_ms], round(cast(uptime as numeric), 9)
          from aggregated_analytics
         where granularity = :width and bucket_start between :since and :until"""
    for width in ("hour", "day"):
        binds = {"width": width, "since": MIDNIGHT - DAY, "until": MIDNIGHT - INSTANT}
        assert rows(f"({recounted}) except ({told})", **binds) == []
        assert rows(f"({told}) except ({recounted})", **binds) == []
    assert untouched == rows("select * from aggregated_analytics where bucket_start < :d order by id", d=MIDNIGHT - DAY)


@pytest.mark.parametrize("stride", [6, pytest.param(1, marks=pytest.mark.full)])
def test_killed_at_any_step_the_next_run_ends_at_the_recount(
    stride: int, settings: Any, put: Put, rows: Rows, db: Database
) -> None:
    put(*history(5, 60, since=MIDNIGHT - 3 * HOUR, until=MIDNIGHT + HOUR))
    environment = dict(as_role(settings, "aggregate-analytics").environ)
    environment["DATABASE_URL"] = as_role(settings, "aggregate-analytics").database()
    slot = rfc3339(MIDNIGHT + HOUR)

    def arrange() -> None:
        with db.transaction() as connection:
            connection.execute(text("truncate groundskeeper.task_run, aggregated_analytics, ml_window cascade"))

    with killer(environment, FUNCTIONS / "aggregate_analytics") as kill:
        arrange()
        undisturbed = kill.run(slot=slot, now=slot)
        assert (undisturbed.outcome, undisturbed.killed) == ("ok", False), undisturbed.error
        for step in range(undisturbed.steps, 0, -stride):
            arrange()
            assert kill.run(slot=slot, step=step, now=slot).killed, step
            rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")
            again = kill.run(slot=slot, now=slot)
            assert again.outcome in ("ok", "skipped"), (step, again)
            assert found(rows, "hour") == expected(rows, "hour", MIDNIGHT + HOUR), step
            assert found(rows, "day") == expected(rows, "day", MIDNIGHT), step
