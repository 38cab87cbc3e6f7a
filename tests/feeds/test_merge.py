"""What a copy says many times over: accepted each time, staged only where it says more than before."""

import random
from datetime import UTC, datetime

import pytest

from shared.feeds import merge
from shared.feeds.allowed import Allowed
from shared.feeds.formats import Record
from shared.feeds.indicators import Reader
from shared.feeds.merge import Judge, Tally

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize("remembered", [1, 7, 1 << 15])
def test_repeats_are_collapsed_to_what_the_merge_would_keep(monkeypatch: pytest.MonkeyPatch, remembered: int) -> None:
    monkeypatch.setattr(merge, "_LATELY", remembered)
    rng = random.Random(7)
    given = [(f"host{rng.randrange(20)}.example.com", rng.randrange(101), rng.randrange(1, 15)) for _ in range(2000)]
    entries = [
        Record(number, name, None, sure, None, None, None, None, f"2026-06-{day:02} 10:00:00")
        for number, (name, sure, day) in enumerate(given)
    ]
    judge, tally = Judge("feed", Reader(), Allowed((), (), ()), 50, {"domain": 90}, current=False), Tally()
    lines = [line.split("\t") for line in judge.lines(entries, NOW, tally)]
    best: dict[str, tuple[int, str]] = {}
    for line in lines:
        best[line[2]] = max(best.get(line[2], (-1, "")), (int(line[3]), line[8][:10]))
    assert best == {
        name: max((sure, f"2026-06-{day:02}") for other, sure, day in given if other == name) for name, *_ in given
    }
    assert (tally.accepted, tally.entries) == (2000, 2000)
    assert remembered < 20 or len(lines) < 300
