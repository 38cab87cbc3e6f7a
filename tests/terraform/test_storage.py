"""Laws over the plan: stored data is protected, and gone when it was promised to be gone."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from shared.manifest import Task
from shared.strict_yaml import parse
from tests.terraform.workspace import ROOT, TERRAFORM, Plan, Resource

BUCKETS = parse((ROOT / "terraform/data/buckets.yaml").read_text(), "buckets.yaml")
DAY = 86400


def rules(bucket: Resource) -> list[tuple[str, dict[str, object]]]:
    """Lifecycle rules as (action, what of the condition is set)."""
    return [
        (r["action"][0]["type"], {k: v for k, v in r["condition"][0].items() if v not in (None, [], "", False, 0)})
        for r in bucket.values["lifecycle_rule"]
    ]


def true_days(bucket: Resource) -> int | None:
    """Days until an object is gone everywhere, from what is planned; None where no rule deletes by age."""
    ages = [c["age"] for action, c in rules(bucket) if action == "Delete" and c.keys() == {"age"}]
    if not ages:
        return None
    retention = sum(int(p["retention_period"]) for p in bucket.values["retention_policy"]) // DAY
    noncurrent = 0
    if bucket.values["versioning"][0]["enabled"]:
        (noncurrent,) = [c["days_since_noncurrent_time"] for _, c in rules(bucket) if "days_since_noncurrent_time" in c]
    soft = bucket.values["soft_delete_policy"][0]["retention_duration_seconds"] // DAY
    return max(min(ages), retention) + noncurrent + soft


def promise(name: str, plan: Plan) -> int | None:
    """What buckets.yaml promises under the plan's parameters."""
    days = BUCKETS[name].get("delete_after_days")
    if isinstance(days, dict):
        given = plan.document["variables"]["parameters"].get("value", {})
        days = int(given.get(days["env"], days["default"]))
    return None if days is None else days + BUCKETS[name].get("tail_days", 0)


def test_data_is_gone_when_it_was_promised(plan: Plan) -> None:
    for bucket in plan.of("storage_bucket", "data"):
        assert true_days(bucket) == promise(str(bucket.key), plan), bucket.address


def test_raw_telemetry_is_gone_after_thirty_days_and_objects_after_ninety(real: Plan) -> None:
    days = {b.key: true_days(b) for b in real.of("storage_bucket", "data")}
    assert (days["telemetry"], days["general"]) == (30, 90)


def test_one_number_feeds_the_task_and_the_rule(fixtures: Plan) -> None:
    (general,) = [b for b in fixtures.of("storage_bucket", "data") if b.key == "general"]
    assert true_days(general) == 60
    (function,) = [f for f in fixtures.of("cloudfunctions2_function") if f.key == "night_count"]
    unset = "NIGHT_LABEL" in function.values["service_config"][0].get("environment_variables", {})
    assert not unset


def test_the_platforms_own_buckets_are_not_made_again(fixtures: Plan) -> None:
    assert "mockups" not in {b.key for b in fixtures.of("storage_bucket", "data")}


def test_no_bucket_is_public(plan: Plan, bootstrap: Plan) -> None:
    for bucket in (*plan.of("storage_bucket"), *bootstrap.of("storage_bucket")):
        assert bucket.values["uniform_bucket_level_access"] is True, bucket.address
        assert bucket.values["public_access_prevention"] == "enforced", bucket.address
        assert not bucket.values["force_destroy"], bucket.address
        assert ("AbortIncompleteMultipartUpload", {"age": 1}) in rules(bucket), bucket.address


def test_versions_are_kept_only_where_something_may_be_undone(plan: Plan) -> None:
    versioned = {b.key for b in plan.of("storage_bucket", "data") if b.values["versioning"][0]["enabled"]}
    assert versioned == {name for name, b in BUCKETS.items() if "noncurrent_days" in b} - {"mockups"}


def test_backups_cannot_be_deleted_for_a_week(plan: Plan) -> None:
    (backups,) = [b for b in plan.of("storage_bucket", "data") if b.key == "backups"]
    assert backups.values["retention_policy"][0]["retention_period"] == str(7 * DAY)


def test_old_mockups_are_stored_cold(plan: Plan) -> None:
    assert {b.key: b.values["storage_class"] for b in plan.of("storage_bucket", "data")}["cold-storage"] == "COLDLINE"


def test_the_key_encryption_key_turns_every_ninety_days(plan: Plan) -> None:
    (key,) = plan.of("kms_crypto_key")
    assert (key.values["name"], key.values["purpose"]) == ("kek", "ENCRYPT_DECRYPT")
    assert key.values["rotation_period"] == f"{90 * DAY}s"
    assert int(key.values["destroy_scheduled_duration"].rstrip("s")) >= 30 * DAY
    assert key.values["version_template"] == [
        {"algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION", "protection_level": "SOFTWARE"}
    ]


