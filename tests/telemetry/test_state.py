"""Hysteresis: what a row of findings makes of a service's state."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.telemetry.probes import Verdict
from shared.telemetry.state import Hysteresis, State, after
from tests.conftest import NOW

RULE = Hysteresis(up_after=2, down_after=3, unknown_after_s=300)
LETTERS = {"u": Verdict.UP, "d": Verdict.DOWN, "?": Verdict.UNKNOWN, "m": None}
STEP = timedelta(seconds=30)


def told(start: str, letters: str) -> list[str]:
    """The states after each finding, half a minute apart."""
    state, found = State(start, NOW, 0, None), []
    for number, letter in enumerate(letters, 1):
        state = after(state, LETTERS[letter], NOW + number * STEP, RULE)
        found.append(state.state)
    return found


@pytest.mark.parametrize(
    ("start", "letters", "states"),
    [
        ("unknown", "u", "up"),
        ("unknown", "dd", "unknown unknown"),
        ("unknown", "ddd", "unknown unknown down"),
        ("up", "ddd", "up up down"),
        ("up", "ddudd", "up up up up up"),
        ("down", "uu", "down up"),
        ("down", "udu", "down down down"),
        ("up", "dd?d", "up up up down"),
        ("up", "dmd", "up maintenance unknown"),
        ("up", "mmu", "maintenance maintenance up"),
        ("down", "mu", "maintenance up"),
        ("down", "mddd", "maintenance unknown unknown down"),
        ("up", "m?", "maintenance unknown"),
        ("up", "??????????", " ".join(["up"] * 10)),
        ("up", "???????????", " ".join(["up"] * 10 + ["unknown"])),
        ("down", "???????????u", " ".join(["down"] * 10 + ["unknown", "up"])),
        ("up", "dd???????????d", " ".join(["up"] * 12 + ["unknown", "unknown"])),
    ],
)
def test_states_follow_only_rows_of_equal_results(start: str, letters: str, states: str) -> None:
    assert " ".join(told(start, letters)) == states


@given(st.text("ud?", max_size=60))
def test_down_takes_three_failures_without_an_answer_between(letters: str) -> None:
    found = told("up", letters)
    for number, state in enumerate(found):
        if state == "down" and (number == 0 or found[number - 1] != "down"):
            assert letters[: number + 1].replace("?", "").endswith("ddd")


@given(st.text("?m", max_size=60))
def test_our_own_trouble_never_calls_anything_down(letters: str) -> None:
    assert "down" not in told("up", letters)


def test_a_finding_that_is_not_newer_changes_nothing() -> None:
    state = State("up", NOW, 5, NOW)
    assert after(state, Verdict.DOWN, NOW, RULE) == state
    assert after(state, Verdict.DOWN, NOW - STEP, RULE) == state
    assert after(state, Verdict.DOWN, NOW + STEP, RULE) == State("up", NOW, -1, NOW + STEP)


def test_a_state_is_stale_only_after_its_time() -> None:
    state = State("up", NOW - STEP, 4, NOW)
    at_the_limit = NOW + timedelta(seconds=300)
    assert after(state, Verdict.UNKNOWN, at_the_limit, RULE) == state
    later = at_the_limit + timedelta(microseconds=1)
    assert after(state, Verdict.UNKNOWN, later, RULE) == State("unknown", later, 0, NOW)
