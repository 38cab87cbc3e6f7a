"""Make the HTML: templates, the one style sheet and script, and the headers that let nothing else in."""

import base64
import functools
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from shared.console import words
from shared.wording import counted

_FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Answer:
    """What a request gets."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


def page(template: str, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any) -> Answer:
    """The page `template`.html made of `values`."""
    made = _templates().get_template(f"{template}.html").render(**values)
    return Answer(status, made, {**_headers("console.js"), **(headers or {})})


def door(*, status: int, said: str, key: str, endpoint: str) -> Answer:
    """The sign-in page: the only one that talks to anybody but us, which is Firebase's sign-in at `endpoint`."""
    made = _templates().get_template("sign_in.html").render(said=said, key=key, endpoint=endpoint)
    at = urlsplit(endpoint)
    return Answer(status, made, dict(_headers("sign_in.js", f"{at.scheme}://{at.netloc}")))


def out_of_reach(said: str, status: int, docs: str) -> Answer:
    """The page of every address while the ledger cannot be read; it asks again by itself."""
    made = _templates().get_template("out_of_reach.html").render(said=said, docs=docs)
    return Answer(status, made, dict(_headers("console.js")))


def redirect(to: str, headers: dict[str, str] | None = None) -> Answer:
    """Go there, by GET, also after a form."""
    return Answer(303, "", {**_headers("console.js"), "Location": to, **(headers or {})})


@functools.cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(
        style=_inline("console.css"), script=_inline("console.js"), sign_in_script=_inline("sign_in.js")
    )
    made.filters.update(
        moment=words.moment,
        far=words.far,
        shorter=words.shorter,
        span=words.span,
        number=words.number,
        counted=counted,
    )
    return made


@functools.cache
def _inline(name: str) -> Markup:
    """A file of ours as it stands in the page; nothing of it comes from anybody else."""
    return Markup(_text(name))  # noqa: S704 - a file of ours


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@functools.cache
def _headers(script: str, talks_to: str = "") -> dict[str, str]:
    """What every page is sent with: only our own style and script run, by their hashes; nobody frames us."""
    policy = (
        f"default-src 'none'; style-src {_hash('console.css')}; script-src {_hash(script)}; img-src 'self' data:;"
        f" connect-src 'self' {talks_to}; form-action 'self'; frame-ancestors 'none';"
        " base-uri 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "private, no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "same-origin",
        "Strict-Transport-Security": "max-age=63072000",
        "X-Content-Type-Options": "nosniff",
    }


def _hash(name: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(_text(name).encode()).digest()).decode()}'"
