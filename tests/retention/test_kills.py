"""kill -9 between every two steps of a whole cleanup: afterwards everything is as after an undisturbed run."""

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from shared.database import Database
from shared.manifest import FUNCTIONS
from shared.retention.restore import restore
from shared.settings import Settings
from tests.conftest import NOW
from tests.killing import Killer, killer
from tests.retention.conftest import PACE, Rows

SLOT = "2026-06-15T02:00:00Z"
RULES: list[dict[str, Any]] = [
    {"name": "ping", "table": "ping", "timestamp": "at", "keep_days": 30, "account": "none"},
    {"name": "log", "table": "log", "timestamp": "at", "keep_days": 30, "account": "none", "archive": {"keep_days": 9}},
    {
        "name": "parent",
        "table": "parent",
        "timestamp": "at",
        "keep_days": 30,
        "account": "none",
        "children": "delete",
    },
]
COPIES = {"name": "copies", "table": "seen", "key": ["name"], "keep": "id"}

ARRANGE = """
drop table if exists ping, ping_0, ping_1, log, child, parent, seen;
truncate groundskeeper.task_run, groundskeeper.plan, groundskeeper.detached_partition,
         groundskeeper.archive_manifest cascade;
create table ping (at timestamptz not null) partition by range (at);
create table ping_0 partition of ping for values from ('2026-05-01 00:00+00') to ('2026-05-02 00:00+00');
create table ping_1 partition of ping for values from ('2026-05-02 00:00+00') to ('2026-06-01 00:00+00');
insert into ping select timestamptz '2026-05-01 00:00+00' + n * interval '6 hours' from generate_series(0, 100) n;
create table log (id int primary key, at timestamptz, note text);
insert into log select n, timestamptz '2026-05-10 00:00+00' + n * interval '1 day', 'x' from generate_series(1, 20) n;
create table parent (id int primary key, at timestamptz);
create table child (id int, parent_id int references parent);
create index on child (parent_id);
insert into parent select n, timestamptz '2026-05-10 00:00+00' + n * interval '1 day' from generate_series(1, 20) n;
insert into child select n, n from generate_series(1, 20) n;
create table seen (id int primary key, name text);
create index on seen (name);
insert into seen select n, n % 3 from generate_series(1, 30) n
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """db_cleanup with the rules of this test, in batches of four rows."""
    place = tmp_path / "functions" / "db_cleanup"
    shutil.copytree(FUNCTIONS / "db_cleanup", place, ignore=shutil.ignore_patterns("__pycache__"))
    document = yaml.safe_load((place / "task.yaml").read_text())
    document["params"] |= {"rules": RULES, "duplicates": [COPIES], "pace": {**PACE, "batch_rows": 8}}
    (place / "task.yaml").write_text(json.dumps(document))
    return place


def _state(rows: Rows, archive: Path) -> dict[str, Any]:
    known = {r.location for r in rows("select location from groundskeeper.archive_manifest")}
    # What a folder's store was writing when it was killed is no object; a bucket keeps nothing of it.
    files = {str(f) for f in archive.rglob("*") if f.is_file() and not f.name.startswith(".partial-")}
    return {
        **{t: sorted(map(str, rows(f"select * from {t}"))) for t in ("ping", "log", "parent", "child", "seen")},
        "tables": [r[0] for r in rows("select relname from pg_class where relname ~ '^ping' order by 1")],
        "open notes": len(rows("select 1 from groundskeeper.detached_partition where ended_at is null")),
        "archived": sum(r.items for r in rows("select items from groundskeeper.archive_manifest")),
        "unknown files": len({f for f in files if f.endswith(".json")} - known) + len(files) - 2 * len(known),
        "run": [(r.outcome, r.counts) for r in rows("select outcome, counts from groundskeeper.task_run")],
    }


def _each(
    kill: Killer, rows: Rows, arrange: Callable[[], None], archive: Path, db: Database, *, every: int, start: int
) -> int:
    arrange()
    undisturbed = kill.run(slot=SLOT, now=SLOT)
    assert (undisturbed.outcome, undisturbed.killed) == ("ok", False), undisturbed.error
    wanted = _state(rows, archive)
    assert wanted["run"][0][1]["ping.partitions"] == 1
    assert wanted["archived"] == 6
    for step in range(start, undisturbed.steps + 1, every):
        arrange()
        assert kill.run(slot=SLOT, step=step, now=SLOT).killed, step
        rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")
        again = kill.run(slot=SLOT, now=SLOT)
        assert again.outcome in ("ok", "skipped"), (step, again)
        assert _state(rows, archive) == wanted, step
    (run,) = rows("select run_id from groundskeeper.task_run")
    back = restore(db.transaction, run.run_id, actor="ann", why="a test", now=NOW, hold_until=NOW + timedelta(days=9))
    assert (back.restored, back.equal) == (6, True)
    return undisturbed.steps


@pytest.fixture
def arrange(db: Database, settings: Settings) -> Callable[[], None]:
    def anew() -> None:
        with db.transaction() as connection:
            for statement in ARRANGE.split(";"):
                connection.execute(text(statement.replace(":", r"\:")))
        shutil.rmtree(settings.bucket("archive"), ignore_errors=True)

    return anew


def test_killed_at_some_steps_the_next_delivery_leaves_everything_as_undisturbed(
    db: Database, settings: Settings, folder: Path, rows: Rows, arrange: Callable[[], None]
) -> None:
    with killer(dict(settings.environ), folder) as kill:
        _each(kill, rows, arrange, Path(settings.bucket("archive")), db, every=29, start=60)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_killed_before_every_step_the_next_delivery_leaves_everything_as_undisturbed(
    db: Database, settings: Settings, folder: Path, rows: Rows, arrange: Callable[[], None]
) -> None:
    with killer(dict(settings.environ), folder) as kill:
        steps = _each(kill, rows, arrange, Path(settings.bucket("archive")), db, every=1, start=1)
    assert steps > 200
