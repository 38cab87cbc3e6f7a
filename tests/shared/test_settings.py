"""What the environment may say, and where starting would be wrong."""

import pytest

from shared import settings
from shared.errors import ConfigurationError

CLOUD = {"K_SERVICE": "db-cleanup", "DATABASE_URL": "postgresql://u@10.0.0.2/d", "GOOGLE_CLOUD_PROJECT": "a-project"}


@pytest.mark.parametrize("where", ["K_SERVICE", "CLOUD_RUN_JOB"])
@pytest.mark.parametrize("missing", ["DATABASE_URL", "GOOGLE_CLOUD_PROJECT"])
def test_the_cloud_does_not_start_without_its_database_and_project(where: str, missing: str) -> None:
    environ = {**CLOUD, where: "db-cleanup", missing: ""}
    with pytest.raises(ConfigurationError, match=missing):
        settings.read(environ)


@pytest.mark.parametrize("where", ["K_SERVICE", "CLOUD_RUN_JOB"])
@pytest.mark.parametrize("name", [*settings.EMULATORS, "FIRESTORE_EMULATOR_HOST", "BIGTABLE_EMULATOR_HOST"])
def test_the_cloud_does_not_start_with_an_emulator(where: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        settings.read({**CLOUD, where: "db-cleanup", name: "127.0.0.1:1"})


def test_an_emulators_variable_that_is_empty_is_none() -> None:
    assert settings.read({**CLOUD, "PUBSUB_EMULATOR_HOST": ""}).in_cloud


def test_a_laptop_may_have_emulators_and_no_database_yet() -> None:
    read = settings.read({"PUBSUB_EMULATOR_HOST": "127.0.0.1:1"})
    assert not read.in_cloud
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        read.database()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KEEPER_MODE", "ENFORCE"),
        ("KEEPER_BACKUP_GATE_HOURS", "-1"),
        ("KEEPER_BACKUP_GATE_HOURS", "1.5"),
        ("KEEPER_BACKUP_GATE_HOURS", "9999999"),
        ("KEEPER_STRIPE_LIVEMODE", "yes"),
        ("CLOUD_RUN_TASK_INDEX", "x"),
        ("CLOUD_RUN_TASK_ATTEMPT", "x"),
    ],
)
def test_a_variable_with_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}: expected .*{value}"):
        settings.read({name: value})


def test_observe_is_the_mode_and_the_gate_is_shut_where_nothing_is_said() -> None:
    read = settings.read({})
    assert read.mode == "observe"
    assert read.backup_gate is not None
    assert read.backup_gate.total_seconds() == 26 * 3600
    assert settings.read({"KEEPER_BACKUP_GATE_HOURS": "0"}).backup_gate is None


def test_a_bucket_without_a_location_is_named() -> None:
    with pytest.raises(ConfigurationError, match="KEEPER_BUCKET_RAW_LOGS"):
        settings.read({}).bucket("raw-logs")
    assert settings.read({"KEEPER_BUCKET_RAW_LOGS": "gs://b/raw"}).bucket("raw-logs") == "gs://b/raw"


def test_printed_settings_show_no_password() -> None:
    assert "hunter2" not in repr(settings.read({"DATABASE_URL": "postgresql://u:hunter2@h/d", "X_KEY": "hunter2"}))
