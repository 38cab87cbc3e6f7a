"""Grants: each task's role can do what its task.yaml and the wrapper need, and is refused the rest."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from shared import holds, ledger, plans
from shared import settings as settings_module
from shared.adoption import AdoptedTable, Adoption
from shared.errors import Outcome
from shared.guard import check_version
from shared.manifest import Http, Run, Task, Topic, load_all
from shared.migrations.grants import grants, owner_role, role_naming
from shared.outbox import publish
from shared.plans import Plan, Proposal
from shared.platform.partitions import create_ahead
from shared.redaction import sqlstate
from tests.conftest import NOW

TASK = Task(
    name="night_watch",
    folder=Path("functions/night_watch"),
    summary="A task of a test.",
    owner="tests",
    triggers=(),
    run=Run("function", 128, 1, 60),
    uses=(),
    requires=(),
    must_succeed_within_s=None,
    tables={"read": {"idea": ()}, "write": {"signal": ()}, "own": {}},
    params={},
)
NO_RIGHT, OTHER_OWNER = "42501", "42501"

As = Callable[[str], "_Role"]


class _Role:
    """Statements as one role, each in a transaction of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def does(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def is_refused(self, statement: str) -> None:
        with pytest.raises(DBAPIError) as refused:
            self.does(statement)
        assert sqlstate(refused.value) == NO_RIGHT, statement


def apply(engine: Engine, *tasks: Task, adoption: Adoption | None = None) -> None:
    with engine.begin() as connection:
        for statement in grants({t.name: t for t in tasks}, role_of=lambda t: t.slug, adoption=adoption):
            connection.execute(text(statement))


@pytest.fixture
def role(migrated: Engine) -> Iterator[As]:
    engines = []

    def log_in(slug: str = TASK.slug) -> _Role:
        with migrated.begin() as connection:
            connection.execute(text(f"""alter role "{slug}" login password 'a test'"""))
        engine = create_engine(migrated.url.set(username=slug, password="a test"), poolclass=NullPool)
        engines.append(engine)
        return _Role(engine)

    yield log_in
    for engine in engines:
        engine.dispose()
    with migrated.begin() as connection:
        made = text("select quote_ident(rolname) from pg_roles where rolname ~ '^(groundskeeper|night|other|app)'")
        if roles := ", ".join(connection.execute(made).scalars()):
            for statement in ("reassign owned by {} to postgres", "drop owned by {}", "drop role {}"):
                connection.execute(text(statement.format(roles)))


def tables(**access: tuple[str, ...]) -> dict[str, dict[str, tuple[str, ...]]]:
    return {kind: dict.fromkeys(access.get(kind, ()), ()) for kind in ("read", "write", "own")}


# --- the task's own tables --------------------------------------------------------------------------------------


def test_read_tables_are_read_and_not_written(migrated: Engine, role: As) -> None:
    apply(migrated, TASK)
    task = role(TASK.slug)
    task.does("select * from idea")
    for statement in (
        "insert into idea (title, created_at) values ('x', 'epoch')",
        "delete from idea",
        "truncate idea",
    ):
        task.is_refused(statement)


def test_written_tables_are_written_and_not_truncated_or_altered(migrated: Engine, role: As) -> None:
    apply(migrated, TASK)
    task = role(TASK.slug)
    task.does(
        "insert into signal (source, created_at) values ('x', 'epoch')",
        "update signal set source = 'y'",
        "select nextval(pg_get_serial_sequence('signal', 'id'))",
        "delete from signal",
    )
    for statement in ("truncate signal", "alter table signal add column x int", "drop table signal"):
        task.is_refused(statement)


def test_a_serial_keys_sequence_comes_with_the_table(migrated: Engine, role: As) -> None:
    with migrated.begin() as connection:
        connection.execute(text("create schema app"))
        connection.execute(text('create table app."Old Rows" (id serial primary key, at timestamp)'))
    adoption = Adoption({"signal": AdoptedTable("app.Old Rows", {})})
    apply(migrated, replace(TASK, uses=("retention",)), adoption=adoption)
    role(TASK.slug).does('insert into app."Old Rows" (at) values (null)')
    role(TASK.slug).is_refused("delete from signal")


def test_a_task_that_follows_no_mapping_has_its_rights_on_the_view_it_reads(migrated: Engine, role: As) -> None:
    with migrated.begin() as connection:
        connection.execute(text("create schema app"))
        connection.execute(text("alter table signal rename to news"))
        connection.execute(text("alter table news set schema app"))
        connection.execute(text("create view signal as select * from app.news"))
    apply(migrated, TASK, adoption=Adoption({"signal": AdoptedTable("app.news", {})}))
    role(TASK.slug).does("delete from signal")
    role(TASK.slug).is_refused("delete from app.news")


def test_tables_it_does_not_name_stay_closed(migrated: Engine, role: As) -> None:
    apply(migrated, TASK)
    task = role(TASK.slug)
    for table in ("user_profile", "endpoints", "integration_credential", "data_encryption_key"):
        task.is_refused(f"select * from {table}")


def test_what_is_no_longer_declared_is_taken_back(migrated: Engine, role: As) -> None:
    wide = replace(TASK, tables=tables(read=("idea",), write=("signal",), own=("endpoints",)), starts=("other_task",))
    apply(migrated, wide)
    task = role(TASK.slug)
    with migrated.begin() as connection:
        connection.execute(text('grant select (email) on user_profile to "night-watch"'))
    task.does("select * from endpoints", "select * from signal", "select email from user_profile")
    apply(migrated, replace(TASK, tables=tables(read=("idea",))))
    task.does("select * from idea")
    for statement in (
        "select * from endpoints",
        "select * from signal",
        "select email from user_profile",
        "select nextval('signal_id_seq')",
        "insert into groundskeeper.run_request (request_id, task, actor, why, requested_at)"
        " values (gen_random_uuid(), 'x', 'x', 'x', 'epoch')",
    ):
        task.is_refused(statement)


def test_applying_again_changes_nothing(migrated: Engine, role: As) -> None:
    full = replace(TASK, tables=tables(read=("idea",), write=("signal",), own=("endpoints",)))

    def state() -> list[object]:
        with migrated.connect() as connection:
            return [
                *connection.execute(text("select oid, relowner, cast(relacl as text) from pg_class order by oid")),
                *connection.execute(
                    text("select attrelid, attnum, cast(attacl as text) from pg_attribute order by 1, 2")
                ),
                *connection.execute(text("select oid, cast(nspacl as text) from pg_namespace order by 1")),
                *connection.execute(text("select roleid, member, admin_option from pg_auth_members order by 1, 2")),
            ]

    apply(migrated, full)
    first = state()
    apply(migrated, full)
    assert state() == first
    role(TASK.slug)


def test_a_table_that_is_not_there_is_passed_over(migrated: Engine, role: As) -> None:
    apply(migrated, replace(TASK, tables=tables(read=("idea", "nowhere"), write=("app.none",), own=("gone",))))
    role(TASK.slug).does("select * from idea")


def test_every_task_of_the_house_can_be_granted_on_a_database_without_the_platform(empty: Engine) -> None:
    from shared.migrations import run

    run.upgrade(empty, "groundskeeper")
    apply(empty, *load_all().values())
    apply(empty, *load_all().values())


# --- owning ------------------------------------------------------------------------------------------------------


def test_an_owned_table_can_be_detached_vacuumed_and_dropped_and_no_other(migrated: Engine, role: As) -> None:
    with migrated.begin() as connection:
        create_ahead(connection, NOW, 1)
    apply(migrated, replace(TASK, tables=tables(own=("endpoints",))))
    task = role(TASK.slug)
    task.does("alter table endpoints detach partition endpoints_20260615", "drop table endpoints_20260615")
    with task.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("alter table endpoints detach partition endpoints_20260616 concurrently"))
        connection.execute(text("vacuum (analyze) endpoints_20260616"))
        analyzed = text("select last_vacuum is not null from pg_stat_all_tables where relname = 'endpoints_20260616'")
        assert connection.execute(analyzed).scalar_one()
    for statement in ("drop table audit_log", "select * from audit_log", "alter table user_profile add column x int"):
        task.is_refused(statement)


