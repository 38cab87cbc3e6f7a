"""The command `keeper` as a user meets it: a process, its two outputs, its exit code, its JSON by schema."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sqlalchemy import text

from shared.database import Database
from shared.manifest import FUNCTIONS, ROOT, load_all
from shared.settings import Settings

Keeper = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def keeper(settings: Settings, tmp_path: Path) -> Keeper:
    """Run `keeper` on the test's database."""

    def run(*words: str, functions: Path = FUNCTIONS, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "VIRTUAL_ENV")}
        return subprocess.run(
            [sys.executable, "-m", "shared.keeper", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            env={
                **environment,
                **settings.environ,
                "KEEPER_HOME": str(tmp_path / "home"),
                "KEEPER_FUNCTIONS": str(functions),
                **variables,
            },
            check=False,
        )

    return run


def document(done: "subprocess.CompletedProcess[str]", schema: str) -> dict[str, Any]:
    """The one JSON document on standard output, valid by its published schema."""
    found = json.loads(done.stdout)
    jsonschema.validate(
        found,
        json.loads((ROOT / "docs" / "schemas" / f"{schema}.json").read_text()),
        format_checker=jsonschema.FormatChecker(),
    )
    return dict(found)


def expire(db: Database, number: int) -> None:
    with db.transaction() as connection:
        connection.execute(
            text("""
            insert into audit_log (actor, action, created_at)
            select 'app', 'login', :at from generate_series(1, :n)"""),
            {"at": datetime.now(UTC) - timedelta(days=31), "n": number},
        )


def test_list_plan_run_run_again_and_history_as_json(keeper: Keeper, db: Database) -> None:
    expire(db, 3)
    assert [t["task"] for t in document(keeper("list", "--json"), "list")["tasks"]] == sorted(load_all())
    planned = document(keeper("run", "db_cleanup", "--plan", "--json"), "run")
    assert (planned["outcome"], planned["counts"]["planned.rows"]) == ("planned", 3)
    first = document(keeper("run", "db_cleanup", "--json"), "run")
    assert (first["outcome"], first["counts"]["audit_log.deleted"]) == ("ok", 3)
    again = document(keeper("run", "db_cleanup", "--json"), "run")
    assert again["counts"]["audit_log.deleted"] == 0
    runs = document(keeper("history", "--json"), "history")["runs"]
    assert [r["outcome"] for r in runs] == ["ok", "ok", "planned"]
    assert runs[1]["run_id"] == first["run_id"]
    last = next(t for t in document(keeper("list", "--json"), "list")["tasks"] if t["task"] == "db_cleanup")["last"]
    assert last["run_id"] == again["run_id"]


def test_a_plan_can_be_run_by_its_hash_with_its_own_cutoff(keeper: Keeper, db: Database) -> None:
    expire(db, 2)
    planned = document(keeper("run", "db_cleanup", "--plan", "--json"), "run")
    ran = document(keeper("run", "db_cleanup", "--plan-hash", planned["plan_hash"][:12], "--json"), "run")
    assert (ran["outcome"], ran["plan_hash"]) == ("ok", planned["plan_hash"])
    assert ran["plan"]["as_of"] == planned["plan"]["as_of"]


def test_tables_for_people_hold_no_json_and_no_colour_in_a_pipe(keeper: Keeper) -> None:
    for words in (("list",), ("history",), ("run", "db_cleanup", "--plan"), ("approvals", "list"), ("hold", "list")):
        done = keeper(*words)
        assert done.returncode == 0, done.stderr
        assert "\x1b[" not in done.stdout
        assert '"severity"' not in done.stdout + done.stderr


def test_a_run_in_observe_mode_says_that_it_did_nothing(keeper: Keeper, db: Database) -> None:
    expire(db, 1)
    seen = keeper("run", "db_cleanup", KEEPER_MODE="observe")
    assert (seen.returncode, "observe mode: nothing was done" in seen.stdout) == (0, True)
    assert "observe mode" not in keeper("run", "db_cleanup", "--plan").stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "db_clean"), 3, "did you mean db_cleanup"),
        (("run", "db_cleanup", "--param", "count_within_s=ten"), 3, "expected int, got 'ten'"),
        (("run", "db_cleanup", "--param", "count_within_s"), 3, "expected NAME=VALUE"),
        (("run", "db_cleanup", "--plan-hash", "abc"), 3, "there is no plan abc"),
        (("run", "db_cleanup", "--break-glass"), 3, "needs --reason"),
        (("hold", "release", "12", "--reason", "x"), 2, "'12' is no id: `keeper hold list` shows them"),
        (("hold", "add", "--all", "--account", "a1", "--reason", "x"), 3, "leave the others out"),
        (("pause", "db_cleanup", "--reason", " "), 3, "needs a reason"),
        (("pause", "all", "--reason", "x", "--until", "soon"), 2, "90m, 12h, 7d"),
        (("pause", "all", "--reason", "x", "--until", "999999999999d"), 2, "90m, 12h, 7d"),
        (("hold", "add", "--all", "--reason", "x", "--until", "2027-02-30"), 2, "a date like 2027-01-01"),
        (("hold", "add", "--all", "--reason", "x", "--until", "2020-01-01"), 3, "is over already"),
        (("hold", "add", "--reason", "x"), 3, "say what to hold"),
        (("cancel", "00000000-0000-4000-8000-000000000000"), 3, "is not running"),
        (("approvals", "approve", "00000000-0000-4000-8000-000000000000", "--reason", "x"), 3, "there is no approval"),
    ],
)
def test_a_wrong_word_is_answered_with_the_thing_the_value_and_the_remedy(
    keeper: Keeper, words: tuple[str, ...], code: int, said: str
) -> None:
    done = keeper(*words)
    assert done.returncode == code, done.stderr
    assert said in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr


