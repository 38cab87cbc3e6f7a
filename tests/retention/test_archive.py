"""Archive, delete, restore: the same rows to the last sign, or the table left as it was."""

import json
import os
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared import holds, objects
from shared.database import Database
from shared.errors import Outcome, Refused
from shared.retention.restore import Restored, restore
from shared.settings import Settings
from tests.conftest import NOW, ManualClock
from tests.retention.conftest import Execute, Rows, Sweep

RULE = {"table": "log", "archive": {"keep_days": 90}}
Bring = Callable[[uuid.UUID | None], Restored]

EVERY_TYPE = """
    create type mood as enum ('fine', 'not so');
    create type pair as (a int, b text);
    create domain short as varchar(5);
    create table log (
        id bigint generated always as identity primary key, at timestamptz not null,
        small smallint, whole int, large bigint, exact numeric, money4 numeric(12, 4), approx real, exacter float8,
        truth bool, words text, few varchar(20), fixed char(6), letter "char", label name, raw bytea,
        day date, hour time, zoned timetz, naive timestamp, span interval, ident uuid, document json, binary_document
        jsonb, address inet, network cidr, card macaddr, bits bit(3), many varbit, numbers int[], texts text[][],
        range int4range, ranges nummultirange, period tstzrange, point point, box box, feeling mood, both_of pair,
        abbreviated short, search tsvector, query tsquery, object oid, price money, page pg_lsn,
        doubled bigint generated always as (large / 2) stored)"""

# ruff: noqa: E501 - one row a value list: cutting them hides what belongs together
VALUES = [
    "'2026-01-01 00:00:00.000001+00', -32768, -2147483648, -9223372036854775808, 'NaN', 0.1000, 'NaN', '-Infinity',"
    " true, '', 'ä\U0001f600', 'ab', 'x', 'n', '\\x00ff0a', '-infinity', '23:59:59.999999', '12:00+05:30', 'infinity',"
    " '-1 year 2 mons -3 days 04:05:06.000007', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\": [1, null]}', '{\"b\":"
    " 1.50}', '192.168.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', B'101', B'1', '{1,null,3}', '{{a,\"b,c\"},{\"\","
    "NULL}}', '[1,5)', '{[1,2),[3,4)}', '[2026-01-01 00:00+00,)', '(1.5,-2)', '(1,1),(0,0)', 'not so', '(1,\"x \"\"y\")',"
    " 'abc', 'a:1 b:2', 'a & b', 4294967295, '$1,234.56', '16/B374D848'",
    "'2026-01-02 00:00:00+00', 32767, 2147483, 9223372036854775807, 12345678901234567890.123456789, -1.5, 0.1,"
    " 0.30000000000000004, false, E'a\\nb\\r\\n\"c\",\\t\\\\.', E'\\\\N', '', '', ' ', '', '4713-01-01 BC', '00:00', '00:00+00',"
    " '0044-03-15 BC', 'P0D', gen_random_uuid(), 'null', '{}', '::1', '::/0', '00:00:00:00:00:00', B'000', B'', '{}', '{}',"
    " 'empty', '{}', 'empty', '(0,0)', '(0,0),(0,0)', 'fine', '(,)', '', '', '', 0, '0', '0/0'",
    "'2026-01-03 00:00:00+00'" + ", null" * 42,
    "'0044-03-15 00:00:00+00 BC', 1, 1, 1, 1e-30, 1, 1e-30, 1e300, true, E'\\u00e9', ',', ',', ',', ',', ',', '9999-12-31',"
    " '24:00', '23:59:59-12', '2026-03-29 02:30', '1 mon', gen_random_uuid(), '[ 1 ,2]', '[1,2]', '1.2.3.4', '1.2.3.4',"
    " '01:02:03:04:05:06', B'111', B'10', '[2:3]={1,2}', '{a}', '(,)', '{(,)}', '(,)', '(Infinity,NaN)', '(2,2),(1,1)',"
    " 'fine', '(2,)', 'é', '''a'':1A', '!a', 1, '-$0.01', 'FFFFFFFF/FFFFFFFF'",
]


