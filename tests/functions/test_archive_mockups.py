"""archive_mockups: no image without its copy, no row without its archive, and all of it back again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared import holds
from shared.clock import parse_rfc3339
from shared.database import Database
from shared.errors import Outcome
from shared.manifest import FUNCTIONS
from shared.retention.restore import restore
from shared.settings import Settings
from tests.conftest import NOW, ManualClock, RunTask
from tests.killing import Killer, killer

Rows = Callable[..., list[Any]]
LIMIT, TICK = datetime(2025, 6, 15, 12, tzinfo=UTC), timedelta(microseconds=1)  # twelve months before NOW
SLOT = "2026-06-15T12:00:00Z"


class World:
    """Mockups with their images, and where they go."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self.db = db
        self.images, self.cold = (Path(settings.bucket(b)) for b in ("mockups", "cold-storage"))
        with db.transaction() as connection:
            connection.execute(
                text("insert into idea (id, title, created_at) values (1, 'i', :at) on conflict do nothing"),
                {"at": NOW},
            )

    def mockup(self, image: str, *, at: datetime = LIMIT - TICK, content: str | None = "", listed: bool = False) -> int:
        """A mockup drawn at `at`, its image (None: there is none), and a listing that shows it; its id."""
        with self.db.transaction() as connection:
            number: int = connection.execute(
                text(
                    "insert into mockup (idea_id, title, image, created_at)"
                    " values (1, 'Zoë''s \"m\", 1', :image, :at) returning id"
                ),
                {"image": image, "at": at},
            ).scalar_one()
            if listed:
                connection.execute(
                    text("insert into listing (mockup_id, marketplace, created_at) values (:id, 'etsy', :at)"),
                    {"id": number, "at": at},
                )
        if content is not None:
            file = self.images / image
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content or f"image of {image}")
        return number

    def left(self) -> list[str]:
        return sorted(f.relative_to(self.images).as_posix() for f in self.images.rglob("*") if f.is_file())

    def copies(self) -> list[str]:
        """The names of the images in cold storage."""
        # What a folder's store was writing when it was killed is no object; a bucket keeps nothing of it.
        files = (f for f in self.cold.rglob("*") if f.is_file() and not f.name.startswith(".partial-"))
        kept = (f.relative_to(self.cold).parts for f in files)
        return sorted("/".join(parts[5:]) for parts in kept if len(parts) > 4)


@pytest.fixture
def world(db: Database, settings: Settings) -> World:
    return World(db, settings)


def _ids(rows: Rows) -> list[int]:
    return [r.id for r in rows("select id from mockup order by id")]


def test_mockups_exactly_twelve_months_old_are_kept(world: World, rows: Rows, run_task: RunTask) -> None:
    world.mockup("old/front.png")
    kept = [world.mockup(f"{n}/front.png", at=at) for n, at in enumerate((LIMIT, LIMIT + TICK, NOW))]
    result = run_task("archive_mockups")
    assert (result.outcome, result.error) == (Outcome.OK, None)
    assert result.counts == {"mockup.deleted": 1, "mockup.archived": 1, "mockup.objects": 1, "mockup.missing": 0}
    assert _ids(rows) == kept
    assert world.left() == ["0/front.png", "1/front.png", "2/front.png"]
    assert world.copies() == ["old/front.png"]
    assert rows("select 1 from groundskeeper.pending_object") == []
    assert run_task("archive_mockups").counts == {"mockup.deleted": 0, "mockup.missing": 0}


def test_two_images_of_one_name_never_collide(world: World, run_task: RunTask, rows: Rows) -> None:
    world.mockup("a/front.png", content="one")
    world.mockup("b/front.png", content="two")
    assert run_task("archive_mockups").counts["mockup.archived"] == 2
    world.mockup("a/front.png", content="three")  # a new mockup, the same name
    assert run_task("archive_mockups").counts["mockup.archived"] == 1
    contents = {f.read_text() for f in world.cold.rglob("front.png")}
    assert contents == {"one", "two", "three"}
    assert world.left() == []