def test_a_pause_holds_work_until_resumed(keeper: Keeper, db: Database) -> None:
    expire(db, 1)
    assert keeper("pause", "all", "--reason", "incident 7").returncode == 0
    stopped = document(keeper("run", "db_cleanup", "--json"), "run")
    assert (stopped["outcome"], stopped["run_id"]) == ("stopped", None)
    assert keeper("resume", "all").returncode == 0
    assert document(keeper("run", "db_cleanup", "--json"), "run")["counts"]["audit_log.deleted"] == 1


def test_a_hold_is_placed_honoured_and_released(keeper: Keeper, db: Database) -> None:
    expire(db, 1)
    placed = keeper("hold", "add", "--table", "audit_log", "--reason", "case 12", "--as", "ann")
    assert placed.returncode == 0, placed.stderr
    (hold,) = document(keeper("hold", "list", "--json"), "holds")["holds"]
    assert (hold["table"], hold["reason"], hold["placed_by"]) == ("audit_log", "case 12", "ann")
    assert document(keeper("run", "db_cleanup", "--json"), "run")["counts"]["audit_log.deleted"] == 0
    assert keeper("hold", "release", hold["hold_id"], "--reason", "closed").returncode == 0
    assert document(keeper("run", "db_cleanup", "--json"), "run")["counts"]["audit_log.deleted"] == 1


def test_a_hold_names_what_a_deleter_deletes_and_nothing_else(keeper: Keeper, db: Database) -> None:
    with db.transaction() as connection:
        connection.execute(text("create schema shop"))
        connection.execute(text("create table shop.orders (id int)"))
    for name in ("shop.orders", "public.audit_log", "orphan_images", "logs"):
        placed = keeper("hold", "add", "--table", name, "--reason", "case 14")
        assert placed.returncode == 0, placed.stderr
    for name in ("orders", "audit_logs"):  # a hold on these would hold nothing
        refused = keeper("hold", "add", "--table", name, "--reason", "case 14")
        assert (refused.returncode, f"no table '{name}'" in refused.stderr) == (3, True), refused.stderr


def test_a_hold_or_pause_until_a_date_lasts_to_the_end_of_that_day_in_utc(keeper: Keeper) -> None:
    placed = keeper("hold", "add", "--all", "--reason", "case 13", "--until", "2999-01-31")
    assert placed.stdout.endswith("placed until 2999-01-31 23:59:59 UTC\n"), placed.stdout + placed.stderr
    (hold,) = json.loads(keeper("hold", "list", "--json").stdout)["holds"]
    assert hold["expires_at"] == "2999-01-31T23:59:59.999999Z"
    paused = keeper("pause", "all", "--reason", "incident 8", "--until", "2999-01-31")
    assert paused.stdout == "all tasks paused until 2999-01-31 23:59:59 UTC: incident 8\n", paused.stderr


