"""Rows of any table: every kind of timestamp, any order on disk, with an index or without, in use or pointed at."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared.database import Database
from shared.errors import Outcome
from tests.conftest import NOW
from tests.retention.conftest import ROLE, Execute, Rows, Sweep

LIMIT = NOW - timedelta(days=30)  # 2026-05-16 12:00 UTC
INSTANT = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("kind", "options", "gone", "kept"),
    [
        (
            "timestamptz",
            {},
            ["'2026-05-16 11:59:59.999999+00'", "'-infinity'"],
            ["'2026-05-16 12:00+00'", "'infinity'", "null"],
        ),
        ("timestamp", {"assume_tz": "UTC"}, ["'2026-05-16 11:59:59.999999'"], ["'2026-05-16 12:00'"]),
        ("timestamp", {"assume_tz": "Europe/Berlin"}, ["'2026-05-16 13:59:59.999999'"], ["'2026-05-16 14:00'"]),
        ("date", {}, ["'2026-05-15'"], ["'2026-05-16'"]),
        ("bigint", {"unit": "s"}, ["1778932799"], ["1778932800"]),
        ("bigint", {"unit": "ms"}, ["1778932799999"], ["1778932800000"]),
        ("numeric", {"unit": "s"}, ["1778932799.999"], ["1778932800"]),
        ("double precision", {"unit": "s"}, ["1778932799.5"], ["1778932800"]),
    ],
)
@pytest.mark.parametrize("indexed", [True, False])
def test_each_kind_of_timestamp_keeps_what_is_exactly_at_the_limit(
    table: Callable[..., None],
    sweep: Sweep,
    rows: Rows,
    kind: str,
    options: dict[str, str],
    gone: list[str],
    kept: list[str],
    indexed: bool,
    execute: Execute,
) -> None:
    table("log", f"at {kind})", *(f"insert into log values ({value})" for value in [*gone, *kept]))
    if indexed:
        execute("create index on log (at)")
    result = sweep({"table": "log", **options})
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["log.deleted"] == len(gone)
    assert len(rows("select 1 from log")) == len(kept)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("timestamp", "assume_tz"),
        ("bigint", "unit"),
        ("text", "expected timestamptz"),
        ("time", "expected timestamptz"),
    ],
)
def test_a_timestamp_that_could_mean_several_moments_is_refused_in_words(
    table: Callable[..., None], sweep: Sweep, kind: str, word: str
) -> None:
    table("log", f"at {kind})")
    result = sweep({"table": "log"})
    assert result.outcome is Outcome.PARTIAL
    assert word in (result.error or "")


@pytest.mark.parametrize("index", ["create index on log (at)", "create index on log (at desc) where n >= 0", ""])
def test_many_batches_in_any_order_delete_as_one_would(
    table: Callable[..., None], sweep: Sweep, rows: Rows, index: str
) -> None:
    table(
        "log",
        "n int primary key, at timestamptz not null)",
        "insert into log select n, timestamptz '2026-06-15 12:00+00' - n * interval '1 hour'"
        " from generate_series(0, 2999) n order by hashint4(n)",
        *([index] if index else []),
    )
    result = sweep({"table": "log", "where": "n >= 0 and n % 7 <> 0"})
    expected = [n for n in range(3000) if n > 720 and n % 7]
    assert result.counts["log.deleted"] == len(expected), result.error
    assert {r.n for r in rows("select n from log")} == set(range(3000)) - set(expected)


def test_more_rows_of_one_moment_than_a_batch_holds_all_go(
    table: Callable[..., None], sweep: Sweep, rows: Rows
) -> None:
    table(
        "log",
        "n int primary key, at timestamptz)",
        "create index on log (at)",
        "insert into log select n, timestamptz '2026-01-01 00:00+00' + (n / 1000) * interval '1 day'"
        " from generate_series(0, 2499) n",
        "insert into log values (9999, '2026-06-01')",
    )
    assert sweep({"table": "log"}, pace={"batch_rows": 300}).counts["log.deleted"] == 2500
    assert [r.n for r in rows("select n from log")] == [9999]


@pytest.mark.parametrize("index", ["create index on log (at)", ""])
def test_rows_others_are_at_stay_and_are_counted(
    table: Callable[..., None], sweep: Sweep, rows: Rows, db: Database, index: str
) -> None:
    table(
        "log",
        "n int primary key, at timestamptz)",
        *([index] if index else []),
        "insert into log select n, timestamptz '2026-01-01 00:00+00' from generate_series(1, 50) n",
    )
    with db.transaction() as connection:
        connection.execute(text("select 1 from log where n in (7, 8) for update"))
        result = sweep({"table": "log"})
    assert (result.counts["log.deleted"], result.counts["log.in_use"]) == (48, 2), result.error
    assert sweep({"table": "log"}).counts["log.deleted"] == 2


def test_a_table_partitioned_by_something_else_is_emptied_in_every_partition(
    table: Callable[..., None], sweep: Sweep, rows: Rows, execute: Execute
) -> None:
    table("log", "n int, at timestamptz) partition by hash (n)")
    for part in range(3):
        execute(
            f"create table log_{part} partition of log for values with (modulus 3, remainder {part})",
            f"grant select, update, delete on log_{part} to {ROLE}",
        )
    execute(
        "insert into log select n, timestamptz '2026-06-15 12:00+00' - n * interval '1 day'"
        " from generate_series(1, 60) n"
    )
    assert sweep({"table": "log"}).counts["log.deleted"] == 30
    assert rows("select max(n) from log")[0][0] == 30


def test_unusual_names_are_quoted(execute: Execute, sweep: Sweep, rows: Rows) -> None:
    execute(
        'create schema "My Shop"',
        f'grant usage on schema "My Shop" to {ROLE}',
        'create table "My Shop"."Order: Log" ("When" timestamptz, "Who%" text)',
        f'grant select, update, delete on "My Shop"."Order: Log" to {ROLE}',
        """insert into "My Shop"."Order\\: Log" values ('2026-01-01', 'a%b'), ('2026-01-01', 'c:d'), (null, '')""",
    )
    result = sweep(
        {
            "table": "My Shop.Order: Log",
            "name": "orders",
            "timestamp": "When",
            "where": """"Who%" like 'a%' or "Who%"::text = 'c:d'""",
        }
    )
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["orders.deleted"] == 2


# --- what is wrong is said in words, and the other rules run

WRONG: list[tuple[list[str], dict[str, Any], str]] = [
    ([], {"table": "nowhere"}, "does not exist"),
    (["create view log as select timestamptz '2026-01-01' as at"], {"table": "log"}, "a view"),
    (["create table log (at timestamptz)"], {"table": "log"}, "no right"),
    (["create table log (happened timestamptz)", f"grant all on log to {ROLE}"], {"table": "log"}, "no column at"),
    (
        ["create table log (at timestamptz)", f"grant all on log to {ROLE}"],
        {"table": "log", "where": "status = 'old'"},
        'column "status" does not exist',
    ),
    (
        [
            "create table log (at timestamptz)",
            f"grant all on log to {ROLE}",
            "alter table log enable row level security",
            "create policy none on log using (false)",
            "insert into log values ('2026-01-01')",
        ],
        {"table": "log"},
        "row-level security",
    ),
    (
        ["create table log (at timestamptz)", f"grant all on log to {ROLE}", "create publication p for table log"],
        {"table": "log"},
        "replica identity",
    ),
    (
        ["create table log (at timestamptz)", f"grant all on log to {ROLE}"],
        {"table": "log", "archive": {"keep_days": 5}},
        "no primary key",
    ),
]


@pytest.mark.parametrize(("made", "rule", "words"), WRONG, ids=[w[2] for w in WRONG])
def test_a_rule_that_cannot_be_kept_says_why_and_the_others_are(
    table: Callable[..., None],
    execute: Execute,
    sweep: Sweep,
    rows: Rows,
    made: list[str],
    rule: dict[str, Any],
    words: str,
) -> None:
    execute(*made)
    table("fine", "at timestamptz)", "insert into fine values ('2026-01-01'), ('2026-06-14')")
    planned = sweep(rule, {"table": "fine"}, planning=True)
    assert planned.outcome is Outcome.PLANNED, planned.error
    assert planned.plan is not None
    assert any(words in item["why"] for item in planned.plan["items"]), planned.plan["items"]
    result = sweep(rule, {"table": "fine"})
    assert result.outcome is Outcome.PARTIAL
    assert words in (result.error or ""), result.error
    assert result.counts["fine.deleted"] == 1


def test_a_condition_that_moves_or_hides_a_second_statement_is_refused(sweep: Sweep) -> None:
    for where in ("at < now()", "true) or (true", "true; drop table x", "true -- x", "a = 'x"):
        result = sweep({"table": "audit_log", "timestamp": "created_at", "where": where})
        assert result.outcome is Outcome.REFUSED, where


# --- foreign keys


def _family(table: Callable[..., None], action: str, *, index: bool = True) -> None:
    table(
        "parent",
        "id int primary key, at timestamptz)",
        "create index on parent (at)",
        "insert into parent select n, timestamptz '2026-06-15 12:00+00' - n * interval '1 day'"
        " from generate_series(1, 60) n",
    )
    table(
        "child",
        f"id int, parent_id int references parent {action})",
        *(["create index on child (parent_id)"] if index else []),
        "insert into child select n, n from generate_series(41, 45) n",
    )


@pytest.mark.parametrize("action", ["", "on delete restrict", "on delete cascade"])
def test_references_nobody_decided_about_keep_the_whole_rule_from_acting(
    table: Callable[..., None], sweep: Sweep, rows: Rows, action: str
) -> None:
    _family(table, action)
    result = sweep({"table": "parent"})
    assert result.outcome is Outcome.PARTIAL
    assert "5 rows of public.child" in (result.error or "")
    assert len(rows("select 1 from parent")) == 60
    assert len(rows("select 1 from child")) == 5


@pytest.mark.parametrize("action", ["", "on delete cascade"])
def test_children_keep_leaves_what_is_pointed_at(
    table: Callable[..., None], sweep: Sweep, rows: Rows, action: str
) -> None:
    _family(table, action)
    result = sweep({"table": "parent", "children": "keep"})
    assert result.counts["parent.deleted"] == 25, result.error
    assert [r.id for r in rows("select id from parent where id > 30 order by 1")] == [41, 42, 43, 44, 45]
    assert len(rows("select 1 from child")) == 5


@pytest.mark.parametrize("action", ["", "on delete cascade"])
def test_children_delete_takes_them_first_and_counts_them(
    table: Callable[..., None], sweep: Sweep, rows: Rows, action: str
) -> None:
    _family(table, action)
    planned = sweep({"table": "parent", "children": "delete"}, planning=True)
    assert planned.plan is not None
    assert {i["what"]: i["count"] for i in planned.plan["items"]} == {"parent": 30, "parent.public.child": 5}
    result = sweep({"table": "parent", "children": "delete"})
    assert result.counts == {"parent.deleted": 30, "parent.public.child.deleted": 5}, result.error


def test_references_that_are_emptied_are_told_in_the_plan(table: Callable[..., None], sweep: Sweep, rows: Rows) -> None:
    _family(table, "on delete set null")
    planned = sweep({"table": "parent"}, planning=True)
    assert planned.plan is not None
    assert any("5 rows of public.child" in note for note in planned.plan["notes"])
    assert sweep({"table": "parent"}).counts["parent.deleted"] == 30
    assert len(rows("select 1 from child where parent_id is null")) == 5


def test_a_large_child_without_an_index_is_refused_since_each_row_would_read_it_all(
    table: Callable[..., None], sweep: Sweep, execute: Execute
) -> None:
    _family(table, "", index=False)
    execute("insert into child select n, 1 from generate_series(1, 20000) n", "analyze child")
    result = sweep({"table": "parent", "children": "keep"})
    assert "without an index" in (result.error or "")
    assert "create index concurrently on public.child (parent_id)" in (result.error or "")


# --- duplicates


def test_of_a_hundred_copies_one_stays_and_keys_with_nulls_are_left_alone(
    table: Callable[..., None], sweep: Sweep, rows: Rows
) -> None:
    table(
        "seen",
        "id int primary key, kind text, name text, trust int)",
        "create index on seen (kind, name)",
        "insert into seen select n, 'a', 'k' || n % 40, n % 100 from generate_series(1, 4000) n",
        "insert into seen select 5000 + n, null, 'x', 1 from generate_series(1, 10) n",
    )
    policy = {"name": "copies", "table": "seen", "key": ["kind", "name"], "keep": "trust desc, id"}
    assert sweep(duplicates=(policy,), pace={"batch_rows": 70}).counts["copies.deleted"] == 3960
    best = rows("select name, count(*), max(trust) as trust, min(id) as id from seen where kind = 'a' group by name")
    assert all(r.count == 1 for r in best)
    assert len(best) == 40
    assert len(rows("select 1 from seen where kind is null")) == 10
    assert sweep(duplicates=(policy,)).counts["copies.deleted"] == 0


def test_duplicates_without_an_index_of_their_key_are_refused(table: Callable[..., None], sweep: Sweep) -> None:
    table("seen", "id int primary key, name text)")
    result = sweep(duplicates=({"name": "copies", "table": "seen", "key": ["name"], "keep": "id"},))
    assert "no index leads with name" in (result.error or "")
