"""The bill, recomputed by hand."""

import math
from pathlib import Path

import pytest

from shared.costs.compare import ways
from shared.costs.estimate import SIZES, busy, estimate, slots
from shared.costs.prices import MONTH_S
from shared.manifest import Cron, Every, Http, Run, Task, Topic, Trigger, load_all

SMALL = SIZES[0]


def task(*triggers: Trigger, name: str = "night_count", **changes: object) -> Task:
    run = Run(kind="function", memory_mb=512, cpu=1.0, timeout_s=1800)
    values: dict[str, object] = {
        "name": name,
        "folder": Path(name),
        "summary": "",
        "owner": "tests",
        "triggers": triggers,
        "run": run,
        "uses": (),
        "requires": (),
        "must_succeed_within_s": 93600,
        "tables": {},
        "params": {},
        **changes,
    }
    return Task(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trigger", "times"),
    [
        (Cron("0 2 * * *"), 30),
        (Cron("0 * * * *"), 720),
        (Cron("0 0 1 * *"), 1),
        (Cron("*/5 * * * *"), 8640),
        (Cron("0 0 * * 0"), 4),
        (Every(5), 43200),
    ],
)
def test_a_schedule_is_counted_over_thirty_days(trigger: Trigger, times: int) -> None:
    assert slots(task(trigger)) == times


def test_a_nightly_functions_bill_is_what_one_computes_by_hand() -> None:
    bill = estimate({"night_count": task(Cron("0 2 * * *"))}, SMALL, measured={"night_count": 100.0})
    (line,) = bill.lines
    assert (line.calls, line.vcpu_s, line.gib_s, line.measured) == (30, pytest.approx(3000), pytest.approx(1500), True)
    assert line.compute == pytest.approx(3000 * 0.000024 + 1500 * 0.0000025 + 30 / 1e6 * 0.40)
    # one schedule, one alert condition; the compute and the schedule are within what is free
    assert line.other == pytest.approx(0.10 + 0.10)
    assert bill.dollars == pytest.approx(0.10)


def test_a_job_is_billed_by_its_shards_at_the_price_of_instances() -> None:
    run = Run(kind="job", memory_mb=4096, cpu=2.0, timeout_s=7200, tasks=4, parallelism=2)
    bill = estimate(
        {"big_report": task(Cron("0 6 * * *"), name="big_report", run=run)}, SMALL, measured={"big_report": 900.0}
    )
    (line,) = bill.lines
    assert line.vcpu_s == pytest.approx(30 * 900 * 4 * 2)
    assert line.compute == pytest.approx(216_000 * 0.000018 + 432_000 * 0.000002)
    assert bill.dollars == pytest.approx(0.10)


def test_an_instance_that_answers_several_at_once_is_paid_once() -> None:
    alone = busy(1_000_000, 0.5, 1)
    assert alone == pytest.approx(500_000)
    together = busy(1_000_000, 0.5, 80)
    assert together < alone
    assert together == pytest.approx(MONTH_S * (1 - math.exp(-500_000 / MONTH_S)))
    assert busy(1e9, 0.5, 80) == pytest.approx(1e9 * 0.5 / 80)


def test_a_seldom_call_costs_its_own_time_whatever_the_concurrency() -> None:
    assert busy(10, 1.0, 80) == pytest.approx(10, rel=0.001)


def test_it_grows_with_the_platform() -> None:
    tasks = {
        "event_sink": task(Topic("app-events"), name="event_sink", run=Run("function", 512, 1.0, 120, concurrency=10)),
        "public_hook": task(Http("/x", ("POST",), "stripe", "why"), name="public_hook"),
        "night_count": task(Cron("0 2 * * *")),
    }
    small, medium, large = (estimate(tasks, size).dollars for size in SIZES)
    assert 0 < small < medium < large


def test_what_ticks_inside_its_minute_pays_the_whole_minute_and_a_single_pass_does_not() -> None:
    ticking, passing = (
        estimate({"night_count": task(Every(seconds), run=Run("function", 512, 1.0, 59))}, SMALL).lines[0]
        for seconds in (5, 60)
    )
    assert ticking.calls == passing.calls == 43_200
    assert ticking.seconds == pytest.approx(59 * 0.9)
    assert passing.seconds == pytest.approx(1.0)


def test_operators_do_not_grow_with_the_platform() -> None:
    tasks = {
        "inner_page": task(Http("/console", ("GET",), "operator", "why"), name="inner_page"),
        "public_hook": task(Http("/x", ("POST",), "stripe", "why"), name="public_hook"),
    }
    (inner, hook), (later_inner, later_hook) = (estimate(tasks, size).lines for size in (SIZES[0], SIZES[2]))
    assert inner.calls == later_inner.calls == 15_000
    assert (hook.calls, later_hook.calls) == (3_000, 600_000)


def test_what_is_free_never_makes_a_bill_negative() -> None:
    bill = estimate({"inner_api": task(name="inner_api", must_succeed_within_s=None)}, SMALL)
    assert bill.dollars == pytest.approx(0.10)
    assert estimate({}, SMALL).dollars == 0


def test_four_always_on_workers_cost_what_the_price_list_says() -> None:
    workers = {w.name: w.dollars for w in ways(SMALL)}["workers"]
    assert workers == pytest.approx(270.54 - 240_000 * 0.000018 - 450_000 * 0.000002, abs=0.02)


def test_waiting_is_what_costs_and_a_doorbell_waits_as_long_as_ticking() -> None:
    small, *_, large = ({w.name: w.dollars for w in ways(size)} for size in SIZES)
    for size in (small, large):
        assert size["minute"] < size["tick"] == size["doorbell"] < size["workers"]
    # an instance of 0.333 vCPU and 0.5 GiB, all month, less what is free
    assert small["tick"] == pytest.approx(
        (MONTH_S * 0.333 - 180_000) * 0.000024 + (MONTH_S * 0.5 - 360_000) * 0.0000025, abs=0.01
    )


def test_the_repositorys_own_tasks_have_a_bill_at_every_size() -> None:
    tasks = load_all()
    for size in SIZES:
        bill = estimate(tasks, size)
        assert [line.task for line in bill.lines] == sorted(tasks)
        assert all(line.dollars > 0 for line in bill.lines)
