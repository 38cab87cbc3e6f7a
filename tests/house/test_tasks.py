"""Laws over all manifests: schedules apart, every table of the schema cared for, every seed row answered."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest

from shared.manifest import ANY, ROOT, Cron, Task, load_all
from shared.platform.tables import METADATA as PLATFORM
from shared.schedule import slots
from shared.schema_rooms import metadata
from shared.strict_yaml import parse
from shared.task import load

TASKS = load_all()

# Two tasks that may start within half an hour of each other on the same database, and why.
NEAR: dict[frozenset[str], str] = {
    frozenset(("lighthouse_scan", "rotate_logs")): "rotation touches no table but the ledger",
    frozenset(("backup_database", "rotate_secrets")): "monthly: a question to an operator; a dump holds up no writer",
}
# Tasks that run so often that they are near everything, and why that is no harm.
OFTEN = {
    "aggregate_analytics": "hourly: a short insert of one hour, which no deleter touches and which locks nobody out",
    "fetch_threat_intel": "hourly: a merge a feed into a table no other task writes; readers are not held up",
    "cleanup": "hourly: asks by indexes whether rows are due, and starts others under their own leases",
    "watchdog": "reads a few rows by their indexes and writes its own incidents",
}


def test_schedules_on_the_same_database_are_half_an_hour_apart() -> None:
    start = datetime(2026, 6, 1, tzinfo=UTC)
    starts = {
        t.name: [s for x in t.triggers if isinstance(x, Cron) for s in slots(x, start, start + timedelta(days=31))]
        for t in TASKS.values()
        if t.name not in OFTEN
    }
    for one, other in combinations(sorted(starts), 2):
        near = any(abs(a - b) < timedelta(minutes=30) for a in starts[one] for b in starts[other])
        assert not near or frozenset((one, other)) in NEAR, f"{one} and {other} start within half an hour"


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
def test_a_task_loads_and_its_parameters_fit(task: Task) -> None:
    alone = load(task.folder).task
    # a task by itself does not know which others there are to start
    assert (replace(alone, starts=task.starts) if alone.starts == (ANY,) else alone) == task


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
def test_every_task_has_its_tests(task: Task) -> None:
    assert (ROOT / "tests" / "functions" / f"test_{task.name}.py").is_file()


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
def test_what_a_task_starts_exists(task: Task) -> None:
    assert set(task.starts) <= set(TASKS)


def test_approvals_may_start_exactly_those_that_ask_for_them() -> None:
    """A run above its caps asks, and whoever says `await_approval`, in main.py or in a room it uses alone."""
    asking = {t.name for t in TASKS.values() if t.caps} | {"rotate_secrets"}
    said = {f.parent.name for f in (ROOT / "shared").glob("*/*.py") if ".await_approval(" in f.read_text()}
    said |= {f.parent.name for f in (ROOT / "functions").glob("*/main.py") if ".await_approval(" in f.read_text()}
    assert said == {"rotation"}, "another room asks: name its tasks above, and in approvals' `starts`"
    assert set(TASKS["approvals"].starts) == asking


def test_what_must_never_be_replaced_is_no_rotators() -> None:
    declared = {secret for task in TASKS.values() for secret in task.secrets}
    never = set(parse((ROOT / "terraform" / "data" / "secrets.yaml").read_text(), "secrets.yaml")["never"])
    rotated = {target["secret"] for target in TASKS["rotate_secrets"].params["targets"]}
    assert never <= declared
    assert not never & rotated


@pytest.mark.parametrize("task", [t for t in TASKS.values() if t.trigger("every")], ids=lambda t: t.name)
def test_the_next_minutes_run_finds_room_while_the_last_one_ends(task: Task) -> None:
    assert task.run.max_instances * task.run.concurrency >= 2


def test_every_topic_a_task_publishes_to_is_one_the_relay_may_publish_to() -> None:
    relay = set(TASKS["outbox_relay"].publishes)
    assert {t.name: set(t.publishes) - relay for t in TASKS.values() if set(t.publishes) - relay} == {}


# Tables no age-based deleter touches, and why.
KEPT = {
    "user_profile": "goes with its account only: there is no purge of dormant accounts",
    "status_page": "tenant configuration",
    "monitored_service": "tenant configuration",
    "incident": "the public history of a service",
    "aggregated_analytics": "rollups outlive the raw telemetry: that is what they are for",
    "lighthouse_scan": "scores are a few rows a day and a trend",
    "threat_intelligence": "for ever; only legacy duplicates are removed",
    "bug_report": "system of record",
    "threat_report": "system of record",
    "training_run": "system of record",
    "window_label": "a row a window and source, platform-wide; models learn from it",
    "service_forecast": "a row a service, written over each day",
    "platform_score": "a row a window, platform-wide and anonymous",
    "ml_window": "platform-wide and anonymous; outlives the telemetry so that models can learn",
    "data_encryption_key": "a key outlives every backup and archive that needs it",
    "integration_credential": "tenant configuration",
    "idea": "tenant data",
    "listing": "tenant data",
    "groundskeeper.stream_offset": "a row a partition of a stream",
    "groundskeeper.environment": "one row",
    "groundskeeper.pause": "one row a task",
    "groundskeeper.legal_hold": "evidence of why something was kept",
    "groundskeeper.archive_manifest": "evidence of what was archived and destroyed",
    "groundskeeper.pending_object": "a row goes when its object is deleted",
    "groundskeeper.verified_backup": "one row a night; the gate and the trend read it",
    "groundskeeper.watch_incident": "a row an incident: the history an operator learns from",
    "groundskeeper.billing_customer": "whose a Stripe customer is; goes with its account only",
    "groundskeeper.billing_grant": "what was granted by hand; goes with its account only",
    "groundskeeper.erasure": "a tombstone outlives every backup and archive; one row an erased account, no id in it",
    "groundskeeper.feed_state": "one row a feed",
    "groundskeeper.feed_reject": "at most a thousand rows a feed, replaced with each copy",
    "groundskeeper.scan_state": "one row a scan",
    "groundskeeper.secret_rotation": "a few rows a month: which secret was replaced when",
    "groundskeeper.task_attempt": "goes with its task_run by cascade",
    "groundskeeper.query_plan": "goes with its query_analysis by cascade",
    "groundskeeper.query_total": "the counters of the last look, written anew by each",
}
# Purged by a task that is not built yet.
TO_COME = {}


def _purged() -> set[str]:
    return {rule["table"] for task in TASKS.values() for rule in task.params.get("rules", [])}


def _all_tables() -> set[str]:
    return {t.fullname for m in (PLATFORM, metadata) for t in m.tables.values()}


def test_every_table_is_purged_kept_with_a_reason_or_to_come() -> None:
    cared = [_purged(), set(KEPT), set(TO_COME)]
    assert set().union(*cared) == _all_tables()
    for one, other in combinations(cared, 2):
        assert not one & other


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
def test_a_tasks_tables_and_columns_exist(task: Task) -> None:
    tables = {t.fullname: t for m in (PLATFORM, metadata) for t in m.tables.values()}
    for declared in task.tables.values():
        for name, columns in declared.items():
            assert name in tables, f"{task.name} declares {name}"
            assert set(columns) <= set(tables[name].c.keys())


# Every row of the documents the product fulfils, and the task (or file) that does it.
SEED_ROWS = {
    "Outbox Relay, every 5 s": "outbox_relay",
    "Telemetry Worker, stream": "telemetry_ingest",
    "pinger, every 30 s": "ping_services",
    "aggregate_analytics, hourly": "aggregate_analytics",
    "Lighthouse, every 6 h": "lighthouse_scan",
    "ml-training-events": "ml_events",
    "train_all_models, daily": "train_all_models",
    "fetch_threat_intel, hourly": "fetch_threat_intel",
    "db_cleanup, daily": "db_cleanup",
    "scan_dark_web, daily": "scan_dark_web",
    "sync_subscriptions, daily": "sync_subscriptions",
    "VACUUM ANALYZE, daily": "vacuum_analyze",
    "Stripe webhooks": "stripe_webhook",
    "POST /api/v1/billing/sync": "billing_sync",
    "DELETE /api/v1/auth/delete-account": "delete_account",
    "DEK compliance, daily": "dek_compliance",
    "rotate_keys": "rotate_keys",
    "archive and delete mockups": "archive_mockups",
    "purge stale signals and logs": "purge_signals",
    "delete old objects": "purge_objects",
    "remove audit log entries, 18 months": "purge_audit",
    "cleanup_job, hourly": "cleanup",
    "log rotation, 01:00": "rotate_logs",
    "query plan analysis, daily": "analyze_query_plans",
    "nightly backups, 00:00": "backup_database",
    "monthly secret rotation": "rotate_secrets",
    "/approvals": "approvals",
}
NOT_YET_BUILT: set[str] = set()


def test_every_row_of_the_seeds_has_its_task_or_is_listed_as_not_yet_built() -> None:
    wanted = set(SEED_ROWS.values())
    assert wanted - set(TASKS) == NOT_YET_BUILT
    assert not NOT_YET_BUILT & set(TASKS)
