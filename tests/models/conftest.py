"""Tests of models need torch: `make setup` installs it where there is a build for this machine."""

import importlib.util

import pytest

from tests.parts import missing


@pytest.fixture(autouse=True, scope="session")
def _torch() -> None:
    if importlib.util.find_spec("torch") is None:
        missing("torch", "make setup, where pip has a CPU build")
