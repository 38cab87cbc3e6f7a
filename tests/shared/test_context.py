"""What a task is given: starts that are not repeated, a glass that is broken on the record, a lease that is watched."""

import json
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared import heartbeat, ledger, logs, plans
from shared.call import Call, by_hand
from shared.clock import SystemClock
from shared.database import Database
from shared.errors import Outcome, Retry
from shared.settings import Settings
from tests.conftest import NOW, ManualClock
from tests.shared.conftest import SLOT, MakeTask, Rows

DELETES = """
ctx.authorize(Plan((Item("victim", 1),), predicates={"victim": "all"}))
with ctx.begin() as connection:
    ctx.count("deleted")
return ctx.counts
"""
DESTRUCTIVE = {"extra": "destructive: true\ncaps: {rows: 5}"}


def asked(db: Database, clock: ManualClock, **asking: Any) -> Call:
    with db.transaction() as connection:
        return by_hand(
            plans.request_run(
                connection,
                task="sample_task",
                actor="ann",
                why="backups are being moved",
                now=clock.now(),
                **asking,
            )
        )


# --- the backup gate


def test_a_broken_glass_is_on_the_record_with_who_and_why(
    make: MakeTask, settings: Settings, db: Database, clock: ManualClock, rows: Rows
) -> None:
    gated = replace(settings, backup_gate=timedelta(hours=26))
    result = make(DELETES, using=gated, **DESTRUCTIVE).execute(asked(db, clock, break_glass=True))
    assert result.outcome is Outcome.OK
    (entry,) = rows("select actor, action, subject, why, details from groundskeeper.operator_audit")
    assert tuple(entry)[:4] == ("ann", "break_glass", "sample_task", "backups are being moved")
    assert entry.details["run_id"] == str(result.run_id)


def test_a_glass_that_need_not_be_broken_is_not(
    make: MakeTask, settings: Settings, db: Database, clock: ManualClock, rows: Rows
) -> None:
    rows("insert into groundskeeper.verified_backup values ('m', :t, :t, 60) returning 1", t=NOW)
    gated = replace(settings, backup_gate=timedelta(hours=26))
    make(DELETES, using=gated, **DESTRUCTIVE).execute(asked(db, clock, break_glass=True))
    assert rows("select 1 from groundskeeper.operator_audit") == []


# --- starting another task


def test_an_attempt_that_goes_on_does_not_start_a_task_twice(
    make: MakeTask, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr("shared.targets.start", lambda task, request, settings, clock: started.append(request))
    body = """
ctx.start("other_task", "it is due", params={"n": 1})
ctx.start("other_task", "it is due", params={"n": 2})
raise Retry("killed on the way")
"""
    runner = make(body, extra="starts: [other_task]")
    assert [runner.execute(SLOT).outcome for _ in range(2)] == [Outcome.RETRY] * 2
    requests = rows("select request_id, actor, params from groundskeeper.run_request")
    assert sorted(r.params["n"] for r in requests) == [1, 2]
    assert {r.actor for r in requests} == {"sample_task"}
    assert (len(started), len(set(started))) == (4, 2)  # invoked again, as the same requests


# --- the heartbeat


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "HEARTBEAT_S", 0.05)


WORKS_UNTIL_LOST = """
for _ in range(100):
    ctx.progress(7, 9)
    ctx.clock.sleep(0.05)
    ctx.check()
return {}
"""


def test_a_run_whose_lease_is_taken_stops_without_touching_the_database(
    make: MakeTask, db: Database, rows: Rows, quick: None
) -> None:
    runner = make(WORKS_UNTIL_LOST, at=SystemClock())
    results = []
    work = threading.Thread(target=lambda: results.append(runner.execute(SLOT)))
    work.start()
    while not rows("select 1 from groundskeeper.task_attempt where progress_done = 7 and progress_total = 9"):
        assert work.is_alive()
    rows("update groundskeeper.task_attempt set ended_at = clock_timestamp() returning 1")
    work.join(10)
    assert results[0].outcome is Outcome.STOPPED


@pytest.mark.parametrize("lease_s", [0.3, 60])
def test_silence_costs_the_lease_only_when_it_lasts_as_long_as_that(
    make: MakeTask, quick: None, monkeypatch: pytest.MonkeyPatch, lease_s: float
) -> None:
    def silent(*_: object, **__: object) -> bool:
        raise Retry("the database stopped answering")

    monkeypatch.setattr(ledger, "heartbeat", silent)
    monkeypatch.setattr(ledger, "LEASE_S", lease_s)
    monkeypatch.setattr(ledger, "_INSERT_ATTEMPT", text(str(ledger._INSERT_ATTEMPT).replace(":lease_s", "60")))
    result = make(WORKS_UNTIL_LOST.replace("100", "20"), at=SystemClock()).execute(SLOT)
    assert result.outcome is (Outcome.STOPPED if lease_s < 1 else Outcome.OK)


def test_a_heartbeats_lines_bear_its_runs_fields(
    make: MakeTask, quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object, **__: object) -> bool:
        raise Retry("the database stopped answering")

    logs.configure("stdout")
    monkeypatch.setattr(ledger, "heartbeat", failing)
    result = make("ctx.clock.sleep(0.5)", at=SystemClock()).execute(SLOT)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    failed = [line for line in said if line["message"] == "heartbeat failed"]
    assert failed
    assert {line["run_id"] for line in failed} == {str(result.run_id)}


def test_no_heartbeat_outlives_its_run(make: MakeTask, quick: None) -> None:
    def beating() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name.endswith("(run)") and t.is_alive()]

    make("ctx.clock.sleep(0.2)", at=SystemClock()).execute(SLOT)
    assert beating() == []
    assert heartbeat._TIMEOUT_MS / 1000 < ledger.LEASE_S / 3
