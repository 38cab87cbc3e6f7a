"""Parameters: types from the dataclass, values from YAML, one lookup of the environment."""

from dataclasses import dataclass
from typing import Literal

import pytest

from shared.params import build, resolve, variables
from shared.strict_yaml import ManifestError


@dataclass(frozen=True)
class Rule:
    table: str
    keep_days: int
    where: str = ""


@dataclass(frozen=True)
class Params:
    rate: float
    rules: tuple[Rule, ...]
    mode: Literal["tick", "doorbell"]
    label: str | None = None


GOOD = {"rate": 2, "rules": [{"table": "a", "keep_days": 30}], "mode": "tick"}


def test_values_become_the_records_the_task_asks_for() -> None:
    assert build(Params, GOOD, "p") == Params(2.0, (Rule("a", 30),), "tick")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate": "2"}, "p.rate: expected float, got '2'"),
        ({"rate": True}, "p.rate: expected float, got True"),
        ({"mode": "loud"}, "p.mode: expected one of tick, doorbell, got 'loud'"),
        ({"rules": [{"table": "a", "keep_days": "30"}]}, r"p.rules\[0\].keep_days: expected int, got '30'"),
        ({"rules": [{"table": "a"}]}, r"p.rules\[0\].keep_days: is missing"),
        ({"rules": {}}, "p.rules: expected a list"),
        ({"speed": 1}, "p.speed: is not a parameter here"),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(change: dict[str, object], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        build(Params, {**GOOD, **change}, "p")


def test_a_variable_replaces_its_default_and_takes_its_type() -> None:
    declared = {"days": {"env": "S3_RETENTION_DAYS", "default": 90}}
    assert resolve(declared, {}, "p") == {"days": 90}
    assert resolve(declared, {"S3_RETENTION_DAYS": ""}, "p") == {"days": 90}
    assert resolve(declared, {"S3_RETENTION_DAYS": "30"}, "p") == {"days": 30}
    with pytest.raises(ManifestError, match=r"p.days \(from \$S3_RETENTION_DAYS\): expected int, got 'thirty'"):
        resolve(declared, {"S3_RETENTION_DAYS": "thirty"}, "p")


def test_the_variables_of_parameters_are_found_wherever_they_stand() -> None:
    params = {"a": {"env": "A", "default": 1}, "b": [{"c": {"env": "C", "default": ""}}, ({"env": "D", "default": 0},)]}
    assert list(variables(params)) == ["A", "C", "D"]
