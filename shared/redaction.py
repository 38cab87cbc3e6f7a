"""Keep secrets and personal data out of whatever is written down: logs, errors, ledger rows, answers.

Every secret the process reads is registered here and masked wherever text leaves; besides, shapes that are
never meant to be shown are masked: passwords in URLs, bearer tokens, JSON web tokens, Stripe keys, e-mail
addresses. A defect's own message is never shown at all (it may quote a row): `describe` names where it happened.
"""

import json
import re
import traceback
from types import TracebackType
from urllib.parse import quote

from sqlalchemy.exc import DBAPIError

_SHAPES = (
    (re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"), "***:***"),
    (re.compile(r"\bBearer\s+[A-Za-z0-9._~+/=-]+", re.I), "Bearer ***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), "***"),
    (re.compile(r"\b(?:sk|rk|pk|whsec)_[A-Za-z0-9_]{6,}"), "***"),
    (re.compile(r"\bya29\.[A-Za-z0-9._-]+"), "***"),
    (re.compile(r"\bAIza[A-Za-z0-9_-]{30,}"), "***"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.S), "***"),
    # bounded, or a long word without an @ would take the square of its length
    (re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?!sha256)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"), "<e-mail>"),
)
_secrets: set[str] = set()


def register(secret: str) -> None:
    """Mask `secret` in everything written from now on, also as JSON or a URL writes it, and without the line end a
    file gave it. Shorter than 6 characters is ignored: it would mask words."""
    bare = secret.strip()
    if len(bare) >= 6:
        _secrets.update(
            (bare, json.dumps(bare)[1:-1], json.dumps(bare, ensure_ascii=False)[1:-1], quote(bare, safe=""))
        )


def registered() -> frozenset[str]:
    """Every secret masked so far, in each of its spellings."""
    return frozenset(_secrets)


def redact(text: str) -> str:
    """`text` without anything that must not be shown, and without the NUL that no database column takes."""
    text = text.replace("\0", "")
    for secret in sorted(_secrets, key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(secret, "***")
    for shape, mask in _SHAPES:
        text = shape.sub(mask, text)
    return text


def stack(trace: TracebackType | None) -> list[str]:
    """The calls that led here, innermost last, as `file:line function`, without any value."""
    return [
        f"{frame.filename.rsplit('/site-packages/', 1)[-1]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(trace)
    ]


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of a database error, or None when the server sent none (the connection broke, say)."""
    return _fields(error).get("C")


def server_words(error: BaseException) -> str:
    """The server's message. It may quote a row's values: only for errors of which that is known not to be so."""
    return _fields(error).get("M", "")


def _fields(error: BaseException) -> dict[str, str]:
    detail = getattr(error, "orig", error)
    return detail.args[0] if getattr(detail, "args", None) and isinstance(detail.args[0], dict) else {}


def describe(error: BaseException) -> str:
    """What to say of a defect: its kind, its SQLSTATE and constraint if any, and where; never its message."""
    frames = stack(error.__traceback__)
    where = next(
        (f for f in reversed(frames) if "site-packages" not in f and "sqlalchemy/" not in f and "pg8000/" not in f),
        frames[-1] if frames else "unknown place",
    )
    where = where.rsplit("/", 2)[-1] if where.count("/") < 2 else "/".join(where.split("/")[-3:])
    text = type(error).__name__
    if isinstance(error, DBAPIError):
        fields = error.orig.args[0] if error.orig and error.orig.args and isinstance(error.orig.args[0], dict) else {}
        named = [
            f"{label} {fields[key]}"
            for key, label in (("C", "SQLSTATE"), ("n", "constraint"), ("t", "table"), ("c", "column"))
            if fields.get(key)
        ]
        text = f"{text} ({', '.join(named) or 'the connection broke'})"
    return f"{text} at {where}"
