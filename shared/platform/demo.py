"""The demo: a small SaaS with a past, old enough that every purge has work, and a declared set of hostile rows.

Nobody in it exists: addresses are of example.com, networks of RFC 5737 and RFC 3849. The same `now` gives the same
rows. It is never meant for a platform of somebody's own: a database with accounts is left as it is.
"""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, select, text

from shared.platform import (
    demo_accounts,
    demo_hostile,
    demo_products,
    demo_security,
    demo_telemetry,
    demo_trail,
    demo_windows,
)
from shared.platform.accounts import user_profile
from shared.platform.demo_world import ROWS_A_DAY, TELEMETRY_DAYS, World
from shared.platform.partitions import create_ahead

PARTITIONS_AHEAD_DAYS = 7
_SEED = 20260101

_PARTS: tuple[Callable[[Connection, World], dict[str, int]], ...] = (
    demo_accounts.load,
    demo_telemetry.load,
    demo_windows.load,
    demo_trail.load,
    demo_security.load,
    demo_products.load,
)

# Their rows come with numbers, for their children to name; later rows go on from there.
_NUMBERED = ("status_page", "monitored_service", "idea", "mockup")


def seed(
    engine: Engine, now: datetime, objects_dir: Path | None = None, *, rows_a_day: int = ROWS_A_DAY
) -> dict[str, int]:
    """Fill the platform's empty tables in one transaction; the rows of each table loaded.

    Nothing happens, and nothing is returned, where there are accounts already: so it may be called at every start.
    `rows_a_day` is about how much raw telemetry each day has. With `objects_dir`, also the objects the rows speak of,
    below a folder a bucket (mockups, logs, general).
    Killed anywhere, the tables stay empty and the next call begins anew.
    """
    with engine.begin() as connection:
        # Two at once take turns, and the second finds accounts.
        connection.execute(text("lock table user_profile in share row exclusive mode"))
        if connection.execute(select(user_profile.c.account_id).limit(1)).first() is not None:
            return {}
        counts = _fill(connection, now, rows_a_day)
        if objects_dir is not None:
            demo_products.write_objects(objects_dir, now)  # the same files again when a killed seed is repeated
    return counts


def _fill(connection: Connection, now: datetime, rows_a_day: int) -> dict[str, int]:
    create_ahead(connection, now, PARTITIONS_AHEAD_DAYS, since=now - timedelta(days=TELEMETRY_DAYS + 1))
    world = World.of(now, random.Random(_SEED), rows_a_day)  # noqa: S311 - the same demo everywhere, nothing secret
    counts: dict[str, int] = {}
    for part in _PARTS:
        _add(counts, part(connection, world))
    for table in _NUMBERED:
        connection.execute(
            text(f"select setval(pg_get_serial_sequence('{table}', 'id'), (select max(id) from {table}))")  # noqa: S608
        )
    _add(counts, demo_hostile.load(connection, world))
    return dict(sorted(counts.items()))


def _add(counts: dict[str, int], more: dict[str, int]) -> None:
    for table, count in more.items():
        counts[table] = counts.get(table, 0) + count