@pytest.fixture
def full(execute: Execute) -> None:
    """A table with every type in use and rows that are hard to keep."""
    for statement in EVERY_TYPE.split(";"):
        execute(statement.replace(":", r"\:"))
    columns = [c.split()[0] for c in _definitions()][1:-1]
    for values in VALUES:
        execute(f"insert into log ({', '.join(columns)}) values ({values})".replace(":", r"\:"))
    execute('grant select, update, delete on log to "db-cleanup"', "create index on log (at)")


def _definitions() -> list[str]:
    inside = EVERY_TYPE[EVERY_TYPE.index("create table log (") + len("create table log (") :]
    parts, depth, current = [], 0, ""
    for sign in inside:
        depth += (sign == "(") - (sign == ")")
        if sign == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += sign
    return [*parts, current.strip()]


@pytest.fixture
def simple(execute: Execute) -> None:
    execute(
        "create table log (id int primary key, at timestamptz, note text)",
        "create index on log (at)",
        'grant select, update, delete on log to "db-cleanup"',
        "insert into log select n, timestamptz '2026-01-01 00:00+00' + n * interval '1 minute', 'note ' || n"
        " from generate_series(1, 500) n",
        "insert into log values (1000, '2026-06-14 00:00+00', 'young')",
    )


@pytest.fixture
def bring(db: Database, clock: ManualClock) -> Bring:
    def run(run_id: uuid.UUID | None) -> Restored:
        assert run_id is not None
        until = clock.now() + timedelta(days=30)
        return restore(db.transaction, run_id, actor="ann", why="a test", now=clock.now(), hold_until=until)

    return run


def _content(rows: Rows) -> list[str]:
    return sorted(r[0] for r in rows("select cast(row(t.*) as text) from log t"))


def _files(settings: Settings) -> list[Path]:
    return sorted(p for p in Path(settings.bucket("archive")).rglob("*") if p.is_file())


def test_every_type_comes_back_as_it_was(full: None, sweep: Sweep, rows: Rows, bring: Bring, execute: Execute) -> None:
    before = _content(rows)
    assert len(before) == 4
    result = sweep(RULE)
    assert result.outcome is Outcome.OK, result.error
    assert result.counts == {"log.deleted": 4, "log.archived": 4}
    assert _content(rows) == []
    done = bring(result.run_id)
    assert (done.restored, done.conflicts, done.equal) == (4, (), True)
    assert _content(rows) == before


def test_restoring_twice_changes_nothing_and_the_next_run_leaves_what_came_back(
    simple: None, sweep: Sweep, rows: Rows, bring: Bring, clock: ManualClock, execute: Execute
) -> None:
    before = _content(rows)
    result = sweep(RULE)
    assert result.counts == {"log.deleted": 500, "log.archived": 500}, result.error
    first, second = bring(result.run_id), bring(result.run_id)
    assert (first.restored, first.present, first.equal) == (500, 0, True)
    assert (second.restored, second.present, second.equal) == (0, 500, True)
    assert _content(rows) == before
    assert len(rows("select 1 from groundskeeper.legal_hold")) == 1
    execute("insert into log values (0, '2026-01-01', 'old, and nobody restored it')")
    held = sweep(RULE)
    assert held.counts == {"log.deleted": 1, "log.archived": 1, "log.held": 500}, held.error
    clock.advance(timedelta(days=31))
    assert sweep(RULE).counts["log.deleted"] == 500 + 1  # the hold is over; the young row has grown old


def test_the_plan_says_when_the_data_is_gone_everywhere(simple: None, sweep: Sweep) -> None:
    planned = sweep(RULE, planning=True)
    assert planned.plan is not None
    assert "after 120 days" in planned.plan["items"][0]["why"]


