"""Ahmia, a search engine for hidden services: pages that mention a brand.

Only its result list is read; no hidden service is ever visited. https://ahmia.fi/
"""

import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

from shared.context import Context
from shared.darkweb.findings import Finding, record
from shared.darkweb.service import Service, ServiceFailed

SOURCE = "ahmia"
_ONION = re.compile(r"[a-z2-7]{56}\.onion")
_NONE = re.compile(rb"no results|0 results", re.I)
_MOST = 100


class _Results(HTMLParser):
    """Collects (address, title) of each `li.result`, whose link carries `redirect_url`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._depth = 0
        self._url: str | None = None
        self._title: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "li":
            self._depth = int("result" in (given.get("class") or "").split())
        elif (
            tag == "a"
            and self._depth
            and (wanted := parse_qs(urlsplit(given.get("href") or "").query).get("redirect_url"))
        ):
            self._url, self._title = wanted[0], []

    def handle_data(self, data: str) -> None:
        if self._url is not None:
            self._title.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._url is not None:
            self.found.append((self._url, " ".join("".join(self._title).split())))
            self._url = None


def mentions(ctx: Context, service: Service, term: str) -> None:
    """Search for `term`. A title that does not hold it is a near miss of the engine's, and no finding."""
    body = service.get("/search/", q=term)
    if body is None:
        raise ServiceFailed("has no search page where it was")
    results = _Results()
    results.feed(body.decode("utf-8", "replace"))
    if not results.found and not _NONE.search(body):
        raise ServiceFailed("its page has neither results nor the word that there are none: has it changed?")
    with ctx.begin() as connection:
        for url, title in results.found[:_MOST]:
            host = (urlsplit(url).hostname or "").lower()
            if _ONION.fullmatch(host.rpartition(".onion")[0][-56:] + ".onion") and term.lower() in title.lower():
                record(ctx, connection, _mention(term, host, urlsplit(url).path or "/", title))
    ctx.count("terms_checked")


def _mention(term: str, host: str, path: str, title: str) -> Finding:
    return Finding(
        kind="mention",
        value=f"{term.lower()} at http://{host}{path}",
        source=SOURCE,
        reference="https://ahmia.fi/",
        confidence=30,
        severity="medium",
        description=title,
        data={"term": term, "site": host},
    )