def test_the_owner_before_keeps_all_it_could(migrated: Engine, role: As) -> None:
    with migrated.begin() as connection:
        connection.execute(text("create role app login"))
        connection.execute(text("grant create on schema public to app"))
        connection.execute(text("alter table signal owner to app"))
    apply(migrated, replace(TASK, tables=tables(own=("signal",))))
    app = role("app")
    app.does(
        "insert into signal (source, created_at) values ('x', 'epoch')",
        "alter table signal add column note text",
        "create index on signal (note)",
        "truncate signal",
    )
    with migrated.connect() as connection:
        owner = connection.execute(text("select pg_get_userbyid(relowner) from pg_class where relname = 'signal'"))
        assert owner.scalar_one() == owner_role("signal")
    role(TASK.slug).is_refused("create table leftover (id int)")


def test_whoever_owns_the_partitioned_table_makes_partitions_that_open_to_its_readers(
    migrated: Engine, role: As
) -> None:
    other = replace(TASK, name="other_watch", tables=tables(read=("endpoints",)))
    apply(migrated, replace(TASK, tables=tables(own=("endpoints",))), other)
    owner, reader = role(TASK.slug), role("other-watch")
    with owner.engine.begin() as connection:
        assert create_ahead(connection, NOW, 2) == ["endpoints_20260615", "endpoints_20260616", "endpoints_20260617"]
    reader.does("select * from endpoints", "select * from endpoints_20260616")
    reader.is_refused("delete from endpoints_20260616")
    owner.does("drop table endpoints_20260616")
    with migrated.begin() as connection:
        create_ahead(connection, NOW, 3)
    owner.does("drop table endpoints_20260618")


