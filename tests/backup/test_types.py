"""Every kind of data PostgreSQL holds comes back as it was: dumped, restored and equal by hash."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.backup import fingerprint, shelf
from shared.call import of_slot
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.postgres import Postgres
from shared.manifest import FUNCTIONS, Cron
from shared.migrations import run as migrations
from shared.objects import at
from shared.result import Result
from shared.settings import Settings
from shared.task import load
from tests.conftest import NOW, ManualClock, settings_for

_KINDS = Path(__file__).with_name("kinds.sql")
_ODD = r'"Odd Schema"."T %s: ""quoted"""'


def fill(server: Postgres, database: Database, rows: int) -> None:
    """Create one of everything."""
    subprocess.run(
        [server.binaries.program("psql"), "--quiet", "--no-psqlrc", f"--set=rows={rows}", f"--file={_KINDS}"],
        env=database.program_environment(_KINDS.parent),
        stdout=subprocess.DEVNULL,
        check=True,
    )


def backed_up(server: Postgres, name: str, folder: Path, rows: int) -> tuple[Result, Result]:
    """Fill a database, back it up and verify the backup: how both ended."""
    settings = settings_for(server.create_database(name), KEEPER_BUCKET_BACKUPS=str(folder))
    database = Database(settings, "test")
    migrations.upgrade(database.engine, "groundskeeper")
    migrations.stamp_environment(database.engine, "demo-groundskeeper", False, NOW)
    fill(server, database, rows)
    with database.transaction() as connection:
        connection.execute(
            text("insert into groundskeeper.pause values ('verify_backup', 'later', 'tester', :now, null)"),
            {"now": NOW},
        )
    taken = _run("backup_database", settings)
    with database.transaction() as connection:
        connection.execute(text("delete from groundskeeper.pause"))
    verified = _run("verify_backup", settings)
    database.close()
    return taken, verified


def _run(task: str, settings: Settings) -> Result:
    runner = load(FUNCTIONS / task).runner(settings, ManualClock())
    try:
        return runner.execute(of_slot(Cron("0 12 * * *"), NOW))
    finally:
        runner.close()


def clean(server: Postgres, name: str) -> None:
    """Drop the database and the role that `fill` made."""
    server.drop_database(name)
    server.execute('drop role if exists "reader of a test"')


def test_every_kind_of_data_comes_back_the_same(server: Postgres, tmp_path: Path) -> None:
    try:
        taken, verified = backed_up(server, "kinds", tmp_path, rows=60)
    finally:
        clean(server, "kinds")
    assert taken.outcome is Outcome.OK, taken.error
    assert verified.outcome is Outcome.OK, verified.error
    assert verified.counts["verified"] == 1
    (entry,) = shelf.entries(at(str(tmp_path)))
    made = shelf.read(at(str(tmp_path)), entry.name)
    tables = made.fingerprint.tables
    assert tables["public.kinds"].rows == 64
    assert tables["public.tenants"].rows == 2
    assert tables[_ODD].rows == 2
    assert tables["public.no_columns"].rows == 1
    assert tables["public.parent"].rows == 1
    assert "public.events" not in tables
    assert tables["public.events_1_a"].rows + tables["public.events_rest"].rows == 39
    assert made.fingerprint.large_objects.rows == 20
    assert made.fingerprint.sequences['"Odd Schema".counter'] == 50
    assert "hstore" in made.surroundings.extensions


# --- the fingerprint itself

Change = Callable[[Any], None]


@pytest.mark.parametrize(
    "change",
    [
        "update kinds set double_ = 0.1 where id = 3",
        "update kinds set note = note || ' ' where id = 3",
        "update kinds set word = '' where word is null",
        "update kinds set bytes = set_byte(bytes, 0, (get_byte(bytes, 0) + 1) % 256) where id = 3",
        "insert into kinds (word) select word from kinds where id = 3",
        "update events set id = id + 1000 where id = 1",
        "delete from child",
        "select lo_put(max(oid), 0, 'x') from pg_largeobject_metadata",
        "select lo_unlink(max(oid)) from pg_largeobject_metadata",
        "drop index kinds_words_idx",
        "drop trigger touched on empty",
        "drop policy own on tenants",
        "alter table kinds drop column truth cascade",
        "drop table empty cascade",
        "select setval('kinds_id_seq', 1)",
    ],
)
def test_any_change_shows_in_the_fingerprint(filled: tuple[Database, fingerprint.Fingerprint], change: str) -> None:
    database, before = filled
    with database.engine.connect() as connection:
        fingerprint.settle(connection)
        connection.exec_driver_sql(f"set local search_path = public; {change}; set local search_path = ''")
        after = _fingerprint(connection)
        connection.rollback()
        connection.exec_driver_sql("select setval('public.kinds_id_seq', 64)")  # no rollback takes a sequence back
        connection.commit()
    assert fingerprint.differences(before, after), change


@pytest.fixture(scope="module")
def filled(server: Postgres) -> Any:
    database = Database(settings_for(server.create_database("changing")), "test")
    fill(server, database, 60)
    with database.transaction() as connection:
        fingerprint.settle(connection)
        before = _fingerprint(connection)
    yield database, before
    database.close()
    clean(server, "changing")


def _fingerprint(connection: Any) -> fingerprint.Fingerprint:
    return fingerprint.Fingerprint(
        {name: fingerprint.content(connection, name) for name in fingerprint.tables(connection)},
        fingerprint.large_objects(connection),
        fingerprint.sequences(connection),
        fingerprint.shape(connection),
    )
