"""Live lifecycle rules against the declared ones, and what Terraform makes of buckets.yaml."""

from typing import Any, cast

import pytest
import yaml

from shared.manifest import FUNCTIONS, ROOT
from shared.objects import Objects
from shared.storage.lifecycle import Deletes, differences, live


class Place:
    """A bucket's prefix with these live rules, as Cloud Storage's JSON has them."""

    def __init__(self, location: str, *conditions: dict[str, Any]) -> None:
        self.location = location
        self._conditions = conditions

    def lifecycle(self) -> list[dict[str, Any]]:
        return [{"action": {"type": "Delete"}, "condition": c} for c in self._conditions]


def _live(location: str, *conditions: dict[str, Any]) -> set[Deletes] | None:
    found = live(cast(Objects, Place(location, *conditions)))
    return None if found is None else set(found)


@pytest.mark.parametrize(
    ("location", "condition", "expected"),
    [
        ("gs://b", {"age": 90}, {Deletes(age_days=90)}),
        ("gs://b", {"daysSinceCustomTime": 1}, {Deletes(marked_days=1)}),
        ("gs://b", {"age": 7, "matchesPrefix": ["archive/"]}, {Deletes("archive/", 7)}),
        ("gs://b/logs", {"age": 7, "matchesPrefix": ["logs/archive/"]}, {Deletes("archive/", 7)}),
        ("gs://b/logs", {"age": 7}, {Deletes(age_days=7)}),
        ("gs://b/logs", {"age": 7, "matchesPrefix": ["other/"]}, set()),
        ("gs://b", {"daysSinceNoncurrentTime": 7}, set()),
        ("gs://b", {"age": 7, "matchesSuffix": [".tmp"]}, set()),
    ],
)
def test_what_a_live_rule_deletes(location: str, condition: dict[str, Any], expected: set[Deletes]) -> None:
    assert _live(location, condition) == expected


def test_a_rule_of_another_kind_deletes_nothing() -> None:
    place = Place("gs://b")
    place.lifecycle = lambda: [  # type: ignore[method-assign]
        {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 1}}
    ]
    assert live(cast(Objects, place)) == frozenset()


def test_rules_that_are_missing_or_too_many_are_told() -> None:
    found = _live("gs://b", {"age": 30})
    assert found is not None
    assert differences([Deletes(age_days=90)], frozenset(found)) == [
        "no live rule deletes all objects 90 days old: apply terraform",
        "a live rule deletes all objects 30 days old and is not declared: apply terraform",
    ]
    assert differences([Deletes(age_days=30)], frozenset(found)) == []


def _buckets() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "terraform" / "data" / "buckets.yaml").read_text())
    return found


def _params(task: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FUNCTIONS / task / "task.yaml").read_text())["params"]
    return found


def test_purge_objects_declares_what_terraform_makes() -> None:
    bucket = _buckets()["general"]
    wanted = [{"age_days": bucket["delete_after_days"]}] + ([{"marked_days": 1}] if bucket["marked"] else [])
    assert _params("purge_objects")["lifecycle"] == wanted


def test_rotate_logs_keeps_archives_as_long_as_terraforms_rule() -> None:
    (rule,) = _buckets()["logs"]["rules"]
    rotation = _params("rotate_logs")["rotation"]
    assert rule == {"prefix": f"{rotation['archive']}/", "delete_after_days": rotation["keep_days"]}


def test_purge_signals_keeps_logs_as_long_as_terraforms_rule() -> None:
    assert _params("purge_signals")["logs"]["keep_days"] == _buckets()["logs"]["delete_after_days"]