def test_secrets_are_exactly_those_named_and_have_no_value_here(plan: Plan, tasks: dict[str, Task]) -> None:
    assert {s.values["secret_id"] for s in plan.of("secret_manager_secret")} == {
        secret for task in tasks.values() for secret in task.secrets
    }
    assert not plan.of("secret_manager_secret_version")
    never = parse((TERRAFORM / "data" / "secrets.yaml").read_text(), "secrets.yaml")["never"]
    for secret in plan.of("secret_manager_secret"):
        (place,) = secret.values["replication"][0]["user_managed"][0]["replicas"]
        assert place["location"] == "europe-west1", secret.address
        if secret.values["secret_id"] in never:
            assert (secret.values["rotation"], secret.values["topics"]) == ([], []), secret.address
            continue
        (rotation,) = secret.values["rotation"]
        assert int(rotation["rotation_period"].rstrip("s")) >= 3600, secret.address
        # a plan and its apply are minutes apart, and must be the same
        due = datetime.fromisoformat(rotation["next_rotation_time"])
        assert (due.day, due.hour, due.minute, due.second) == (1, 0, 0, 0), secret.address
        assert timedelta() < due - datetime.now(UTC) <= timedelta(days=31), secret.address
        assert len(secret.values["topics"]) == 1, secret.address


def test_reminders_of_rotation_can_be_sent_and_are_kept(fixtures: Plan) -> None:
    (publisher,) = fixtures.of("pubsub_topic_iam_member", "rotation")
    assert publisher.values["member"].endswith("@gcp-sa-secretmanager.iam.gserviceaccount.com")
    assert publisher.values["role"] == "roles/pubsub.publisher"
    (kept,) = fixtures.of("pubsub_subscription", "rotation")
    assert kept.values["message_retention_duration"] == f"{31 * DAY}s"


def test_the_database_is_private_backed_up_and_hard_to_delete(fixtures: Plan) -> None:
    (instance,) = fixtures.of("sql_database_instance")
    settings = instance.values["settings"][0]
    assert instance.values["deletion_protection"] is True
    assert settings["deletion_protection_enabled"] is True
    assert settings["retain_backups_on_delete"] is True
    (address,) = settings["ip_configuration"]
    assert (address["ipv4_enabled"], address["ssl_mode"]) == (False, "ENCRYPTED_ONLY")
    (backup,) = settings["backup_configuration"]
    assert backup["enabled"] is True
    assert backup["point_in_time_recovery_enabled"] is True
    assert backup["backup_retention_settings"][0]["retained_backups"] >= 7
    flags = {f["name"]: f["value"] for f in settings["database_flags"]}
    assert flags.keys() == {
        "cloudsql.iam_authentication",
        "log_checkpoints",
        "log_lock_waits",
        "log_min_error_statement",
        "max_connections",
    }
    assert flags["cloudsql.iam_authentication"] == "on"
    assert settings["maintenance_window"][0]["update_track"] == "stable"
    assert settings["insights_config"][0]["record_client_address"] is False
    assert int(flags["max_connections"]) >= 100
    assert settings["availability_type"] == "REGIONAL"


def test_a_database_that_is_there_is_left_alone(real: Plan) -> None:
    assert not real.of("sql_database_instance") + real.of("compute_network") + real.of("sql_database")


# what holds data cannot be destroyed by a plan that nobody read to the end
KEPT = {
    "buckets.tf": "google_storage_bucket.data",
    "database.tf": "google_sql_database_instance.main",
    "kms.tf": "google_kms_crypto_key.key google_kms_key_ring.main",
}


@pytest.mark.parametrize("file", KEPT)
def test_what_holds_data_is_never_destroyed_by_terraform(file: str) -> None:
    text = (TERRAFORM / file).read_text()
    for address in KEPT[file].split():
        kind, name = address.split(".")
        block = re.search(rf'^resource "{kind}" "{name}" \{{$(.*?)^\}}$', text, re.M | re.S)
        assert block, address
        assert re.search(r"^  lifecycle \{\n    prevent_destroy = true", block.group(1), re.M), address


@pytest.mark.parametrize("name", ["task", "migrate"])
def test_an_archive_goes_only_when_nothing_refers_to_it(name: str) -> None:
    text = (TERRAFORM / "source.tf").read_text()
    block = re.search(rf'^resource "google_storage_bucket_object" "{name}" \{{$(.*?)^\}}$', text, re.M | re.S)
    assert block
    assert re.search(r"^  lifecycle \{\n    create_before_destroy = true", block.group(1), re.M)


def test_a_database_that_grew_is_not_made_smaller() -> None:
    assert "ignore_changes  = [settings[0].disk_size]" in (TERRAFORM / "database.tf").read_text()


def test_a_reminder_that_was_sent_is_not_set_back() -> None:
    assert "ignore_changes = [rotation[0].next_rotation_time]" in (TERRAFORM / "secrets.tf").read_text()


def test_the_network_reaches_the_database_and_calls_stay_inside_it(fixtures: Plan) -> None:
    (subnetwork,) = fixtures.of("compute_subnetwork")
    assert subnetwork.values["private_ip_google_access"] is True
    (record,) = fixtures.of("dns_record_set")
    assert record.values["name"] == "*.run.app."
    assert record.values["rrdatas"] == [f"199.36.153.{n}" for n in (8, 9, 10, 11)]
    (zone,) = fixtures.of("dns_managed_zone")
    assert (zone.values["visibility"], zone.values["dns_name"]) == ("private", "run.app.")
    assert len(zone.values["private_visibility_config"][0]["networks"]) == 1
    (address,) = fixtures.of("compute_global_address")
    assert (address.values["purpose"], address.values["prefix_length"]) == ("VPC_PEERING", 20)
    assert fixtures.of("service_networking_connection")