def test_above_the_cap_an_approval_is_listed_approved_and_run(keeper: Keeper, db: Database, tmp_path: Path) -> None:
    expire(db, 3)
    functions = tmp_path / "functions"
    shutil.copytree(FUNCTIONS, functions)
    declared = functions / "db_cleanup" / "task.yaml"
    declared.write_text(re.sub(r"caps: .*", "caps: {rows: 2}", declared.read_text()))
    refused = keeper("run", "db_cleanup", functions=functions)
    assert refused.returncode == 3
    assert "3 rows (at most 2)" in " ".join(refused.stdout.split())
    (waiting,) = document(keeper("approvals", "list", "--json"), "approvals")["approvals"]
    shown = document(keeper("approvals", "show", waiting["approval_id"], "--json"), "approval")
    assert (shown["approval"]["decision"], shown["plan"]["ceiling"]) == (None, {"rows": 3})
    approved = keeper("approvals", "approve", waiting["approval_id"], "--reason", "looked at it", functions=functions)
    assert approved.returncode == 0, approved.stdout + approved.stderr
    used = document(keeper("approvals", "show", waiting["approval_id"], "--json"), "approval")["approval"]
    assert (used["decision"], used["used_by_run"] is None) == ("approved", False)
    with db.transaction(read_only=True) as connection:
        assert connection.execute(text("select count(*) from audit_log")).scalar_one() == 0


def test_new_makes_a_task_that_plans_runs_and_passes_its_test(keeper: Keeper, tmp_path: Path) -> None:
    functions = tmp_path / "functions"
    shutil.copytree(FUNCTIONS, functions)
    made = keeper("new", "stale_exports", functions=functions)
    assert made.returncode == 0, made.stderr
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*stale_exports*")} | {
        p.relative_to(tmp_path).as_posix() for p in (functions / "stale_exports").iterdir()
    }
    assert {
        "functions/stale_exports/task.yaml",
        "functions/stale_exports/main.py",
        "tests/functions/test_stale_exports.py",
    } <= written
    assert (
        document(keeper("run", "stale_exports", "--plan", "--json", functions=functions), "run")["outcome"] == "planned"
    )
    ran = document(keeper("run", "stale_exports", "--json", functions=functions), "run")
    assert (ran["outcome"], ran["counts"]) == ("ok", {"rows.seen": 100})
    again = keeper("new", "stale_exports", functions=functions)
    assert again.returncode == 3
    assert "exists" in again.stderr
    assert "cannot be a task's name" in keeper("new", "no", functions=functions).stderr


def test_all_parts_of_a_job_run_and_are_told_as_one(keeper: Keeper, tmp_path: Path) -> None:
    folder = tmp_path / "functions" / "counting"
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text("""
summary: Counts its parts.
owner: platform
triggers: [{cron: "0 6 * * *"}]
run: {kind: job, memory_mb: 512, cpu: 1, timeout_s: 60, tasks: 3, parallelism: 3}
uses: []
requires: []
tables: {}
must_succeed_within_s: 100000
params: {}
""")
    (folder / "main.py").write_text("""
from dataclasses import dataclass

from shared.errors import Partial
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    pass


def run(ctx: Context, params: Params) -> dict[str, int]:
    ctx.count("parts")
    ctx.count("indexes", ctx.shard)
    if ctx.shard == 1:
        raise Partial(["the second"], ctx.counts)
    return ctx.counts


main = entrypoint(__file__, run)
""")
    ran = keeper("run", "counting", "--json", functions=folder.parent)
    told = document(ran, "run")
    assert (told["outcome"], told["counts"], ran.returncode) == ("partial", {"parts": 3, "indexes": 0 + 1 + 2}, 1)


def test_doctor_says_what_is_wrong_and_exits_one(keeper: Keeper, db: Database) -> None:
    assert keeper("doctor").returncode == 0
    with db.transaction() as connection:
        connection.execute(text("update groundskeeper.environment set project = 'other'"))
    done = keeper("doctor", "--json")
    assert done.returncode == 1
    wrong = [f for f in json.loads(done.stdout)["findings"] if f["state"] == "wrong"]
    assert [f["subject"] for f in wrong] == ["environment"]


