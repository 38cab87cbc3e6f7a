"""The generated parts of the documentation follow from the manifests."""

import pytest

from shared.errors import ConfigurationError
from shared.keeper.docs import between, generated
from shared.manifest import ROOT, load_all


def test_every_generated_part_is_up_to_date() -> None:
    for path, text in generated().items():
        assert path.exists(), f"{path.name}: run `keeper docs`"
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `keeper docs`"


def test_no_page_is_left_of_a_task_that_is_gone() -> None:
    assert {path.stem for path in (ROOT / "docs" / "tasks").glob("*.md")} == {"README", *load_all()}


def test_what_stands_around_the_markers_is_kept() -> None:
    text = "before\n<!-- x -->\nold\n<!-- /x -->\nafter\n"
    assert between(text, "x", "new") == "before\n<!-- x -->\nnew\n<!-- /x -->\nafter\n"
    with pytest.raises(ConfigurationError, match="markers"):
        between("no markers", "x", "new")
