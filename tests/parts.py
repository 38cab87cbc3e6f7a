"""Parts a test needs from the machine: where one is missing the test is not run, and says so by name."""

import os
from typing import NoReturn

import pytest


def missing(part: str, remedy: str) -> NoReturn:
    """End the test as not run because `part` is missing. With CI=true that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"not run: {part} is missing, and CI=true allows no missing part: {remedy}")
    pytest.skip(f"not run: {part} is missing: {remedy}")
