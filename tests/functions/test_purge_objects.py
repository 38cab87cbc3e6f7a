"""purge_objects: by age, metadata, database and hold; another generation or a named object never."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared import holds, objects
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.objects import GcsServer, find_server
from shared.settings import Settings
from tests.conftest import NOW, ManualClock, RunTask
from tests.parts import missing

DAY, TICK = timedelta(days=1), timedelta(microseconds=1)
AGED, ORPHAN = NOW - 90 * DAY, NOW - 30 * DAY


@pytest.fixture
def general(settings: Settings) -> Path:
    return Path(settings.bucket("general"))


@pytest.fixture
def images(settings: Settings, db: Database) -> Path:
    """The mockups' images, one of which a row names."""
    with db.transaction() as connection:
        connection.execute(text("insert into idea (id, title, created_at) values (1, 'i', :at)"), {"at": NOW})
        connection.execute(
            text("insert into mockup (idea_id, title, image, created_at) values (1, 'm', 'a/named.png', :at)"),
            {"at": NOW},
        )
    folder = Path(settings.bucket("mockups"))
    put(folder, "a/named.png", at=NOW - 400 * DAY)
    return folder


def put(folder: Path, name: str, *, at: datetime) -> None:
    """An object of three bytes written at `at`."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("abc")
    ns = int(at.timestamp()) * 10**9 + at.microsecond * 1000
    os.utime(file, ns=(ns, ns))


def left(folder: Path) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


def test_on_a_folder_what_the_rules_would_delete_goes_and_what_is_at_the_limit_stays(
    general: Path, images: Path, run_task: RunTask
) -> None:
    for name, at in (("old/a", AGED - TICK), ("limit", AGED), ("young", AGED + TICK)):
        put(general, name, at=at)
    result = run_task("purge_objects")
    assert (result.outcome, result.error) == (Outcome.OK, None)
    assert result.counts == {"aged.deleted": 1, "discarded.deleted": 0, "orphan_images.deleted": 0}
    assert left(general) == ["limit", "young"]
    assert run_task("purge_objects").counts["aged.deleted"] == 0


def test_the_age_is_the_number_the_rules_have(
    general: Path, images: Path, run_task: RunTask, settings: Settings
) -> None:
    put(general, "a", at=NOW - 11 * DAY)
    ten = replace(settings, environ={**settings.environ, "S3_RETENTION_DAYS": "10"})
    assert run_task("purge_objects", using=ten).counts["aged.deleted"] == 1


def test_images_no_row_names_go_and_named_or_young_ones_stay(images: Path, run_task: RunTask) -> None:
    put(images, "a/orphan.png", at=ORPHAN - TICK)
    put(images, "b/orphan.png", at=ORPHAN)
    assert run_task("purge_objects").counts["orphan_images.deleted"] == 1
    assert left(images) == ["a/named.png", "b/orphan.png"]


def test_a_table_that_names_nothing_condemns_nothing(images: Path, run_task: RunTask, db: Database) -> None:
    with db.transaction() as connection:
        connection.execute(text("delete from mockup"))
    result = run_task("purge_objects")
    assert result.outcome is Outcome.PARTIAL
    assert "names nothing at all" in (result.error or "")
    assert left(images) == ["a/named.png"]


def test_the_plan_counts_objects_bytes_and_cost_and_equals_the_act(
    general: Path, images: Path, run_task: RunTask
) -> None:
    for n in range(1100):  # more than a page
        put(general, f"{n:04}", at=AGED - (n + 1) * DAY)
    put(images, "orphan.png", at=ORPHAN - TICK)
    planned = run_task("purge_objects", planning=True)
    assert planned.plan is not None
    items = {i["what"]: (i["count"], i["bytes"], i["unit"]) for i in planned.plan["items"]}
    assert items == {
        "aged": (1100, 3300, "objects"),
        "discarded": (0, 0, "objects"),
        "orphan_images": (1, 3, "objects"),
    }
    assert any("USD a month" in note for note in planned.plan["notes"])
    assert len(left(general)) == 1100
    counts = run_task("purge_objects").counts
    assert (counts["aged.deleted"], counts["orphan_images.deleted"]) == (1100, 1)


def test_above_the_cap_nothing_goes(general: Path, images: Path, run_task: RunTask, tmp_path: Path) -> None:
    import shutil

    from shared.manifest import FUNCTIONS

    shutil.copytree(FUNCTIONS / "purge_objects", tmp_path / "purge_objects")
    declared = tmp_path / "purge_objects" / "task.yaml"
    declared.write_text(declared.read_text().replace("{objects: 500000}", "{objects: 1}"))
    put(general, "a", at=AGED - DAY)
    put(general, "b", at=AGED - DAY)
    assert run_task("purge_objects", functions=tmp_path).outcome is Outcome.REFUSED
    assert left(general) == ["a", "b"]


@pytest.mark.parametrize("hold", [{"table": "aged"}, {"table": None}])
def test_held_objects_stay(
    hold: dict[str, Any], general: Path, images: Path, run_task: RunTask, db: Database, clock: ManualClock
) -> None:
    put(general, "a", at=AGED - DAY)
    with db.transaction() as connection:
        holds.add(connection, reason="case 1", by="ann", now=clock.now(), **hold)
    counts = run_task("purge_objects").counts
    assert (counts["aged.deleted"], counts["aged.held"]) == (0, 1)
    assert left(general) == ["a"]


def test_an_object_replaced_meanwhile_stays(general: Path, images: Path, run_task: RunTask) -> None:
    put(general, "a", at=AGED - DAY)
    found = objects.at(str(general)).stat("a")
    put(general, "a", at=NOW)
    with pytest.raises(objects.Changed):
        objects.at(str(general)).delete("a", generation=found.generation)
    assert run_task("purge_objects").counts["aged.deleted"] == 0
    assert left(general) == ["a"]


# --- on Cloud Storage's own interface


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    program = find_server()
    if program is None:
        missing("fake-gcs-server", "make setup")
    folder = tmp_path_factory.mktemp("gcs")
    server = GcsServer(program, folder / "root", ["general", "mockups"], folder=folder / "log")
    yield server
    server.stop()


@pytest.fixture
def cloud(gcs: GcsServer, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    return replace(settings, buckets={**settings.buckets, "general": "gs://general", "mockups": "gs://mockups"})


def _upload(name: str, bucket: str, **metadata: str) -> None:
    from google.cloud import storage  # type: ignore[attr-defined]

    blob = storage.Client().bucket(bucket).blob(name)
    blob.metadata = metadata
    blob.upload_from_string(b"abc")


def test_what_the_application_gave_up_is_marked_by_its_metadata_and_rules_that_differ_are_told(
    cloud: Settings, images: Path, run_task: RunTask, clock: ManualClock, db: Database
) -> None:
    for name, metadata in (
        ("a", {"state": "discarded", "account_id": "a1"}),
        ("b", {"state": "discarded", "account_id": "a2"}),
        ("c", {"state": "in use"}),
        ("d", {}),
    ):
        _upload(name, "general", **metadata)
    clock.advance(datetime.now(UTC) + 8 * DAY - clock.now())  # the server's own clock wrote them
    with db.transaction() as connection:
        holds.add(connection, reason="case 1", by="ann", now=clock.now(), account="a2")
    result = run_task("purge_objects", using=cloud)
    assert result.outcome is Outcome.PARTIAL
    assert "no live rule deletes all objects 90 days old: apply terraform" in (result.error or "")
    assert (result.counts["discarded.marked"], result.counts["discarded.held"]) == (1, 1)
    place = objects.at("gs://general")
    assert {o.name: o.custom_time for o in place.list()} == {"a": clock.now(), "b": None, "c": None, "d": None}
    assert run_task("purge_objects", using=cloud).counts["discarded.marked"] == 0