def test_partitions_that_exist_are_granted_with_their_parent(migrated: Engine, role: As) -> None:
    with migrated.begin() as connection:
        create_ahead(connection, NOW, 0)
    apply(migrated, replace(TASK, tables=tables(write=("endpoints",))))
    role(TASK.slug).does("delete from endpoints", "delete from endpoints_20260615")


def test_long_names_of_owner_roles_stay_apart() -> None:
    one, two = (owner_role(f"a_schema.{'very_' * 10}long_{n}") for n in (1, 2))
    assert one != two
    assert len(one.encode()) <= 63
    assert owner_role("public.endpoints") == owner_role("endpoints") == "groundskeeper_own_endpoints"


# --- PostgreSQL's own roles ---------------------------------------------------------------------------------------


def test_database_roles_are_given_and_taken_back(migrated: Engine, role: As) -> None:
    def given() -> set[str]:
        with migrated.begin() as connection:
            query = "select o.rolname from pg_auth_members m join pg_roles o on o.oid = m.roleid where m.member = :role"
            member = connection.execute(text("select oid from pg_roles where rolname = 'night-watch'")).scalar_one()
            return set(connection.execute(text(query), {"role": member}).scalars())

    apply(migrated, replace(TASK, database_roles=("pg_read_all_stats", "pg_stat_scan_tables")))
    assert given() == {"pg_read_all_stats", "pg_stat_scan_tables"}
    apply(migrated, TASK)
    assert given() == set()


def test_who_maintains_can_vacuum_the_tables_of_a_role_that_cannot_log_in(migrated: Engine, role: As) -> None:
    with migrated.begin() as connection:
        connection.execute(text("create role app_owner nologin"))
        connection.execute(text("create table app_rows as select generate_series(1, 10) as n"))
        connection.execute(text("alter table app_rows owner to app_owner"))
    apply(migrated, replace(TASK, tables=tables(), database_roles=("pg_maintain",)))
    task = role(TASK.slug)
    with task.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum app_rows"))
    query = "select vacuum_count from pg_stat_all_tables where relname = 'app_rows'"
    with migrated.begin() as connection:
        assert connection.execute(text(query)).scalar_one() == 1
    apply(migrated, TASK)
    with task.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum app_rows"))  # a warning, and nothing happens
    with migrated.begin() as connection:
        assert connection.execute(text(query)).scalar_one() == 1


# --- the wrapper's own tables ------------------------------------------------------------------------------------


