"""kill -9 between two steps of the routines: after the next delivery everything is as after an undisturbed run.

Every few steps in `make verify`, every one by hand. archive_mockups, rotate_logs, backup_database and verify_backup
have their own.
"""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.database import Database
from shared.manifest import FUNCTIONS
from shared.settings import Settings
from tests.conftest import NOW
from tests.functions.test_purge_objects import left, put
from tests.functions.test_purge_signals import log
from tests.killing import killer

Rows = Callable[..., list[Any]]
SLOT = "2026-06-15T12:00:00Z"
DAY = timedelta(days=1)
_AUDITED = datetime(2024, 12, 15, 12, tzinfo=UTC)  # eighteen months before NOW

_EMPTY = """
truncate groundskeeper.task_run, groundskeeper.plan, groundskeeper.archive_manifest, groundskeeper.operator_audit,
         groundskeeper.run_request, groundskeeper.query_analysis, groundskeeper.query_plan, signal, idea cascade;
delete from groundskeeper.query_total
"""
_ROWS = """
insert into signal (source, created_at)
select 'search', timestamptz '2026-05-10 00:00+00' + n * interval '1 day' from generate_series(1, 20) n;
insert into idea (id, title, created_at) values (1, 'i', '2026-06-01');
insert into mockup (idea_id, title, image, created_at) values (1, 'm', 'a/named.png', '2026-06-01');
insert into groundskeeper.operator_audit (at, actor, action, subject, why, details)
select timestamptz '2024-12-15 12:00+00' + n * interval '1 day', 'alma', 'approve', 'db_cleanup', 'a case', '{"a": 1}'
  from generate_series(-6, 3) n
"""


class _World:
    """What the routines clean: rows, logs, objects, the operators' audit, and the statements that were counted."""

    def __init__(self, settings: Settings, db: Database, rows: Rows) -> None:
        self._db, self._rows = db, rows
        self._logs, self._general, self._mockups, self._archive, self._cold = (
            Path(settings.bucket(name)) for name in ("logs", "general", "mockups", "archive", "cold-storage")
        )
        with db.autocommit() as connection:
            connection.execute(text("create extension pg_stat_statements"))

    def arrange(self) -> None:
        """Everything anew."""
        for place in (self._logs, self._general, self._mockups, self._archive, self._cold):
            shutil.rmtree(place, ignore_errors=True)
        with self._db.transaction() as connection:
            for statement in (_EMPTY + ";" + _ROWS).split(";"):
                connection.execute(text(statement.replace(":", r"\:")))
        for number in range(3):
            log(self._logs, f"old{number}.log", NOW - 31 * DAY)
            put(self._general, f"old/{number}", at=NOW - 91 * DAY)
            put(self._mockups, f"orphan/{number}.png", at=NOW - 31 * DAY)
        log(self._logs, "new.log", NOW)
        put(self._general, "young", at=NOW - 89 * DAY)
        put(self._mockups, "a/named.png", at=NOW - 400 * DAY)

    def state(self) -> dict[str, Any]:
        """What there is; of archives, that each file belongs to a manifest that was entered."""
        known = {r.location for r in self._rows("select location from groundskeeper.archive_manifest")}
        files = {f for f in self._archive.rglob("*") if f.is_file() and not f.name.startswith(".partial-")}
        audited = self._rows("select at from groundskeeper.operator_audit where actor = 'alma' order by at")
        plans = "select run_id, count(*), count(distinct rank), max(rank) from groundskeeper.query_plan group by 1"
        return {
            "signals": [r.created_at for r in self._rows("select created_at from signal order by 1")],
            "logs": left(self._logs),
            "objects": left(self._general) + left(self._mockups),
            "audited": [r.at for r in audited],
            "archived": sum(r.items for r in self._rows("select items from groundskeeper.archive_manifest")),
            "files of no archive": len({str(f) for f in files if f.suffix == ".json"} - known),
            "looks": len(self._rows("select 1 from groundskeeper.query_analysis")),
            "ranks": [r.count == r[2] == r.max for r in self._rows(plans)],
            "unended": len(self._rows("select 1 from groundskeeper.task_run where outcome is null")),
        }


@pytest.fixture
def world(settings: Settings, db: Database, rows: Rows) -> _World:
    return _World(settings, db, rows)


_DONE: dict[str, Callable[[dict[str, Any]], bool]] = {
    "purge_signals": lambda state: len(state["signals"]) == 14 and state["logs"] == ["new.log"],
    "purge_objects": lambda state: state["objects"] == ["young", "a/named.png"],
    "purge_audit": lambda state: state["archived"] == 6 and state["audited"][0] == _AUDITED,
    "cleanup": lambda state: all(_DONE[name](state) for name in ("purge_signals", "purge_objects", "purge_audit")),
    "analyze_query_plans": lambda state: state["looks"] == 1 and state["ranks"] == [True],
}


def _kill(world: _World, settings: Settings, rows: Rows, task: str, *, every: int, start: int = 1) -> None:
    with killer(dict(settings.environ), FUNCTIONS / task) as kill:
        world.arrange()
        undisturbed = kill.run(slot=SLOT, now=SLOT)
        assert undisturbed.outcome == "ok", undisturbed.error
        wanted = world.state()
        assert _DONE[task](wanted), wanted
        for step in range(start, undisturbed.steps + 1, every):
            world.arrange()
            assert kill.run(slot=SLOT, step=step, now=SLOT).killed, step
            rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")
            again = kill.run(slot=SLOT, now=SLOT)
            assert again.outcome in ("ok", "skipped"), (step, again)
            assert world.state() == wanted, step


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", _DONE)
def test_killed_before_every_few_steps_nothing_is_lost_and_nothing_done_twice(
    world: _World, settings: Settings, rows: Rows, task: str
) -> None:
    _kill(world, settings, rows, task, every=13, start=7)


@pytest.mark.soak
@pytest.mark.parametrize("task", _DONE)
def test_killed_before_every_step_nothing_is_lost_and_nothing_done_twice(
    world: _World, settings: Settings, rows: Rows, task: str
) -> None:
    _kill(world, settings, rows, task, every=1)
