"""Migrations: up, down, up again; never half of one; never past what the code knows; equal to the models."""

import ast
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata, render_python_code
from alembic.autogenerate.api import produce_migrations
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from shared import guard
from shared import settings as settings_module
from shared.errors import ConfigurationError
from shared.migrations import run
from shared.migrations.draft import only_of
from shared.schema import VERSION, serves
from tests.conftest import NOW

# Everything a table is: columns, constraints, indexes, identities, partitioning; by name, not by position.
_ANATOMY = text("""
    select c.relname, 'column', a.attname,
           concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                     pg_get_expr(d.adbin, d.adrelid))
      from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
     where c.relnamespace = cast(:schema as regnamespace) and c.relkind in ('r', 'p')
    union all
    select c.relname, 'constraint', k.conname, pg_get_constraintdef(k.oid)
      from pg_constraint k join pg_class c on c.oid = k.conrelid
     where c.relnamespace = cast(:schema as regnamespace) and k.contype <> 'n'
    union all
    select tablename, 'index', indexname, indexdef from pg_indexes where schemaname = :schema
    union all
    select c.relname, 'partitioning', '', pg_get_partkeydef(c.oid)
      from pg_class c where c.relnamespace = cast(:schema as regnamespace) and c.relkind = 'p'
     order by 1, 2, 3""")


def _anatomy(engine: Engine, branch: str) -> list[tuple[str, ...]]:
    schema = "groundskeeper" if branch == "groundskeeper" else "public"
    versions = {b.version_table for b in run.BRANCHES.values()}
    with engine.connect() as connection:
        rows = connection.execute(_ANATOMY, {"schema": schema})
        return [tuple(row) for row in rows if row[0] not in versions]


def _relations(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        found = connection.execute(
            text("""
            select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
            union all
            select nspname from pg_namespace where nspname = 'groundskeeper'""")
        )
        return list(found.scalars())


def test_the_core_expects_the_newest_revision() -> None:
    assert run.head("groundskeeper") == VERSION


@pytest.mark.parametrize("branch", run.BRANCHES)
def test_up_down_and_up_again_leaves_the_same(empty: Engine, branch: str) -> None:
    revisions = run.pending(empty, branch)
    assert run.upgrade(empty, branch) == revisions
    first = _anatomy(empty, branch)
    assert run.downgrade(empty, branch, "base") == revisions[::-1]
    assert _relations(empty) == []
    run.upgrade(empty, branch)
    assert _anatomy(empty, branch) == first


@pytest.mark.parametrize("branch", run.BRANCHES)
def test_models_equal_migrations(migrated: Engine, branch: str) -> None:
    known = run.BRANCHES[branch]
    with migrated.connect() as connection:
        options = {"include_schemas": True, "include_name": only_of(branch), "compare_server_default": True}
        context = MigrationContext.configure(connection, opts={**options, "target_metadata": known.metadata()})
        missing = produce_migrations(context, known.metadata())
        assert not compare_metadata(context, known.metadata()), (
            f"the next revision is missing; `python -m shared.migrations.draft {branch} MESSAGE` writes it:\n"
            + render_python_code(missing.upgrade_ops)
        )


@pytest.mark.parametrize("branch", run.BRANCHES)
def test_migrations_make_every_column_constraint_and_index_the_models_would(empty: Engine, branch: str) -> None:
    with empty.begin() as connection:
        run.make_schema(connection)
        run.BRANCHES[branch].metadata().create_all(connection)
    meant = _anatomy(empty, branch)
    with empty.begin() as connection:
        run.BRANCHES[branch].metadata().drop_all(connection)
    run.upgrade(empty, branch)
    assert _anatomy(empty, branch) == meant


def test_our_branch_makes_nothing_outside_its_schema(empty: Engine) -> None:
    run.upgrade(empty, "groundskeeper")
    assert {name.split(".")[0] for name in _relations(empty)} == {"groundskeeper"}


def test_the_platform_can_be_taken_away_without_touching_ours(migrated: Engine) -> None:
    before = _anatomy(migrated, "groundskeeper")
    run.downgrade(migrated, "platform", "base")
    assert run.current(migrated, "platform") is None
    assert run.current(migrated, "groundskeeper") == VERSION
    assert _anatomy(migrated, "groundskeeper") == before
    assert not [name for name in _relations(migrated) if name.startswith("public.")]


def test_a_second_upgrade_does_nothing(migrated: Engine) -> None:
    for branch in run.BRANCHES:
        assert run.pending(migrated, branch) == []
        assert run.upgrade(migrated, branch) == []


def test_two_upgrades_at_once_take_turns(empty: Engine) -> None:
    revisions = run.pending(empty, "groundskeeper")
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(run.upgrade, empty, "groundskeeper") for _ in range(4)]
    assert sorted(revision for future in futures for revision in future.result()) == revisions
    assert run.current(empty, "groundskeeper") == VERSION


