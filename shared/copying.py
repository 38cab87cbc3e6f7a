"""Rows into a table by COPY, the fastest way PostgreSQL has."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pg8000.dbapi
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

# Lines a message: few cost a system call each time, many memory.
_CHUNK = 512

# https://www.postgresql.org/docs/current/sql-copy.html, text format
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def escaped(text: str | None) -> str:
    """A value as a field of COPY's text format. A NUL, which no text of PostgreSQL holds, becomes U+FFFD."""
    return "\\N" if text is None else text.replace("\0", "\ufffd").translate(_ESCAPES)


def copy(connection: Connection, table: str, columns: str, lines: Iterable[str]) -> int:
    """Load `lines` (COPY's text format, each with its newline) in the caller's transaction; how many.

    What the database refuses is raised as SQLAlchemy raises it, so that the wrapper knows a timeout from a defect.
    `table` and `columns` ("a, b, c") are ours, never a stranger's.
    """
    cursor: Any = connection.connection.cursor()  # pg8000's own: COPY is not in the DB-API
    statement = f"copy {table} ({columns}) from stdin"
    try:
        cursor.execute(statement, stream=_chunks(lines))
        return int(cursor.rowcount)
    except pg8000.dbapi.Error as error:
        raise DBAPIError(statement, None, error) from error
    finally:
        cursor.close()


def _chunks(lines: Iterable[str]) -> Iterator[bytes]:
    given = iter(lines)
    while chunk := "".join(islice(given, _CHUNK)):
        yield chunk.encode()
