"""cleanup: a routine is started when it has work, once, and as a run of its own."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from shared.call import by_hand
from shared.database import Database
from shared.errors import Outcome
from shared.manifest import FUNCTIONS
from shared.settings import Settings
from tests.conftest import NOW, ManualClock, RunTask

Rows = Callable[..., list[Any]]
ROUTINES = ("archive_mockups", "purge_audit", "purge_objects", "purge_signals")
DAY, TICK = timedelta(days=1), timedelta(microseconds=1)


class Functions:
    """The functions' endpoints: each start by the request it names."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, uuid.UUID]] = []
        self.status = 200
        functions = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                functions.asked.append((self.path.strip("/"), uuid.UUID(body["run_request"])))
                self.send_response(functions.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def names(self) -> list[str]:
        """The tasks that were started since the last look."""
        names = [name for name, _ in self.asked]
        self.asked.clear()
        return names


@pytest.fixture
def functions() -> Iterator[Functions]:
    found = Functions()
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


@pytest.fixture
def using(settings: Settings, functions: Functions) -> Settings:
    url = f"http://127.0.0.1:{functions.server.server_port}"
    return replace(settings, targets={name: f"{url}/{name}" for name in ROUTINES})


@pytest.fixture
def signals(db: Database) -> Callable[..., None]:
    def write(*moments: datetime) -> None:
        with db.transaction() as connection:
            for at in moments:
                connection.execute(text("insert into signal (source, created_at) values ('search', :at)"), {"at": at})

    return write


def test_only_routines_with_work_are_started(
    using: Settings, functions: Functions, run_task: RunTask, signals: Callable[..., None], rows: Rows
) -> None:
    signals(NOW - 30 * DAY - TICK, NOW)
    result = run_task("cleanup", using=using)
    assert (result.outcome, result.error) == (Outcome.OK, None)
    assert result.counts == {"started": 2, "idle": 2}
    assert functions.names() == ["purge_objects", "purge_signals"]
    asked = rows("select task, actor, why from groundskeeper.run_request where actor = 'cleanup' order by task")
    assert [tuple(r) for r in asked] == [
        ("purge_objects", "cleanup", "cleanup: no good run for 24 hours"),
        ("purge_signals", "cleanup", "cleanup: rows of signal fell due"),
    ]


def test_rows_exactly_at_the_limit_are_no_work(
    using: Settings, functions: Functions, run_task: RunTask, signals: Callable[..., None]
) -> None:
    signals(NOW - 30 * DAY)
    run_task("cleanup", using=using)
    assert functions.names() == ["purge_objects"]


def test_each_start_is_a_real_run_and_then_there_is_no_work(
    using: Settings,
    functions: Functions,
    run_task: RunTask,
    signals: Callable[..., None],
    rows: Rows,
    clock: ManualClock,
) -> None:
    signals(NOW - 31 * DAY, NOW - 29 * DAY)
    run_task("cleanup", using=using)
    for name, request in list(functions.asked):
        run_task(name, by_hand(request))
    functions.asked.clear()
    assert [r.outcome for r in rows("select outcome from groundskeeper.task_run where task = 'purge_signals'")] == [
        "ok"
    ]
    assert len(rows("select 1 from signal")) == 1
    assert run_task("cleanup", using=using).counts == {"started": 0, "idle": 4}
    clock.advance(2 * DAY)  # the second signal falls due
    run_task("cleanup", using=using)
    assert functions.names() == ["purge_objects", "purge_signals"]


def test_what_stayed_when_the_routine_ran_well_is_no_work(
    using: Settings, functions: Functions, run_task: RunTask, db: Database, clock: ManualClock
) -> None:
    with db.transaction() as connection:
        connection.execute(text("insert into idea (id, title, created_at) values (1, 'i', :at)"), {"at": NOW})
        connection.execute(
            text("insert into mockup (idea_id, title, image, created_at) values (1, 'm', 'lost.png', :at)"),
            {"at": NOW - 500 * DAY},
        )
    assert run_task("archive_mockups").counts["mockup.missing"] == 1
    clock.advance(timedelta(hours=1))
    run_task("cleanup", using=using)
    assert functions.names() == ["purge_objects"]


@pytest.mark.parametrize(
    ("outcome", "beats", "again"),
    [
        ("partial", False, True),
        ("stopped", False, True),
        ("refused", False, False),
        (None, True, False),
        (None, False, True),  # killed, and nobody delivers it again
    ],
)
def test_a_run_that_left_something_is_work_and_one_under_way_or_refused_is_not(
    outcome: str | None,
    beats: bool,
    again: bool,
    using: Settings,
    functions: Functions,
    run_task: RunTask,
    db: Database,
) -> None:
    with db.transaction() as connection:
        connection.execute(
            text("""insert into groundskeeper.task_run
                    (run_id, task, run_key, shard, trigger, outcome, actor, code_version, started_at)
                    values (gen_random_uuid(), 'purge_audit', 'k', 0, 'hand', :outcome, 'a', 'v', :at)"""),
            {"outcome": outcome, "at": NOW},
        )
        if beats:
            connection.execute(
                text("""insert into groundskeeper.task_attempt
                               (run_id, attempt, scope, lease_s, started_at, heartbeat_at)
                        select run_id, 1, task, 60, clock_timestamp(), clock_timestamp() from groundskeeper.task_run
                         where task = 'purge_audit'""")
            )
    run_task("cleanup", using=using)
    assert ("purge_audit" in functions.names()) is again


def test_one_that_cannot_be_started_does_not_hide_the_others(
    using: Settings, functions: Functions, run_task: RunTask, signals: Callable[..., None]
) -> None:
    signals(NOW - 31 * DAY)
    functions.status = 403
    result = run_task("cleanup", using=using)
    assert result.outcome is Outcome.PARTIAL
    assert functions.names() == ["purge_objects", "purge_signals"]
    assert "purge_objects: the task's function answered 403" in (result.error or "")
    assert result.counts == {"started": 0, "idle": 2}


def test_the_ages_are_the_tasks_own() -> None:
    def params(task: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((FUNCTIONS / task / "task.yaml").read_text())["params"]
        return found

    keys = ("table", "timestamp", "keep_days", "keep_months")
    routines = params("cleanup")["routines"]
    assert {r["task"] for r in routines} == set(ROUTINES)
    for routine in (r for r in routines if "table" in r):
        (rule,) = (r for r in params(routine["task"])["rules"] if r["table"] == routine["table"])
        assert {k: rule.get(k) for k in keys} == {k: routine.get(k) for k in keys}
