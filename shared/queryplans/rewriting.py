"""Make what pg_stat_statements shows plannable again.

It writes a parameter wherever a value stood, also where the grammar takes a literal only: `interval $1`, `date $2`,
`extract($1 from t)`. Those become casts and calls that mean the same. And where PostgreSQL cannot tell a parameter's
type without its value, a type is supposed, one error at a time.
"""

import re
from collections.abc import Sequence

from shared.queryplans.lexer import Kind, Token, tokens

# Types that may stand before a literal. Longer ones first: `timestamp with time zone` begins with `timestamp`.
_NAMES = (
    "timestamp with time zone, timestamp without time zone, time with time zone, time without time zone, "
    "double precision, character varying, bit varying, date, time, timetz, timestamp, timestamptz, interval, "
    "numeric, decimal, dec, int, integer, bigint, smallint, int2, int4, int8, real, float, float4, float8, "
    "boolean, bool, text, varchar, char, bpchar, character, name, json, jsonb, jsonpath, uuid, inet, cidr, "
    "macaddr, macaddr8, bytea, bit, varbit, money, xml, tsquery, tsvector, point, line, lseg, box, path, polygon, "
    "circle, regclass, regtype, regproc, oid, pg_lsn, int4range, int8range, numrange, tsrange, tstzrange, "
    "daterange, hstore, citext"
)
_TYPES = tuple(tuple(name.split()) for name in _NAMES.split(", "))


def plannable(sql: str) -> str:
    """`sql` with parameters only where the grammar takes them. The rest of its text stays as it is."""
    found = list(tokens(sql))
    written: list[str] = []
    at = 0
    while at < len(found):
        end, text = _typed(found, at) or _extract(found, at) or (at + 1, found[at].text)
        written.append(text)
        at = end
    return "".join(written)


def _next(found: Sequence[Token], at: int) -> int:
    """The first place from `at` on that is neither space nor comment."""
    while at < len(found) and found[at].kind in (Kind.SPACE, Kind.COMMENT):
        at += 1
    return at


def _typed(found: Sequence[Token], at: int) -> tuple[int, str] | None:
    """`type $1` at this place as `$1::type`: where it ends and what it becomes."""
    if not found[at].word or (at and found[at - 1].text in (".", "::")):
        return None
    for words in _TYPES:
        place, end = at, 0
        for word in words:
            place = _next(found, place)
            if place >= len(found) or found[place].word != word:
                break
            place = end = place + 1
        else:
            precision, place = _precision(found, end)
            place = _next(found, place)
            if place < len(found) and found[place].kind is Kind.PARAM:
                return place + 1, f"{found[place].text}::{' '.join(words)}{precision}"
            return None
    return None


def _precision(found: Sequence[Token], at: int) -> tuple[str, int]:
    """`(3)` after a type's name, and the place after it."""
    three = [place for place in range(at, min(at + 6, len(found))) if found[place].kind is not Kind.SPACE][:3]
    texts = [found[place].text for place in three]
    if len(three) == 3 and texts[0] == "(" and found[three[1]].kind is Kind.NUMBER and texts[2] == ")":
        return "".join(texts), three[2] + 1
    return "", at


def _extract(found: Sequence[Token], at: int) -> tuple[int, str] | None:
    """`extract($1 from` as a call of the function behind it."""
    if found[at].word != "extract":
        return None
    opening = _next(found, at + 1)
    field = _next(found, opening + 1)
    from_ = _next(found, field + 1)
    if from_ >= len(found) or found[opening].text != "(" or found[field].kind is not Kind.PARAM:
        return None
    if found[from_].word != "from":
        return None
    return from_ + 1, f'pg_catalog."extract"({found[field].text}, '


_UNKNOWN = re.compile(r"parameter \$(\d+)")
_FUNCTION = re.compile(r"function (?:\w+\.)?\"?(\w+)\"?\(")
_MISMATCH = re.compile(r"operator does not exist: ([\w ]+?) \S+ ([\w ]+)")
_ARITHMETIC = ("+", "-", "*", "/", "%", "^")


def supposing(sql: str, message: str) -> list[str]:
    """`sql` with a type supposed where `message` says that one is missing, the likeliest first; empty: none is left.

    A parameter alone is text; two with an arithmetic sign between them are numbers; what a function takes that exists
    for several types is a number or text.
    """
    wanted: list[tuple[set[str], tuple[str, ...]]]
    if named := _UNKNOWN.search(message):
        wanted = [({f"${named[1]}"}, ("text", "int"))]
    elif function := _FUNCTION.search(message):
        wanted = [(_arguments(sql, function[1].lower()), ("int", "numeric", "text", "timestamptz"))]
    elif mismatch := _MISMATCH.search(message):
        known = tuple(name for name in mismatch.groups() if name not in ("text", "unknown"))
        wanted = [(column, known or ("int", "numeric")) for column in _columns(sql)]
    else:
        wanted = [(_operands(sql, alone=False), ("numeric", "int")), (_operands(sql, alone=True), ("int", "interval"))]
    return [cast for params, types in wanted for to in types if params and (cast := _cast(sql, params, to)) is not None]


def _bare(sql: str) -> list[Token]:
    return [token for token in tokens(sql) if token.kind not in (Kind.SPACE, Kind.COMMENT)]


def _operands(sql: str, *, alone: bool) -> set[str]:
    """Parameters with nothing but an arithmetic sign between them; with `alone`, all beside such a sign."""
    found = _bare(sql)
    return {
        token.text
        for left, sign, right in zip(found, found[1:], found[2:], strict=False)
        if sign.text in _ARITHMETIC and (alone or (left.kind is Kind.PARAM and right.kind is Kind.PARAM))
        for token in (left, right)
        if token.kind is Kind.PARAM
    }


def _columns(sql: str) -> list[set[str]]:
    """The parameters of each column of the rows after VALUES: without a type they are text there."""
    found, columns = _bare(sql), dict[int, set[str]]()
    inside = False
    for at, token in enumerate(found):
        if token.word:
            inside = token.word == "values"
            column = 0
        elif inside and token.text == "(":
            column = 0
        elif inside and token.text == "," and found[at - 1].text != ")":
            column += 1
        elif inside and token.kind is Kind.PARAM and found[at - 1].text in ("(", ","):
            columns.setdefault(column, set()).add(token.text)
    return [columns[column] for column in sorted(columns)]


def _arguments(sql: str, function: str) -> set[str]:
    """Parameters that stand alone as an argument of `function`."""
    found, inside, params = _bare(sql), 0, set()
    for before, token, after in zip(
        [Token(Kind.SIGN, ""), *found], found, [*found[1:], Token(Kind.SIGN, "")], strict=False
    ):
        if token.text == "(" and (inside or before.text.lower().strip('"') == function):
            inside += 1
        elif token.text == ")" and inside:
            inside -= 1
        elif inside == 1 and token.kind is Kind.PARAM and before.text in ("(", ",") and after.text in (")", ","):
            params.add(token.text)
    return params


def _cast(sql: str, params: set[str], to: str) -> str | None:
    found = list(tokens(sql))
    written = []
    changed = False
    for at, token in enumerate(found):
        after = _next(found, at + 1)
        cast = after < len(found) and found[after].text == "::"
        if token.kind is Kind.PARAM and token.text in params and not cast:
            written.append(f"{token.text}::{to}")
            changed = True
        else:
            written.append(token.text)
    return "".join(written) if changed else None