def test_identity_generated_columns_and_triggers_do_not_stand_in_the_way(
    sweep: Sweep, rows: Rows, bring: Bring, execute: Execute
) -> None:
    execute(
        "create table log (id bigint generated always as identity primary key, at timestamptz, n int,"
        " twice int generated always as (n * 2) stored)",
        'grant select, update, delete on log to "db-cleanup"',
        "create table heard (id bigint)",
        "create function hear() returns trigger language plpgsql as"
        " 'begin insert into heard values (new.id); return new; end'",
        "create trigger hears after insert on log for each row execute function hear()",
        "create trigger always before insert on log for each row execute function hear()",
        "alter table log enable always trigger always",
        "insert into log (at, n) select '2026-01-01', n from generate_series(1, 3) n",
    )
    result = sweep(RULE)
    assert bring(result.run_id).equal
    assert len(rows("select 1 from heard")) == 6  # from the first time only
    assert sorted(r.tgenabled for r in rows("select tgenabled from pg_trigger where not tgisinternal")) == ["A", "O"]


def test_conflicts_are_reported_and_left_alone(sweep: Sweep, rows: Rows, bring: Bring, execute: Execute) -> None:
    execute(
        "create table account (id text primary key)",
        "insert into account values ('a1'), ('a2')",
        "create table log (id int primary key, at timestamptz, account text references account, mark text unique)",
        'grant select, update, delete on log to "db-cleanup"',
        "insert into log values (1, '2026-01-01', 'a1', 'm1'), (2, '2026-01-01', 'a2', 'm2'),"
        " (3, '2026-01-01', 'a1', 'm3'), (4, '2026-01-01', null, 'm4')",
    )
    result = sweep(RULE)
    assert result.counts["log.deleted"] == 4, result.error
    execute(
        "delete from account where id = 'a2'",
        "insert into log values (1, '2026-06-01', 'a1', 'new'), (9, '2026-06-01', 'a1', 'm3')",
    )
    done = bring(result.run_id)
    assert (done.restored, done.equal) == (1, False)
    assert sorted((c.rows, c.why) for c in done.conflicts) == [
        (1, "another unique value of theirs is taken"),
        (1, "there is a row of that key with other values"),
        (1, "what they point at in public.account is gone"),
    ]
    assert [r.id for r in rows("select id from log order by 1")] == [1, 4, 9]


def test_events_come_back_as_sent_and_never_as_to_be_sent(
    run_task: Any, rows: Rows, bring: Bring, execute: Execute
) -> None:
    execute(
        "insert into outbox_event (id, topic, payload, attempts, created_at, published_at)"
        """ select gen_random_uuid(), 'app-events', '{"account_id"\\: "a1"}', 1, '2026-01-01', '2026-01-02'"""
        " from generate_series(1, 20)"
    )
    result = run_task("db_cleanup")
    assert result.counts["outbox_event_published.archived"] == 20, result.error
    done = bring(result.run_id)
    assert (done.restored, done.equal) == (20, True)
    assert rows("select 1 from outbox_event where published_at is null") == []


