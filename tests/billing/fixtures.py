"""The fixture `world`."""

from collections.abc import Iterator

import pytest

from shared.database import Database
from shared.settings import Settings
from tests.billing.world import World, world_of
from tests.conftest import ManualClock


@pytest.fixture
def world(db: Database, settings: Settings, clock: ManualClock) -> Iterator[World]:
    with world_of(db, settings, clock) as made:
        yield made
