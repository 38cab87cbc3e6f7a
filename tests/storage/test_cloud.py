"""The same tasks on Cloud Storage's own interface, by a local server and Google's client."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared import objects
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.objects import GcsServer, find_server
from shared.retention.restore import restore
from shared.settings import Settings
from tests.conftest import ManualClock, RunTask
from tests.parts import missing

Rows = Callable[..., list[Any]]
BUCKETS = ("logs", "mockups", "cold-storage")


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    program = find_server()
    if program is None:
        missing("fake-gcs-server", "make setup")
    folder = tmp_path_factory.mktemp("gcs")
    server = GcsServer(program, folder / "root", BUCKETS, folder=folder / "log")
    yield server
    server.stop()


@pytest.fixture
def cloud(
    gcs: GcsServer, settings: Settings, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Settings:
    """Every bucket below a prefix of this test's own."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    places = {b: f"gs://{b}/{request.node.name}" for b in BUCKETS}
    return replace(settings, buckets={**settings.buckets, **places})


def put(settings: Settings, bucket: str, name: str, content: bytes = b"a line") -> None:
    with objects.at(settings.bucket(bucket)).create(name) as sink:
        sink.write(content)


def names(settings: Settings, bucket: str) -> list[str]:
    return [found.name for found in objects.at(settings.bucket(bucket)).list()]


def test_log_objects_go_into_the_archive_by_generation_and_old_ones_are_removed_where_no_rule_is_live(
    cloud: Settings, run_task: RunTask, clock: ManualClock
) -> None:
    put(cloud, "logs", "app.log")
    put(cloud, "logs", "deep/app.log")
    put(cloud, "logs", "notes.txt")
    place = objects.at(cloud.bucket("logs"))
    archived = f"archive/app.log.{place.stat('app.log').generation}"
    place.copy("app.log", place, archived)  # as a killed run left it
    clock.advance(datetime.now(UTC) - clock.now())  # the server stamps by its own clock
    result = run_task("rotate_logs", using=cloud)
    assert (result.outcome, result.error) == (Outcome.OK, None)
    assert result.counts == {"logs.rotated": 1, "logs.emptied": 0, "archives.removed": 0}
    assert names(cloud, "logs") == [archived, "deep/app.log", "notes.txt"]
    clock.advance(timedelta(days=8))
    planned = run_task("rotate_logs", using=cloud, planning=True)
    assert planned.plan is not None
    assert any("no live lifecycle rule deletes" in note for note in planned.plan["notes"])
    assert run_task("rotate_logs", using=cloud).counts["archives.removed"] == 1
    assert names(cloud, "logs") == ["deep/app.log", "notes.txt"]


def test_old_log_objects_are_purged_below_the_prefix_only(
    cloud: Settings, run_task: RunTask, clock: ManualClock
) -> None:
    put(cloud, "logs", "deep/app.log")
    put(cloud, "logs", "notes.txt")
    outside = objects.at("gs://logs/outside")
    if "app.log" not in [o.name for o in outside.list()]:
        with outside.create("app.log") as sink:
            sink.write(b"x")
    clock.advance(datetime.now(UTC) + timedelta(days=31) - clock.now())
    assert run_task("purge_signals", using=cloud).counts["logs.deleted"] == 1
    assert names(cloud, "logs") == ["notes.txt"]
    assert [o.name for o in outside.list()] == ["app.log"]


def test_mockups_go_to_a_cold_bucket_and_come_back(
    cloud: Settings, run_task: RunTask, db: Database, clock: ManualClock, rows: Rows
) -> None:
    image = bytes(range(256)) * 40_000  # more than one piece of an upload
    put(cloud, "mockups", "a/front.png", image)
    with db.transaction() as connection:
        connection.execute(text("insert into idea (id, title, created_at) values (1, 'i', :at)"), {"at": clock.now()})
        connection.execute(
            text("insert into mockup (idea_id, title, image, created_at) values (1, 'm', 'a/front.png', :at)"),
            {"at": clock.now() - timedelta(days=400)},
        )
    done = run_task("archive_mockups", using=cloud)
    assert (done.outcome, done.error, done.counts["mockup.objects"]) == (Outcome.OK, None, 1)
    assert names(cloud, "mockups") == []
    assert [name.rpartition("/")[2] for name in names(cloud, "cold-storage") if name.endswith(".png")] == ["front.png"]
    assert done.run_id is not None
    now = clock.now()
    back = restore(db.transaction, done.run_id, actor="ann", why="a test", now=now, hold_until=now + timedelta(days=9))
    assert (back.restored, back.equal) == (1, True)
    with objects.at(cloud.bucket("mockups")).open("a/front.png") as stream:
        assert stream.read() == image