def test_rows_changed_between_copy_and_delete_stay(
    simple: None, sweep: Sweep, rows: Rows, bring: Bring, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = objects._Folder.create
    done: list[str] = []

    def change_first(self: Any, name: str) -> Any:
        if name.endswith(".json") and not done:
            done.append(name)
            execute("update log set note = 'changed' where id = 7", "delete from log where id = 8")
        return plain(self, name)

    monkeypatch.setattr(objects._Folder, "create", change_first)
    result = sweep(RULE)
    assert result.counts == {"log.deleted": 498, "log.archived": 498, "log.in_use": 2}, result.error
    assert [(r.id, r.note) for r in rows("select id, note from log order by 1")] == [(7, "changed"), (1000, "young")]
    monkeypatch.undo()
    back = bring(result.run_id)
    assert (back.restored, back.equal) == (499, False)
    assert [(c.rows, c.why) for c in back.conflicts] == [(1, "there is a row of that key with other values")]


def test_a_table_rewritten_between_copy_and_delete_waits_for_the_next_run(
    simple: None, sweep: Sweep, rows: Rows, settings: Settings, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = objects._Folder.create
    execute("delete from log where id <= 100", "insert into log values (2000, '2026-01-01 00:00+00', 'last')")

    def rewrite_first(self: Any, name: str) -> Any:
        if name.endswith(".json"):
            execute("cluster log using log_pkey")  # every row is now where another was
        return plain(self, name)

    monkeypatch.setattr(objects._Folder, "create", rewrite_first)
    result = sweep(RULE)
    assert result.counts == {"log.deleted": 0, "log.archived": 0, "log.in_use": 401}, result.error
    assert (len(rows("select 1 from log")), _files(settings)) == (402, [])
    monkeypatch.undo()
    assert sweep(RULE).counts == {"log.deleted": 401, "log.archived": 401}


def test_a_hold_placed_between_copy_and_delete_is_honoured(
    simple: None,
    sweep: Sweep,
    rows: Rows,
    db: Database,
    clock: ManualClock,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = objects._Folder.create

    def hold_first(self: Any, name: str) -> Any:
        if name.endswith(".json"):
            with db.transaction() as connection:
                holds.add(connection, reason="case 5", by="ann", now=clock.now(), table="log")
        return plain(self, name)

    monkeypatch.setattr(objects._Folder, "create", hold_first)
    result = sweep(RULE)
    assert result.counts == {"log.deleted": 0}, result.error
    assert len(rows("select 1 from log")) == 501
    assert _files(settings) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
@pytest.mark.parametrize("which", [".parquet", ".json"])
def test_a_store_that_fails_costs_no_row(
    simple: None,
    sweep: Sweep,
    rows: Rows,
    table: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    error: OSError,
    which: str,
) -> None:
    plain = objects._Folder.create

    def fail(self: Any, name: str) -> Any:
        if name.endswith(which):
            raise error
        return plain(self, name)

    table("fine", "at timestamptz)", "insert into fine values ('2026-01-01')")
    monkeypatch.setattr(objects._Folder, "create", fail)
    result = sweep(RULE, {"table": "fine"})
    assert result.outcome is Outcome.PARTIAL
    assert str(error.strerror) in (result.error or "")
    assert len(rows("select 1 from log")) == 501
    assert result.counts["fine.deleted"] == 1
    monkeypatch.undo()
    assert sweep(RULE).counts["log.deleted"] == 500
    known = {r.location for r in rows("select location from groundskeeper.archive_manifest")}
    assert {str(f) for f in _files(settings) if f.suffix == ".json"} == known
    assert len(_files(settings)) == 2 * len(known)


def test_an_archive_that_reads_back_otherwise_costs_no_row(
    simple: None, sweep: Sweep, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.retention import parquet

    plain = parquet.unpack
    monkeypatch.setattr(parquet, "unpack", lambda content: plain(content).slice(1))
    result = sweep(RULE)
    assert "does not read back" in (result.error or "")
    assert len(rows("select 1 from log")) == 501


def test_a_damaged_or_destroyed_archive_is_refused_before_a_row_comes_back(
    simple: None, sweep: Sweep, rows: Rows, bring: Bring, settings: Settings, clock: ManualClock
) -> None:
    result = sweep(RULE)
    data = next(f for f in _files(settings) if f.suffix == ".parquet")
    whole = data.read_bytes()
    os.chmod(data, 0o600)
    data.write_bytes(whole[:-1] + b"x")
    with pytest.raises(Refused, match="damaged"):
        bring(result.run_id)
    assert len(rows("select 1 from log")) == 1
    data.write_bytes(whole)
    clock.advance(timedelta(days=91))
    destroyed = sweep({**RULE, "keep_days": 1000})
    assert destroyed.counts["archives.destroyed"] == 1, destroyed.error
    assert _files(settings) == []
    with pytest.raises(Refused, match="destroyed"):
        bring(result.run_id)


def test_archives_under_a_hold_outlive_their_time(
    simple: None, sweep: Sweep, db: Database, clock: ManualClock, settings: Settings
) -> None:
    sweep(RULE)
    with db.transaction() as connection:
        holds.add(connection, reason="case 9", by="ann", now=clock.now(), account="a1")
    clock.advance(timedelta(days=91))
    assert "archives.destroyed" not in sweep({**RULE, "keep_days": 1000}).counts
    assert len(_files(settings)) == 2


def test_without_a_place_for_archives_nothing_is_deleted_and_the_other_rules_run(
    simple: None, sweep: Sweep, rows: Rows, settings: Settings, table: Callable[..., None]
) -> None:
    from dataclasses import replace

    table("fine", "at timestamptz)", "insert into fine values ('2026-01-01')")
    result = sweep(RULE, {"table": "fine"}, using=replace(settings, buckets={}))
    assert result.outcome is Outcome.PARTIAL
    assert "KEEPER_BUCKET_ARCHIVE" in (result.error or "")
    assert (len(rows("select 1 from log")), result.counts["fine.deleted"]) == (501, 1)


def test_signs_that_text_and_csv_use_themselves_come_back_as_they_were(
    sweep: Sweep, rows: Rows, bring: Bring, execute: Execute
) -> None:
    signs = r"""unnest(array['"', E'\\', ',', '(', ')', E'\n', E'\r', E'\t', ' ', '', 'N', E'\\N', 'é', '😀', null])"""
    execute(
        "create table log (id int generated always as identity primary key, at date, note text, other text)",
        'grant select, update, delete on log to "db-cleanup"',
        f"insert into log (at, note, other) select '2026-01-01', a || b || a, b || c || b from {signs} a, {signs} b,"
        f" {signs} c".replace(":", r"\:"),
        "update log set note = null where note = 'NNN'",
        "update log set note = '' where note = 'ééé'",
    )
    before = _content(rows)
    result = sweep(RULE)
    assert result.counts == {"log.deleted": 3375, "log.archived": 3375}, result.error
    assert bring(result.run_id).equal
    assert _content(rows) == before


def test_in_company_an_archive_goes_in_small_files_one_after_the_other(
    simple: None, sweep: Sweep, db: Database, bring: Bring, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.retention import archive

    monkeypatch.setattr(archive, "_BUSY_ROWS", 120)
    with db.transaction() as other:
        other.execute(text("select 1"))
        result = sweep(RULE)
    assert result.counts == {"log.deleted": 500, "log.archived": 500}, result.error
    sizes = [json.loads(f.read_text())["rows"] for f in _files(settings) if f.suffix == ".json"]
    assert sorted(sizes) == [20, 120, 120, 120, 120]
    assert bring(result.run_id).equal


def test_many_rows_of_one_moment_are_archived_in_parts_without_an_index_too(
    sweep: Sweep, rows: Rows, bring: Bring, execute: Execute
) -> None:
    execute(
        "create table log (id int primary key, at date, note text)",
        "create index on log (at)",
        'grant select, update, delete on log to "db-cleanup"',
        "insert into log select n, date '2025-12-01' + n / 1000, repeat('x', 50) from generate_series(1, 6000) n",
        "insert into log select n, '2026-01-01', repeat('x', 50) from generate_series(6001, 100000) n",
    )
    result = sweep(RULE)
    assert result.counts == {"log.deleted": 100000, "log.archived": 100000}, result.error
    files = [r.items for r in rows("select items from groundskeeper.archive_manifest")]
    assert (len(files) > 2, sum(files)) == (True, 100000), "no row is in two archives"
    done = bring(result.run_id)
    assert (done.restored, done.equal) == (100000, True)


def test_the_manifest_says_what_the_archive_holds(simple: None, sweep: Sweep, settings: Settings) -> None:
    result = sweep(RULE)
    manifest = json.loads(next(f for f in _files(settings) if f.suffix == ".json").read_text())
    assert manifest["rows"] == 500
    assert manifest["columns"] == {"id": "integer", "at": "timestamp with time zone", "note": "text"}
    assert manifest["run_id"] == str(result.run_id)
    assert manifest["cutoff"] == (NOW - timedelta(days=30)).isoformat().replace("+00:00", "Z")
