"""Where a parameter's place is: a declared bucket, a location, and in the cloud never a folder."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shared import objects
from shared.context import Context
from shared.errors import ConfigurationError


def place(given: str, *, in_cloud: bool = False) -> objects.Objects:
    """`given` as a task sees it that declares the bucket cold-storage."""
    asked: Any = SimpleNamespace(
        task=SimpleNamespace(buckets=(SimpleNamespace(bucket="cold-storage"),)),
        objects=lambda name: objects.at("/data/cold" if name == "cold-storage" else name),
        _settings=SimpleNamespace(in_cloud=in_cloud),
    )
    return Context.place(cast(Context, asked), given)


@pytest.mark.parametrize(
    ("given", "location"),
    [
        ("cold_storage", "/data/cold"),
        ("cold-storage", "/data/cold"),
        ("elsewhere", "elsewhere"),
        ("/mnt/cold", "/mnt/cold"),
    ],
)
def test_a_place_is_a_declared_bucket_or_a_location(given: str, location: str) -> None:
    assert Path(place(given).location) == Path(location)


@pytest.mark.parametrize("given", ["cold_storage", "/mnt/cold", "./cold"])
def test_a_folder_is_no_place_in_the_cloud(given: str) -> None:
    with pytest.raises(ConfigurationError, match="instance's memory"):
        place(given, in_cloud=True)
