"""Imports go down only: functions -> rooms -> core. Rooms do not know each other, and nothing knows a task."""

from pathlib import Path

import pytest

from shared.manifest import load_all
from tests.house.source import EDGES, ROOT, SHARED, core, imports, rooms, rooms_of

EVERY = sorted((ROOT / "shared").rglob("*.py")) + sorted((ROOT / "functions").rglob("*.py"))


@pytest.mark.parametrize("file", core(), ids=lambda f: f.name)
def test_the_core_imports_no_room(file: Path) -> None:
    assert rooms_of(file) == set()


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_no_other_room(room: str) -> None:
    for file in (SHARED / room).rglob("*.py"):
        assert rooms_of(file) <= {room}, f"{file} imports another room"


@pytest.mark.parametrize("file", EVERY, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_nothing_imports_a_task(file: Path) -> None:
    assert not [name for name in imports(file) if name.split(".")[0] == "functions"]


@pytest.mark.parametrize("task", load_all().values(), ids=lambda t: t.name)
def test_uses_names_exactly_the_rooms_a_task_imports(task: object) -> None:
    found = set().union(*(rooms_of(file) for file in task.folder.glob("*.py")))
    assert found == set(task.uses)
    assert not found & EDGES
