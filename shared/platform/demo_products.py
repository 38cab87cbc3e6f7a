"""The demo's ideas, signals, mockups and listings, its training runs, and the objects these speak of."""

import os
import struct
import zlib
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection

from shared.platform.demo_world import World
from shared.platform.learning import training_run
from shared.platform.load import copy_rows
from shared.platform.products import idea, listing, mockup, signal

_IDEAS, _SIGNALS, _MOCKUPS, _RUNS = 60, 2000, 80, 30
_MOCKUP_DAYS = 620


def load(connection: Connection, world: World) -> dict[str, int]:
    """Signals of sixty days, mockups of twenty months with a listing for every third, a month of training runs."""
    return {
        "idea": _ideas(connection, world),
        "signal": _signals(connection, world),
        "mockup": _mockups(connection, world),
        "listing": _listings(connection, world),
        "training_run": _runs(connection, world),
    }


def write_objects(folder: Path, now: datetime) -> None:
    """The mockups' images, application logs of sixty days and old general objects, with their times."""
    for number in range(1, _MOCKUPS + 1):
        _write(folder / "mockups" / image_of(number), _png(number), _drawn(now, number))
    _write(folder / "mockups" / "leap/front.png", _png(0), now)
    for number in range(5):  # drawn and never saved: no mockup names them
        _write(folder / "mockups" / f"drafts/{number}.png", _png(number), now - timedelta(days=20 * number))
    for days in range(60):
        at = now - timedelta(days=days)
        text = f"{at:%Y-%m-%d}T00:00:00Z INFO served {1000 + days} requests\n" * 20
        _write(folder / "logs" / f"app-{at:%Y%m%d}.log", text.encode(), at)
    for days in range(10, 60, 10):  # rotated by somebody else: no file rotate_logs would take, and purge_signals does
        at = now - timedelta(days=days)
        _write(folder / "logs" / "worker" / f"worker.log.{days // 10}", b"INFO worked\n", at)
    for number in range(60):
        _write(
            folder / "general" / f"exports/export-{number:03}.csv", b"id,name\n" * 50, now - timedelta(days=number * 3)
        )


def image_of(number: int) -> str:
    """The object name of a mockup's image; names repeat, their folders do not."""
    return f"idea-{number % _IDEAS + 1}/{number // _IDEAS}/front.png"


def _drawn(now: datetime, number: int) -> datetime:
    return now - timedelta(days=number * _MOCKUP_DAYS / _MOCKUPS)


def _write(file: Path, content: bytes, at: datetime) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.utime(file, (at.timestamp(), at.timestamp()))


def _png(number: int) -> bytes:
    """An eight by eight image in one colour of its own."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = bytes((number * 3 % 256, number * 7 % 256, number * 11 % 256))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress((b"\0" + colour * 8) * 8))
        + chunk(b"IEND", b"")
    )


def _ideas(connection: Connection, world: World) -> int:
    rows = [(n, f"Idea {n}", "A poster nobody asked for", world.past(700)) for n in range(1, _IDEAS + 1)]
    return copy_rows(connection, idea, "id title description created_at", rows)


def _signals(connection: Connection, world: World) -> int:
    rng = world.rng
    rows = [
        (rng.randint(1, _IDEAS), rng.choice(("search", "social", "sales")), round(rng.random(), 4), {"rank": n}, at)
        for n, at in enumerate(sorted(world.past(60) for _ in range(_SIGNALS)))
    ]
    return copy_rows(connection, signal, "idea_id source strength content created_at", rows)


def _mockups(connection: Connection, world: World) -> int:
    rows = [(n, n % _IDEAS + 1, f"Mockup {n}", image_of(n), _drawn(world.now, n)) for n in range(1, _MOCKUPS + 1)]
    return copy_rows(connection, mockup, "id idea_id title image created_at", rows)


def _listings(connection: Connection, world: World) -> int:
    rng = world.rng
    rows = [
        (n, "etsy", f"L{n:05}", rng.choice(("draft", "live", "ended")), _drawn(world.now, n) + timedelta(days=1))
        for n in range(3, _MOCKUPS + 1, 3)
    ]
    return copy_rows(connection, listing, "mockup_id marketplace external_id state created_at", rows)


def _runs(connection: Connection, world: World) -> int:
    rng, rows = world.rng, []
    for days in range(_RUNS, 0, -1):
        start = world.now - timedelta(days=days)
        gain = rng.gauss(0.0, 0.01)
        rows.append(
            (
                world.uuid(),
                ("sla", "threat", "ces")[days % 3],
                f"demo-{days:03}",
                "promoted" if gain > 0.01 else "kept",
                "better than every baseline" if gain > 0.01 else "not better than the champion",
                {"brier": round(0.09 - gain, 4)},
                {"last value": 0.11, "champion": 0.09},
                f"{days:064x}",
                "demo",
                start,
                start + timedelta(minutes=4),
            )
        )
    columns = "id model version decision reason metrics baselines data_hash code_version started_at finished_at"
    return copy_rows(connection, training_run, columns, rows)