def test_a_missing_image_is_reported_and_its_row_kept_unless_told_otherwise(
    world: World, rows: Rows, run_task: RunTask, tmp_path: Path
) -> None:
    lost = [world.mockup(image, content=None) for image in ("lost.png", "../../etc/passwd", "", "/etc/passwd")]
    link = world.mockup("link.png", content=None)
    world.images.mkdir(parents=True, exist_ok=True)
    (world.images / "link.png").symlink_to("/etc/hostname")
    world.mockup("there.png")
    result = run_task("archive_mockups")
    assert result.outcome is Outcome.OK
    assert (result.counts["mockup.missing"], result.counts["mockup.deleted"]) == (5, 1)
    assert _ids(rows) == [*lost, link]
    assert world.copies() == ["there.png"]
    told = _changed(tmp_path, lambda rule: rule["objects"].update(missing="delete"))
    assert run_task("archive_mockups", functions=told).counts["mockup.deleted"] == 5
    assert _ids(rows) == []
    assert Path("/etc/hostname").exists()


def _changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """archive_mockups with another rule; the folder of tasks."""
    import yaml

    shutil.copytree(
        FUNCTIONS / "archive_mockups", folder / "archive_mockups", ignore=shutil.ignore_patterns("__pycache__")
    )
    declared = folder / "archive_mockups" / "task.yaml"
    document = yaml.safe_load(declared.read_text())
    change(document["params"]["rules"][0])
    declared.write_text(json.dumps(document))
    return folder


def test_a_mockup_that_a_listing_shows_stays_and_the_plan_says_so(world: World, rows: Rows, run_task: RunTask) -> None:
    listed = world.mockup("a.png", listed=True)
    world.mockup("b.png")
    planned = run_task("archive_mockups", planning=True)
    assert planned.plan is not None
    assert [i["count"] for i in planned.plan["items"]] == [1]
    assert any(
        "1 expired row kept for rows of public.listing that point there" in note for note in planned.plan["notes"]
    )
    assert run_task("archive_mockups").counts["mockup.deleted"] == 1
    assert _ids(rows) == [listed]
    assert world.left() == ["a.png"]


def test_an_image_that_another_row_names_stays(world: World, rows: Rows, run_task: RunTask) -> None:
    world.mockup("shared.png")
    young = world.mockup("shared.png", at=NOW)
    assert run_task("archive_mockups").counts["mockup.deleted"] == 1
    assert (_ids(rows), world.left(), world.copies()) == ([young], ["shared.png"], ["shared.png"])
    assert rows("select 1 from groundskeeper.pending_object") == []


def test_what_was_archived_comes_back_with_its_images_equal_and_held(
    world: World, rows: Rows, run_task: RunTask, db: Database
) -> None:
    for n in range(7):
        world.mockup(f"{n}/front.png", at=LIMIT - n * TICK - TICK, content=f"image {n}")
    before, images = rows("select * from mockup order by id"), {f: (world.images / f).read_text() for f in world.left()}
    done = run_task("archive_mockups")
    assert (world.left(), _ids(rows)) == ([], [])
    assert done.run_id is not None
    for _ in range(2):
        back = restore(
            db.transaction, done.run_id, actor="ann", why="a test", now=NOW, hold_until=NOW + timedelta(days=9)
        )
        assert (back.conflicts, back.equal) == ((), True)
        assert rows("select * from mockup order by id") == before
        assert {f: (world.images / f).read_text() for f in world.left()} == images
    again = run_task("archive_mockups")
    assert (again.counts["mockup.deleted"], again.counts["mockup.held"]) == (0, 7)
    assert len(world.left()) == 7


def test_an_image_of_another_content_is_told_when_a_mockup_comes_back(
    world: World, run_task: RunTask, db: Database
) -> None:
    world.mockup("a.png", content="mine")
    done = run_task("archive_mockups")
    assert done.run_id is not None
    (world.images / "a.png").write_text("somebody else's")
    back = restore(db.transaction, done.run_id, actor="ann", why="a test", now=NOW, hold_until=NOW + timedelta(days=9))
    assert (back.restored, back.equal) == (1, False)
    assert (world.images / "a.png").read_text() == "somebody else's"
    assert "replaced by another" in back.conflicts[0].why


def test_expired_archives_are_destroyed_with_their_images(
    world: World, run_task: RunTask, clock: ManualClock, rows: Rows
) -> None:
    world.mockup("a.png")
    assert run_task("archive_mockups").outcome is Outcome.OK
    clock.advance(timedelta(days=1826))
    assert run_task("archive_mockups").counts["archives.destroyed"] == 1
    assert [f for f in world.cold.rglob("*") if f.is_file()] == []
    assert len(rows("select 1 from groundskeeper.archive_manifest where destroyed_at is not null")) == 1


