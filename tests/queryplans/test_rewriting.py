"""Statements taken apart and put together again: nothing lost, no value kept, parameters where they may stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.queryplans.lexer import has_plan, kind_of, masked, tokens
from shared.queryplans.rewriting import plannable, supposing


@given(st.text(max_size=200))
def test_tokens_are_the_whole_text(sql: str) -> None:
    assert "".join(token.text for token in tokens(sql)) == sql


# Beginnings and ends of everything that has an end, to be put together in any order.
_PIECES = (
    "select",
    "$1",
    "'it''s'",
    "E'a\\'b'",
    "$$x$$",
    "$t$",
    '"c',
    'd"',
    "/*",
    "*/",
    "--",
    "\n",
    "(",
    "::",
    "1.5e3",
    "é",
)


@given(st.lists(st.sampled_from(_PIECES)))
def test_masking_twice_masks_nothing_more(parts: list[str]) -> None:
    once = masked(" ".join(parts))
    assert masked(once) == once


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("select * from t where email = 'ann@example.com' and n = 42", "select * from t where email = ? and n = ?"),
        ("/* user=ann */ select 1 -- request 7\n", "select ?"),
        ("select E'it\\'s', $$ secret $$, $x$ sec$ret $x$, U&'\\0061'", "select ?, ?, ?, ?"),
        ('select "it\'s a column", $1 from t2', 'select "it\'s a column", $1 from t2'),
        ("select '", "select '"),
    ],
)
def test_values_and_comments_are_not_kept(sql: str, shown: str) -> None:
    assert masked(sql) == shown


@pytest.mark.parametrize(
    ("sql", "rewritten"),
    [
        ("now() - interval $1", "now() - $1::interval"),
        ("interval $1 day", "$1::interval day"),
        ("interval(3) $1", "$1::interval(3)"),
        ("at > TIMESTAMP WITH TIME ZONE $2", "at > $2::timestamp with time zone"),
        ("date $1, double precision $2", "$1::date, $2::double precision"),
        ("timestamp /* why */ $1", "$1::timestamp"),
        ("extract($1 from at)", 'pg_catalog."extract"($1,  at)'),
        ("x::interval, t.date, '$1', \"date\"", "x::interval, t.date, '$1', \"date\""),
        ("limit $1 offset $2", "limit $1 offset $2"),
        ("x in ($1 /*, ... */)", "x in ($1 /*, ... */)"),
        ("-- date $1\nselect $1", "-- date $1\nselect $1"),
    ],
)
def test_a_parameter_that_stands_for_a_literal_becomes_a_cast(sql: str, rewritten: str) -> None:
    assert plannable(sql) == rewritten


def test_a_type_is_supposed_only_where_one_is_missing() -> None:
    unknown = "could not determine data type of parameter $1"
    assert supposing("select $1 is null", unknown)[0] == "select $1::text is null"
    assert supposing("select $1::text is null", unknown) == []
    sums = supposing("select $1 + $2, a + $3", "operator is not unique: unknown + unknown")
    assert sums[:2] == ["select $1::numeric + $2::numeric, a + $3", "select $1::int + $2::int, a + $3"]
    ambiguous = "function f(unknown, unknown) is not unique"
    assert supposing("select f($1, g($2)), $3", ambiguous)[0] == "select f($1::int, g($2)), $3"
    assert supposing("select g($1)", ambiguous) == []


@pytest.mark.parametrize(
    "sql", ["select 1", " ( (/*x*/ TABLE t))", "With x as (select 1) delete from t", "values (1)", "merge into t"]
)
def test_what_is_planned(sql: str) -> None:
    assert has_plan(sql)


@pytest.mark.parametrize(
    "sql", ["", "vacuum", "copy t from stdin", "begin", "alter role x password 'y'", "-- only this"]
)
def test_what_is_not_planned(sql: str) -> None:
    assert not has_plan(sql)
    assert kind_of(sql) in ("", "vacuum", "copy", "begin", "alter")