@contextmanager
def _as(role: _Role) -> Iterator[Connection]:
    with role.engine.begin() as connection:
        yield connection


def _key(trigger: str) -> ledger.Key:
    return ledger.Key(
        task=TASK.name,
        run_key="k",
        shard=0,
        trigger=trigger,
        scheduled_for=None,
        actor="tests",
        why=None,
        scope=TASK.name,
        code_version="0",
    )


def test_the_wrapper_can_keep_its_ledger_in_any_tasks_name(migrated: Engine, role: As) -> None:
    apply(migrated, TASK)
    task = role(TASK.slug)
    with _as(task) as connection:
        check_version(connection)
        opened = ledger.open_run(connection, _key("hand"), now=NOW)
        assert isinstance(opened, ledger.Opened)
    with _as(task) as connection:
        ledger.check_fence(connection, opened.fence)
        assert ledger.heartbeat(connection, opened.fence, done=1, total=2)
        ledger.keep_counts(connection, opened.run_id, {"n": 1})
        assert holds.in_force(connection, NOW) == []
        ledger.finish(
            connection,
            opened,
            outcome=Outcome.OK,
            counts={"n": 1},
            plan_hash=None,
            error_class=None,
            error=None,
            now=NOW,
        )


def test_a_task_asks_for_approval_spends_it_and_closes_what_expired(migrated: Engine, role: As) -> None:
    apply(migrated, TASK)
    task = role(TASK.slug)
    plan = Proposal(TASK.name, "0", {}, {}, NOW, {}, Plan((), {}))
    with migrated.begin() as connection:
        late = NOW + plans.APPROVAL_LIFETIME
        plans.ask(connection, task=TASK.name, plan_hash=plan.hash(), by="tests", reason="x", now=NOW)
    with _as(task) as connection:
        run_id = ledger.uuid.uuid4()
        plan_hash = plans.store(connection, plan, run_id=run_id, now=late)
        approval = plans.ask(connection, task=TASK.name, plan_hash=plan_hash, by="tests", reason="x", now=late)
    with migrated.begin() as connection:
        plans.decide(connection, approval, approve=True, by="alma", why="x", now=late, operators=())
    with _as(task) as connection:
        assert plans.use(connection, plan_hash=plan_hash, run_id=run_id, now=late + timedelta(hours=1))


@pytest.mark.parametrize(
    "statement",
    [
        "update groundskeeper.approval set decision = 'approved', decided_by = 'alma', decided_at = 'epoch'",
        "insert into groundskeeper.approval (approval_id, task, plan_hash, requested_by, reason, requested_at,"
        " expires_at, decision) values (gen_random_uuid(), 'x', 'x', 'x', 'x', 'epoch', 'epoch', 'approved')",
        "update groundskeeper.plan set ceiling = '{}'",
        "delete from groundskeeper.legal_hold",
        "update groundskeeper.legal_hold set released_at = 'epoch'",
        "insert into groundskeeper.legal_hold (hold_id, reason, placed_by, placed_at)"
        " values (gen_random_uuid(), 'x', 'x', 'epoch')",
        "delete from groundskeeper.pause",
        "select * from groundskeeper.operator_audit",
        "update groundskeeper.operator_audit set actor = 'x'",
        "delete from groundskeeper.operator_audit",
        "update groundskeeper.environment set livemode = true",
        "update groundskeeper.schema_version set version_num = '0'",
        "insert into groundskeeper.verified_backup values ('x', 'epoch', 'epoch', 1)",
        "delete from groundskeeper.task_run",
        "update groundskeeper.run_request set break_glass = true",
        "insert into groundskeeper.run_request (request_id, task, actor, why, requested_at)"
        " values (gen_random_uuid(), 'x', 'x', 'x', 'epoch')",
        "insert into groundskeeper.outbox (id, topic, payload, created_at)"
        " values (gen_random_uuid(), 'x', '{}', 'epoch')",
        "select * from groundskeeper.outbox",
        "select * from groundskeeper.archive_manifest",
        "create table groundskeeper.mine (id int)",
        "create table public.mine (id int)",
    ],
    ids=lambda statement: " ".join(statement.split()[:4]),
)
def test_a_plain_task_may_not(migrated: Engine, role: As, statement: str) -> None:
    apply(migrated, TASK)
    role(TASK.slug).is_refused(statement)


