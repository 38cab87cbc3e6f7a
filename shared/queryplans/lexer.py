"""The words of an SQL statement, as PostgreSQL reads them: enough to strip, mask and rewrite, not to understand."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a token is."""

    SPACE = "space"
    COMMENT = "comment"
    STRING = "string"
    QUOTED = "quoted"  # an identifier in quotes
    PARAM = "param"
    NUMBER = "number"
    WORD = "word"
    SIGN = "sign"


@dataclass(frozen=True)
class Token:
    """One token and its text."""

    kind: Kind
    text: str

    @property
    def word(self) -> str:
        """The word in lower case; empty for anything else."""
        return self.text.lower() if self.kind is Kind.WORD else ""


_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<comment>--[^\n]*)
  | (?P<string>[eE]'(?:[^'\\]|\\.|'')*'|(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*'
             |\$(?P<tag>[A-Za-z_\x80-\uffff][\w\x80-\uffff]*)?\$.*?\$(?P=tag)\$|\$\$.*?\$\$)
  | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")*")
  | (?P<param>\$\d+)
  | (?P<number>0[xX][0-9a-fA-F_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)
  | (?P<word>[A-Za-z_\x80-\uffff][\w$\x80-\uffff]*)
  | (?P<sign>::|:=|=>|<=|>=|<>|!=|.)
    """,
    re.X | re.S,
)


def tokens(sql: str) -> Iterator[Token]:
    """The tokens of `sql`; together their texts are `sql` again."""
    at = 0
    while at < len(sql):
        if sql.startswith("/*", at):
            end = _comment_end(sql, at)
            yield Token(Kind.COMMENT, sql[at:end])
            at = end
            continue
        found = _TOKEN.match(sql, at)
        if found is None:
            raise AssertionError("every character is at least a sign")
        yield Token(next(kind for kind in Kind if found[kind.value] is not None), found[0])
        at = found.end()


def _comment_end(sql: str, start: int) -> int:
    """Where the comment that begins at `start` ends; PostgreSQL's comments nest."""
    depth = 0
    for mark in re.finditer(r"/\*|\*/", sql[start:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return start + mark.end()
    return len(sql)


def bare(sql: str) -> list[Token]:
    """The tokens without space and comments."""
    return [token for token in tokens(sql) if token.kind not in (Kind.SPACE, Kind.COMMENT)]


_PLANNED = frozenset(("select", "insert", "update", "delete", "merge", "with", "values", "table"))


def kind_of(sql: str) -> str:
    """The statement's first word in lower case (of what is in parentheses, if it begins so); empty for nothing."""
    return next((token.word for token in bare(sql) if token.text != "("), "")


def has_plan(sql: str) -> bool:
    """Whether PostgreSQL plans such a statement: SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, TABLE, or WITH one."""
    return kind_of(sql) in _PLANNED


def masked(sql: str) -> str:
    """`sql` without comments and values, to be kept and shown.

    pg_stat_statements replaces values itself, but not those of a statement whose entry was evicted while it ran, and
    comments often name users and requests.
    """
    kept: list[str] = []
    for token in tokens(sql):
        if token.kind is Kind.COMMENT or token.kind is Kind.SPACE:
            if kept and kept[-1] != " ":
                kept.append(" ")
        elif token.kind in (Kind.STRING, Kind.NUMBER):
            kept.append("?")
        else:
            kept.append(token.text)
    return "".join(kept).strip()
