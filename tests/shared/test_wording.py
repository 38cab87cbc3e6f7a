"""Numbers of things as people say them."""

from shared.wording import counted


def test_one_of_a_thing_is_no_plural_however_its_unit_is_written() -> None:
    assert [counted(n, "row") for n in (0, 1, 2, 1000)] == ["0 rows", "1 row", "2 rows", "1,000 rows"]
    assert [counted(n, "destroyed_keys") for n in (1, 3)] == ["1 destroyed_key", "3 destroyed_keys"]
