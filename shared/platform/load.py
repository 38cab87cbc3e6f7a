"""Rows into tables by COPY, at the speed of COPY."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.postgresql import dialect

from shared.copying import copy, escaped

_quote = dialect().identifier_preparer.quote_identifier  # type: ignore[no-untyped-call]


def copy_rows(connection: Connection, table: Table, columns: str, rows: Iterable[Sequence[Any]]) -> int:
    """Load `rows`, in the order of `columns` ("a b c"), in the caller's transaction; how many.

    Dicts and lists become JSON.
    """
    return copy_lines(connection, table, columns, map(line, rows))


def copy_lines(connection: Connection, table: Table, columns: str, lines: Iterable[str]) -> int:
    """As `copy_rows`, for rows that are lines of COPY's text format already, each with its newline."""
    names = columns.split()
    for name in names:
        if name not in table.c:
            raise ValueError(f"{table.name} has no column {name}")
    return copy(connection, _quote(table.name), ", ".join(map(_quote, names)), lines)


def line(values: Sequence[Any]) -> str:
    """One row as a line of COPY's text format."""
    return "\t".join(map(_field, values)) + "\n"


def _field(value: Any) -> str:
    if value is None:
        return escaped(None)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    return escaped(str(value))
