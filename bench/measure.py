"""What every benchmark shares: alternating rounds, medians with their spread, ratios against goals, one report."""

import os
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Series:
    """Repeated measurements of one thing, in `unit`."""

    what: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def document(self) -> dict[str, Any]:
        """The series as the report's JSON shows it."""
        return {
            "what": self.what,
            "unit": self.unit,
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "n": len(self.values),
        }


def alternate(
    ways: Mapping[str, Callable[[], float]], *, unit: str, rounds: int = 5, uncounted: int = 1
) -> dict[str, Series]:
    """Measure each way in turn, `rounds` times over, after `uncounted` rounds, so that drift hits all alike."""
    values: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(uncounted + rounds):
        for name, way in ways.items():
            value = way()
            if round_ >= uncounted:
                values[name].append(value)
    return {name: Series(name, unit, tuple(v)) for name, v in values.items()}


@dataclass(frozen=True)
class Ratio:
    """One figure against its goal: met when at most (or, with `least`, at least) the goal."""

    value: float
    goal: float
    least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.goal if self.least else self.value <= self.goal


def report(name: str, series: list[Series], ratios: Mapping[str, Ratio]) -> dict[str, Any]:
    """The benchmark's JSON document (schema: docs/schemas/bench.json)."""
    return {
        "schema_version": 1,
        "name": name,
        "machine": {
            "python": platform.python_version(),
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
        "results": [s.document() for s in series],
        "ratios": {key: {"value": r.value, "goal": r.goal, "met": r.met} for key, r in ratios.items()},
    }