def test_a_failing_revision_leaves_nothing_of_itself(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(text("create table mockup (id int)"))
    with pytest.raises(DBAPIError, match="42P07"):
        run.upgrade(empty, "platform")
    assert run.current(empty, "platform") is None
    assert _relations(empty) == ["public.mockup"]


def test_a_migration_gives_up_on_a_busy_table_instead_of_queueing_its_traffic(
    migrated: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOCK_TIMEOUT", "200ms")
    with migrated.begin() as reader:
        reader.execute(text("select * from listing"))
        started = time.monotonic()
        with pytest.raises(DBAPIError, match="55P03"):
            run.downgrade(migrated, "platform", "base")
    assert time.monotonic() - started < 5
    assert run.current(migrated, "platform") == "0001", "the revision that made the table stands whole"


def test_a_database_ahead_of_the_code_is_left_alone(migrated: Engine) -> None:
    with migrated.begin() as connection:
        connection.execute(text("update groundskeeper.schema_version set version_num = '9999'"))
    with pytest.raises(ConfigurationError, match=r"at revision 9999.*deploy the code"):
        run.upgrade(migrated, "groundskeeper")
    with migrated.connect() as connection, pytest.raises(ConfigurationError, match="9999"):
        guard.check_version(connection)


def test_older_code_works_on_a_newer_schema_that_says_so_and_on_no_other(
    migrated: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "VERSION", "0009")
    with migrated.connect() as connection:
        guard.check_version(connection)
        connection.execute(text(f"comment on table groundskeeper.schema_version is '{serves(VERSION, VERSION)}'"))
        with pytest.raises(ConfigurationError, match="this code needs 0009"):
            guard.check_version(connection)
        connection.execute(text("comment on table groundskeeper.schema_version is null"))
        with pytest.raises(ConfigurationError, match="this code needs 0009"):
            guard.check_version(connection)
    monkeypatch.setattr(guard, "VERSION", "0099")
    with migrated.connect() as connection, pytest.raises(ConfigurationError, match="run `keeper migrate`"):
        guard.check_version(connection)


@pytest.mark.parametrize("branch", run.BRANCHES)
def test_a_revision_that_names_no_oldest_code_only_adds(empty: Engine, branch: str) -> None:
    script = ScriptDirectory.from_config(run.configuration(run.BRANCHES[branch]))
    before: set[tuple[str, ...]] = set()
    for revision in [one.revision for one in script.walk_revisions()][::-1]:
        with run._turn(empty) as connection:
            run.make_schema(connection)
            command.upgrade(run.configuration(run.BRANCHES[branch], connection), revision)
        after = set(_anatomy(empty, branch))
        if not hasattr(script.get_revision(revision).module, "oldest_code"):
            assert before <= after, f"{revision} takes or changes {sorted(before - after)}: name its oldest_code"
            old_tables = {row[0] for row in before}
            wants = [r for r in after - before if r[0] in old_tables and _hinders(r)]
            assert wants == [], f"{revision} asks more of what older code writes: name its oldest_code"
        before = after


def _hinders(row: tuple[str, ...]) -> bool:
    """Whether an addition to a table can make a statement fail that worked before."""
    _, kind, _, what = row
    required = kind == "column" and what.rstrip().endswith(" t")  # not null, and neither identity nor default
    return required or kind == "constraint" or (kind == "index" and "UNIQUE" in what)


@pytest.mark.parametrize("file", sorted(Path(run.__file__).parent.glob("*/v*.py")), ids=lambda f: f.stem)
def test_an_index_on_a_table_that_is_there_is_none_of_a_transaction(file: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    named = [(ast.unparse(call.func), call) for call in calls]
    made = {ast.literal_eval(call.args[0]) for name, call in named if name == "op.create_table"}
    for name, call in named:
        if name == "op.create_index":
            assert ast.literal_eval(call.args[1]) in made, f"name it in `concurrently`: {ast.unparse(call)}"


def test_an_index_is_made_while_its_table_is_written_to_and_anew_where_a_kill_left_it_unfinished(
    migrated: Engine,
) -> None:
    run.downgrade(migrated, "platform", "0003")
    with migrated.begin() as connection:
        connection.exec_driver_sql("create index ix_mockup_image on mockup (title)")
        connection.exec_driver_sql(
            "update pg_index set indisvalid = false where indexrelid = 'ix_mockup_image'::regclass"
        )
    with migrated.begin() as writer:  # holds the lock of a row's writer, and the index is made all the same
        writer.exec_driver_sql("lock table idea in row exclusive mode")
        assert run.upgrade(migrated, "platform") == ["0004"]
    with migrated.begin() as connection:
        made = connection.exec_driver_sql(
            "select pg_get_indexdef(indexrelid), indisvalid from pg_index"
            " where indexrelid = 'ix_mockup_image'::regclass"
        ).one()
    assert made.indisvalid
    assert made.pg_get_indexdef.endswith("(image)")


def test_unknown_branches_and_targets_are_refused_by_name(migrated: Engine) -> None:
    with pytest.raises(ConfigurationError, match="'plattform'"):
        run.upgrade(migrated, "plattform")
    with pytest.raises(ConfigurationError, match="'0815' does not lie behind"):
        run.downgrade(migrated, "platform", "0815")


def test_the_stamp_is_written_once_and_never_over_another(migrated: Engine) -> None:
    run.stamp_environment(migrated, "one", False, NOW)
    run.stamp_environment(migrated, "one", False, NOW)
    for project, livemode in (("two", False), ("one", True)):
        with pytest.raises(ConfigurationError, match="stamped for project 'one'"):
            run.stamp_environment(migrated, project, livemode, NOW)
    settings = settings_module.read({"GOOGLE_CLOUD_PROJECT": "one"})
    with migrated.connect() as connection:
        guard.check_stamp(connection, settings)


def test_a_role_without_rights_to_create_schemas_can_upgrade_a_prepared_database(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(text("drop role if exists schema_owner"))
        connection.execute(text("create role schema_owner login password 'a test'"))
        connection.execute(text("create schema groundskeeper authorization schema_owner"))
    ours = empty.url.set(username="schema_owner", password="a test")
    engine = create_engine(ours)
    assert run.upgrade(engine, "groundskeeper")
    engine.dispose()


def test_waiting_for_a_turn_does_not_deadlock_with_the_one_at_work(migrated: Engine) -> None:
    with migrated.begin() as connection:
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": run._TURN_KEY})
        waiting = threading.Thread(target=run.stamp_environment, args=(migrated, "one", False, NOW))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()
