"""How much is explained, on 15 and on 18: pgbench, the platform's own statements, and such as object mappers write."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.database import Database
from shared.laptop.postgres import Postgres
from shared.migrations import run as migrations
from shared.platform.partitions import create_ahead
from shared.queryplans import explain, statements
from shared.queryplans.lexer import has_plan
from tests.conftest import NOW, settings_for
from tests.queryplans.shops import by_sqlalchemy

_CORPUS = Path(__file__).with_name("corpus.sql")


@pytest.fixture(scope="module")
def database(each_server: Postgres) -> Iterator[Database]:
    settings = settings_for(each_server.create_database("covered"))
    made = Database(settings, "test")
    for branch in ("groundskeeper", "platform"):
        migrations.upgrade(made.engine, branch)
    migrations.stamp_environment(made.engine, "demo-groundskeeper", False, NOW)
    with made.transaction() as connection:
        connection.execute(text("create extension pg_stat_statements"))
        create_ahead(connection, NOW, 2)  # of a table without partitions every plan is empty
    yield made
    made.close()
    each_server.drop_database("covered")


def _corpus(major: int) -> list[str]:
    """The statements for this version: those after `-- from 16` and so on need one as new."""
    found, least = [], 0
    for part in _CORPUS.read_text().split(";\n"):
        lines = part.strip().splitlines()
        while lines and lines[0].startswith("--"):
            if lines[0].startswith("-- from "):
                least = int(lines[0].split()[2])
            lines.pop(0)
        if lines and major >= least:
            found.append("\n".join(lines))
    return found


def _major(connection: Any) -> int:
    return int(connection.execute(text("show server_version_num")).scalar_one()) // 10_000


def _explained(database: Database) -> tuple[int, dict[str, str]]:
    """How many of the counted statements that PostgreSQL plans are explained, and the others with their reasons."""
    with database.transaction(read_only=True) as connection:
        place = statements.extension(connection)
        counted = statements.totals(connection, place)
        worst = statements.with_texts(connection, place, list(counted.items()))
        major = _major(connection)
    explained, reasons = 0, {}
    with database.transaction(read_only=True) as connection:
        explain.prepare(connection)
        for statement in worst:
            if statement.sql is None or not has_plan(statement.sql):
                continue
            answer = explain.explain(connection, statement.sql, major=major)
            if answer.plan is None:
                reasons[statement.sql] = str(answer.reason)
            else:
                assert "false" not in str(answer.plan.get("One-Time Filter", "")), statement.sql
                explained += 1
    return explained, reasons


def _forget(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(text("select pg_stat_statements_reset()"))


def test_every_statement_of_the_corpus_is_explained(database: Database) -> None:
    with database.transaction() as connection:
        major = _major(connection)
    corpus = _corpus(major)
    _forget(database)
    with database.engine.connect() as connection:
        for statement in corpus:
            with connection.begin() as transaction:
                connection.exec_driver_sql(statement)
                transaction.rollback()
    explained, reasons = _explained(database)
    # the path of json_table is no parameter for the server, whatever pg_stat_statements shows
    assert {sql: why for sql, why in reasons.items() if "json_table" not in sql} == {}
    assert set(reasons.values()) <= {"PostgreSQL plans it with its values only"}
    assert explained >= len(corpus) - 4  # some share an entry


@pytest.mark.full
def test_every_statement_of_pgbench_is_explained(database: Database, each_server: Postgres) -> None:
    environment = database.program_environment(_CORPUS.parent)
    program = each_server.binaries.program("pgbench")
    subprocess.run([program, "--initialize", "--quiet"], env=environment, check=True, capture_output=True)
    _forget(database)
    for protocol in ("simple", "prepared"):
        command = [program, "--transactions=50", f"--protocol={protocol}"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
    explained, reasons = _explained(database)
    assert reasons == {}
    assert explained >= 5


def test_every_statement_that_sqlalchemys_orm_writes_is_explained(database: Database) -> None:
    by_sqlalchemy.create(database.engine)
    _forget(database)
    by_sqlalchemy.exercise(database.engine)
    explained, reasons = _explained(database)
    assert reasons == {}
    assert explained >= 50


def test_every_statement_that_djangos_orm_writes_is_explained(database: Database) -> None:
    # Django is configured once a process, and for one database: a process of its own.
    environment = {**os.environ, **database.program_environment(_CORPUS.parent)}
    _forget(database)
    done = subprocess.run(
        [sys.executable, "-m", "tests.queryplans.shops.by_django"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    explained, reasons = _explained(database)
    assert reasons == {}
    assert explained >= 80, explained
