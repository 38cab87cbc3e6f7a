"""Rows into tables by COPY, at the speed of COPY."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.postgresql import dialect

_quote = dialect().identifier_preparer.quote_identifier  # type: ignore[no-untyped-call]

# A message a chunk: small ones cost a system call each, large ones memory.
_CHUNK_BYTES = 1 << 18

# https://www.postgresql.org/docs/current/sql-copy.html, text format
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


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
    cursor: Any = connection.connection.cursor()  # pg8000's own: COPY is not in the DB-API
    try:
        cursor.execute(f"copy {_quote(table.name)} ({', '.join(map(_quote, names))}) from stdin", stream=_chunks(lines))
        return int(cursor.rowcount)
    finally:
        cursor.close()


def line(values: Sequence[Any]) -> str:
    """One row as a line of COPY's text format."""
    return "\t".join(map(_field, values)) + "\n"


def _field(value: Any) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    return str(value).translate(_ESCAPES)


def _chunks(lines: Iterable[str]) -> Iterator[bytes]:
    held: list[str] = []
    size = 0
    for text in lines:
        held.append(text)
        size += len(text)
        if size >= _CHUNK_BYTES:
            yield "".join(held).encode()
            held, size = [], 0
    if held:
        yield "".join(held).encode()