def test_what_a_task_declares_beyond_opens_what_it_takes(migrated: Engine, role: As) -> None:
    wide = replace(
        TASK,
        starts=("db_cleanup",),
        publishes=("incident-events",),
        destructive=True,
        triggers=(Topic("app-events"), Http("/x", ("POST",), "service")),
        tables=tables(write=("groundskeeper.legal_hold", "groundskeeper.approval")),
    )
    apply(migrated, wide)
    with _as(role(TASK.slug)) as connection:
        plans.request_run(connection, task="db_cleanup", actor=TASK.name, why="x", now=NOW)
        publish(connection, topic="incident-events", kind="x", data={}, now=NOW)
        holds.add(connection, reason="restored", by=TASK.name, now=NOW, table="signal")
        connection.execute(text("select * from groundskeeper.archive_manifest"))
        held = ledger.open_run(connection, _key("topic"), now=NOW)
        assert isinstance(held, ledger.Opened)
        other = ledger.open_run(connection, _key("topic")._replace(run_key="k2"), now=NOW)
        assert isinstance(other, ledger.Held)
        ledger.give_way(connection, other, message=True, now=NOW)


# --- the roles themselves ------------------------------------------------------------------------------------------


def test_a_role_of_the_same_name_that_is_somebody_elses_is_left_alone(migrated: Engine, role: As) -> None:
    with migrated.begin() as connection:
        connection.execute(text('create role "night-watch" login'))
        connection.execute(text('grant select on user_profile to "night-watch"'))
    with pytest.raises(DBAPIError, match="night-watch exists and is not a task's"):
        apply(migrated, TASK)
    role(TASK.slug).does("select * from user_profile")


def test_a_missing_iam_user_is_said_and_never_made(migrated: Engine) -> None:
    cloud = settings_module.read({"DATABASE_URL": "postgresql://x@db/x?iam=1", "GOOGLE_CLOUD_PROJECT": "example"})
    statements = grants({TASK.name: TASK}, role_of=role_naming(cloud))
    with pytest.raises(DBAPIError, match=r"night-watch@example\.iam does not exist"), migrated.begin() as connection:
        connection.execute(text(statements[0]))


def test_an_iam_user_is_granted_under_its_full_name(migrated: Engine, role: As) -> None:
    name = "night-watch@example.iam"
    with migrated.begin() as connection:
        connection.execute(text(f'create role "{name}"'))
        for statement in grants({TASK.name: TASK}, role_of=lambda _: name):
            connection.execute(text(statement))
    role(name).does("select * from idea")


def test_roles_are_called_by_slug_on_a_laptop() -> None:
    local = settings_module.read({"DATABASE_URL": "postgresql://x@localhost/x"})
    assert role_naming(local)(TASK) == "night-watch"


def test_an_administrator_who_is_no_superuser_can_grant(migrated: Engine, role: As) -> None:
    """As on Cloud SQL: the role owns the database's tables and may create roles, and is no superuser."""
    with migrated.begin() as connection:
        connection.execute(text("create role app_admin login createrole"))
        connection.execute(text("grant create on schema public to app_admin with grant option"))
        connection.execute(text("grant usage on schema public to app_admin with grant option"))
        connection.execute(text("alter schema groundskeeper owner to app_admin"))
        for schema, name in connection.execute(
            text("select schemaname, tablename from pg_tables where schemaname in ('public', 'groundskeeper')")
        ).all():
            connection.execute(text(f"alter table {schema}.{name} owner to app_admin"))
    admin = role("app_admin").engine
    both = replace(TASK, tables=tables(read=("idea",), write=("signal",), own=("endpoints", "audit_log")))
    apply(admin, both)
    apply(admin, both)
    with admin.begin() as connection:
        create_ahead(connection, NOW, 1)
    role(TASK.slug).does("drop table endpoints_20260615", "truncate audit_log", "select * from idea")
    apply(admin, TASK)
    role(TASK.slug).is_refused("select * from audit_log")