def test_doctor_tells_a_database_without_our_schema_what_stands_still_and_what_the_watchdog_found(
    keeper: Keeper, db: Database
) -> None:
    keeper("pause", "db_cleanup", "--reason", "incident 7")
    with db.transaction() as connection:
        connection.execute(
            text("""
            insert into groundskeeper.watch_incident (incident_id, key, severity, summary, runbook, opened_at, seen_at)
            values (gen_random_uuid(), 'age/backup', 'error', 'the newest verified backup is old', 'verify_backup',
                    now(), now())""")
        )
    done = keeper("doctor", "--json")
    assert done.returncode == 1
    found = {(f["subject"], f["state"], f["remedy"]) for f in json.loads(done.stdout)["findings"]}
    assert ("db_cleanup", "note", "keeper resume db_cleanup") in found
    assert ("verify_backup", "wrong", "see docs/tasks/verify_backup.md") in found
    with db.transaction() as connection:
        connection.execute(text("drop schema groundskeeper cascade"))
    done = keeper("doctor", "--json")
    assert {"subject": "schema", "state": "wrong", "seen": "this database has no schema groundskeeper",
            "remedy": "keeper migrate"} in json.loads(done.stdout)["findings"]  # fmt: skip


def test_doctor_adopt_says_which_tasks_can_run_on_these_tables(keeper: Keeper, db: Database, tmp_path: Path) -> None:
    assert keeper("doctor", "--adopt").returncode == 0
    with db.transaction() as connection:
        connection.execute(text("create schema app"))
        connection.execute(text("alter table audit_log set schema app"))
        connection.execute(text("alter table app.audit_log rename column created_at to happened"))
    done = keeper("doctor", "--adopt", "--json")
    assert done.returncode == 1
    assert "table audit_log does not exist" in done.stdout
    with db.transaction() as connection:
        connection.execute(text("drop schema groundskeeper cascade"))
    before = keeper("doctor", "--adopt", "--json")  # the first thing one asks, long before `keeper migrate`
    assert "table audit_log does not exist" in before.stdout
    missing = keeper("doctor", "--adopt", "no-such.yaml")
    assert missing.returncode == 3
    assert "no such file" in missing.stderr
    mapping = tmp_path / "adopt.yaml"
    mapping.write_text(
        "tables:\n  audit_log:\n    name: app.audit_log\n    columns:\n      created_at: {name: happened}\n"
    )
    adopted = ("doctor", "--adopt", str(mapping), "--json")
    wrong = {one["subject"]: one for one in json.loads(keeper(*adopted).stdout)["findings"] if one["state"] == "wrong"}
    # only what keeps rules follows the mapping; the others' SQL is written out, and a view serves them
    assert set(wrong) == {"schema", "delete_account", "finish_deletions", "watchdog"}
    view = wrong["watchdog"]["remedy"].partition(": ")[2]
    assert view == "create view audit_log as select account_id, happened as created_at, id from app.audit_log"
    with db.transaction() as connection:
        connection.execute(text(view))
    found = json.loads(keeper(*adopted).stdout)["findings"]
    assert [one["subject"] for one in found if one["state"] == "wrong"] == ["schema"]


def test_doctor_adopt_says_which_rights_and_indexes_are_missing(keeper: Keeper, db: Database, tmp_path: Path) -> None:
    mapping = tmp_path / "adopt.yaml"
    mapping.write_text("tables:\n  signal:\n    name: app.news\n    columns:\n      created_at: {name: at}\n")
    with db.transaction() as connection:
        connection.execute(text("create schema app"))
        connection.execute(text("create table app.news (id bigint primary key, at timestamptz)"))
    assert keeper("migrate", "--grants", "--adopt", str(mapping)).returncode == 0

    def found(state: str) -> dict[str, str]:
        said = document(keeper("doctor", "--adopt", str(mapping), "--json"), "doctor")["findings"]
        return {one["subject"]: one["remedy"] for one in said if one["state"] == state}

    assert found("wrong") == {}
    assert found("note")["purge_signals"] == "create index concurrently on app.news (at)"
    with db.transaction() as connection:
        connection.execute(text('revoke delete on app.news from "purge-signals"'))
        connection.execute(text("create index on app.news (at)"))
    assert found("wrong") == {"purge_signals": "keeper migrate --grants"}
    assert "purge_signals" not in found("note")


def test_an_unreachable_database_is_said_in_words(keeper: Keeper) -> None:
    done = keeper("history", DATABASE_URL="postgresql://nobody:hunter2@127.0.0.1:1/none")
    assert done.returncode == 4
    assert "does not answer" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
