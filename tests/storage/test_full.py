"""200,000 objects: the right ones gone, whatever order they lie in."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.database import Database
from shared.errors import Outcome
from shared.settings import Settings
from tests.conftest import NOW, RunTask

Rows = Callable[..., list[Any]]
COUNT = 200_000


@pytest.mark.full
@pytest.mark.timeout(600)
def test_of_200_000_objects_exactly_the_due_unnamed_and_free_ones_go(
    settings: Settings, db: Database, rows: Rows, run_task: RunTask
) -> None:
    folder = Path(settings.bucket("mockups"))
    old, young = (NOW - timedelta(days=31)).timestamp(), (NOW - timedelta(days=29)).timestamp()
    for number in range(COUNT):
        place = folder / f"{number // 1000:03}"
        if number % 1000 == 0:
            place.mkdir(parents=True)
        file = place / f"{number:06}.png"
        file.touch()
        os.utime(file, (old if number % 2 else young,) * 2)
    # Of the old ones (odd numbers) every hundredth and first is named by a row.
    rows("insert into idea (id, title, created_at) values (1, 'i', :at) returning 1", at=NOW)
    rows(
        """insert into mockup (idea_id, title, image, created_at)
           select 1, 'm', to_char(n / 1000, 'FM000') || '/' || to_char(n, 'FM000000') || '.png', :at
             from generate_series(1, :count - 1, 100) n returning 1""",
        at=NOW,
        count=COUNT,
    )
    due = set(range(1, COUNT, 2)) - set(range(1, COUNT, 100))
    result = run_task("purge_objects")
    assert (result.outcome, result.error) == (Outcome.OK, None)
    assert result.counts["orphan_images.deleted"] == len(due) == 98_000
    left = {int(f.stem) for f in folder.rglob("*.png")}
    assert left == set(range(COUNT)) - due
