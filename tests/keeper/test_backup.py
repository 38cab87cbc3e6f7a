"""`keeper backup`: what there is, the proof by hand, and a restore that brings no erased account back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import make_url

from shared import erasure
from shared.backup import shelf
from shared.database import Database
from shared.keeper.__main__ import keeper as command
from shared.laptop.postgres import Postgres
from shared.manifest import ROOT
from shared.objects import at
from shared.settings import Settings
from tests.conftest import NOW, settings_for

Rows = Callable[..., list[Any]]
Keeper = Callable[..., Result]

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "backup.json").read_text())


@pytest.fixture
def keeper(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    for name, value in {**settings.environ, "KEEPER_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(command, list(words))


def document(done: Result) -> dict[str, Any]:
    assert done.exception is None, done.exception
    found = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA, format_checker=jsonschema.FormatChecker())
    return dict(found)


def test_a_backup_is_listed_verified_restored_and_refused_where_it_must_not_go(
    keeper: Keeper, settings: Settings, db: Database, server: Postgres, rows: Rows
) -> None:
    rows("insert into idea (title, created_at) values ('one', :now) returning 1", now=NOW)
    assert document(keeper("backup", "list", "--json"))["backups"] == []
    assert keeper("pause", "verify_backup", "--reason", "by hand").exit_code == 0
    assert keeper("run", "backup_database", "--json").exit_code == 0
    assert keeper("resume", "verify_backup").exit_code == 0
    (listed,) = document(keeper("backup", "list", "--json"))["backups"]
    assert (listed["grades"], listed["verified_at"]) == (["daily", "weekly", "monthly"], None)
    verified = json.loads(keeper("backup", "verify", "--json").stdout)
    assert (verified["outcome"], verified["counts"]["verified"]) == ("ok", 1)
    (listed,) = document(keeper("backup", "list", "--json"))["backups"]
    assert listed["verified_at"] is not None

    with db.transaction() as connection:
        erasure.tombstone(connection, "a1", "a key", NOW)
    url = server.create_database("brought_back")
    try:
        done = document(
            keeper(
                "backup",
                "restore",
                listed["backup"],
                "--into",
                _plain(url),
                "--reason",
                "a drill",
                "--as",
                "ann",
                "--json",
            )
        )
        assert (done["equal"], done["tombstones"]) == (True, 1)
        again = Database(settings_for(url), "test")
        with again.transaction() as connection:
            assert connection.exec_driver_sql("select title from idea").scalars().all() == ["one"]
            assert erasure.erased(connection, "a1", "a key")
        again.close()
        (audit,) = rows("select actor, subject from groundskeeper.operator_audit where action = 'restore_backup'")
        assert tuple(audit) == ("ann", listed["backup"])

        full = keeper("backup", "restore", listed["backup"], "--into", _plain(url), "--reason", "again")
        assert "give an empty one" in str(full.exception)
    finally:
        server.drop_database("brought_back")
    own = keeper("backup", "restore", listed["backup"], "--into", _plain(settings.database()), "--reason", "no")
    assert "in use" in str(own.exception)
    missing = keeper("backup", "restore", "20260101T000000Z-00000000-1", "--into", _plain(url), "--reason", "no")
    assert "there is no backup" in str(missing.exception)


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def test_a_backup_whose_manifest_cannot_be_read_is_listed_with_its_trouble(keeper: Keeper, settings: Settings) -> None:
    store = at(settings.bucket("backups"))
    name = shelf.name_of(NOW, "0" * 32, 1)
    with store.create(shelf.manifest_of(name)) as sink:
        sink.write(b"{")
    (listed,) = document(keeper("backup", "list", "--json"))["backups"]
    assert "cannot be read" in listed["trouble"]
    assert name in keeper("backup", "list").output
