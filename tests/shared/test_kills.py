"""kill -9 between any two steps of the wrapper: the next delivery takes over, and the work is done exactly once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import text

from shared.database import Database
from shared.settings import Settings
from tests.killing import killer

BODY = """
with ctx.read() as connection:
    due = connection.execute(text("select count(*) from work where done = 0")).scalar_one()
ctx.authorize(Plan((Item("work", due),), predicates={"work": "done = 0"}))
for _ in range(3):
    with ctx.begin() as connection:
        ctx.count("done", connection.execute(text(
            "update work set done = done + 1 where n in (select n from work where done = 0 order by n limit 2)"
        )).rowcount)
return ctx.counts
"""
SLOT = "2026-06-15T06:00:00Z"


def test_killed_before_every_step_the_next_delivery_finishes_the_work(
    db: Database, settings: Settings, task_folder: Callable[..., Path], rows: Callable[..., list[Any]]
) -> None:
    folder = task_folder(BODY, extra="destructive: true\ncaps: {rows: 100}")
    environment = dict(settings.environ)

    def arrange() -> None:
        with db.transaction() as connection:
            connection.execute(text("drop table if exists work"))
            connection.execute(text("create table work as select n, 0 as done from generate_series(1, 6) n"))
            connection.execute(text("truncate groundskeeper.task_run, groundskeeper.plan cascade"))

    def let_the_lease_expire() -> None:
        rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")

    with killer(environment, folder) as kill:
        arrange()
        undisturbed = kill.run(slot=SLOT, now=SLOT)
        assert (undisturbed.outcome, undisturbed.killed) == ("ok", False), undisturbed.error
        for step in range(1, undisturbed.steps + 1):
            arrange()
            assert kill.run(slot=SLOT, step=step, now=SLOT).killed, step
            let_the_lease_expire()
            again = kill.run(slot=SLOT, now=SLOT)
            assert again.outcome in ("ok", "skipped"), (step, again)
            assert [r.done for r in rows("select done from work")] == [1] * 6, step
            (run,) = rows("select outcome, counts from groundskeeper.task_run")
            assert (run.outcome, run.counts) == ("ok", {"done": 6}), step
            assert rows("select 1 from groundskeeper.task_attempt where ended_at is null") == [], step