def test_an_image_that_cannot_be_read_keeps_only_its_own_row(
    world: World, rows: Rows, run_task: RunTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = world.mockup("sealed.png")
    world.mockup("open.png", at=LIMIT - 2 * TICK)
    world.mockup("other.png", at=LIMIT - TICK)
    plain = Path.open

    def opened(path: Path, *given: Any, **options: Any) -> Any:
        # root may read anything: what a sealed file answers is said here
        if path.name == "sealed.png":
            raise PermissionError(13, "Permission denied")
        return plain(path, *given, **options)

    monkeypatch.setattr(Path, "open", opened)
    result = run_task("archive_mockups")
    assert result.outcome is Outcome.PARTIAL
    assert "sealed.png could not be archived, so its row stays: Permission denied" in (result.error or "")
    assert (result.counts["mockup.deleted"], _ids(rows), world.left()) == (2, [sealed], ["sealed.png"])


def test_a_held_mockup_stays_with_its_image(
    world: World, rows: Rows, run_task: RunTask, db: Database, clock: ManualClock
) -> None:
    number = world.mockup("a.png")
    with db.transaction() as connection:
        holds.add(connection, reason="case 1", by="ann", now=clock.now(), table="mockup")
    assert run_task("archive_mockups").counts == {"mockup.deleted": 0, "mockup.held": 1, "mockup.missing": 0}
    assert (_ids(rows), world.left()) == ([number], ["a.png"])


def test_cold_storage_is_where_its_variable_says(
    world: World, run_task: RunTask, settings: Settings, tmp_path: Path
) -> None:
    world.mockup("a.png")
    cold = tmp_path / "freezer"
    using = replace(settings, environ={**settings.environ, "COLD_STORAGE_PATH": str(cold)})
    assert run_task("archive_mockups", using=using).counts["mockup.archived"] == 1
    assert len([f for f in cold.rglob("*") if f.is_file()]) == 3
    assert not world.cold.exists()


def _arrange(world: World, rows: Rows) -> None:
    shutil.rmtree(world.cold, ignore_errors=True)
    shutil.rmtree(world.images, ignore_errors=True)
    with world.db.transaction() as connection:
        connection.execute(
            text("""truncate mockup, groundskeeper.pending_object, groundskeeper.archive_manifest,
                             groundskeeper.task_run, groundskeeper.plan restart identity cascade""")
        )
    for n in range(3):
        world.mockup(f"{n}/front.png", at=LIMIT - n * TICK - TICK)
    world.mockup("lost.png", content=None)
    world.mockup("young.png", at=NOW)


def _state(world: World, rows: Rows) -> dict[str, Any]:
    known = {r.archive_id for r in rows("select archive_id from groundskeeper.archive_manifest")}
    files = [f.relative_to(world.cold).parts for f in world.cold.rglob("*") if f.is_file()]
    return {
        "rows": _ids(rows),
        "images": world.left(),
        "copies": world.copies(),
        "notes": len(rows("select 1 from groundskeeper.pending_object")),
        "archived": sum(r.items for r in rows("select items from groundskeeper.archive_manifest")),
        "unknown": [
            f for f in files if not f[-1].startswith(".partial-") and f[3].partition(".")[0] not in map(str, known)
        ],
        "counts": [r.counts for r in rows("select counts from groundskeeper.task_run")],
    }


def _kill_each(kill: Killer, world: World, rows: Rows, *, every: int, start: int) -> int:
    _arrange(world, rows)
    undisturbed = kill.run(slot=SLOT, now=SLOT)
    assert (undisturbed.outcome, undisturbed.killed) == ("ok", False), undisturbed.error
    wanted = _state(world, rows)
    assert (wanted["archived"], wanted["images"], wanted["unknown"]) == (3, ["young.png"], [])
    for step in range(start, undisturbed.steps + 1, every):
        _arrange(world, rows)
        assert kill.run(slot=SLOT, step=step, now=SLOT).killed, step
        rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")
        again = kill.run(slot=SLOT, now=SLOT)
        assert again.outcome in ("ok", "skipped"), (step, again)
        assert _state(world, rows) == wanted, step
    return undisturbed.steps


def test_killed_at_some_steps_neither_image_nor_row_is_lost(world: World, rows: Rows, settings: Settings) -> None:
    assert parse_rfc3339(SLOT) == NOW
    with killer(dict(settings.environ), FUNCTIONS / "archive_mockups") as kill:
        _kill_each(kill, world, rows, every=37, start=43)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_killed_before_every_step_neither_image_nor_row_is_lost(world: World, rows: Rows, settings: Settings) -> None:
    with killer(dict(settings.environ), FUNCTIONS / "archive_mockups") as kill:
        assert _kill_each(kill, world, rows, every=1, start=1) > 60
