"""Feeds that come in pages, each naming the next: OTX's pulses since the last time, as one copy."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from urllib.parse import urlencode, urlsplit

from shared.context import Context
from shared.feeds.fetch import Caps, Copy, FeedFailed, download

# What was published while the last copy was taken is asked for again; the first time, a month.
_OVERLAP = timedelta(hours=1)
_FIRST = timedelta(days=30)
_MOST_PAGES = 200


@contextmanager
def pages(ctx: Context, url: str, *, caps: Caps, headers: Mapping[str, str], since: datetime | None) -> Iterator[Copy]:
    """All pages modified since `since`, as one document {"results": [...]}. Raises FeedFailed.

    `caps` are for all of them together in size, and for each in time.
    """
    start = (since - _OVERLAP) if since else ctx.now - _FIRST
    following: str | None = f"{url}?{urlencode({'limit': 50, 'modified_since': start.isoformat()})}"
    size, digest, first = 0, hashlib.sha256(), True
    with tempfile.SpooledTemporaryFile(max_size=8 << 20) as body:
        body.write(b'{"results": [')
        for _ in range(_MOST_PAGES):
            if following is None:
                break
            if urlsplit(following)[:2] != urlsplit(url)[:2]:
                raise FeedFailed("its next page is somewhere else")
            ctx.check()
            with download(following, clock=ctx.clock, caps=caps, headers=headers) as page:
                size += page.bytes
                if size > caps.mb << 20:
                    raise FeedFailed(f"is larger than {caps.mb} MB")
                results, following = _page(page)
            for result in results:
                line = json.dumps(result).encode()
                digest.update(line)
                body.write((b"" if first else b",") + line)
                first = False
        else:
            raise FeedFailed(f"has more than {_MOST_PAGES} pages")
        body.write(b"]}")
        body.seek(0)
        yield Copy(body, size, digest.hexdigest())


def _page(page: Copy) -> tuple[list[object], str | None]:
    try:
        document = json.load(page.body)
    except (ValueError, RecursionError):
        raise FeedFailed("a page is not JSON") from None
    results = document.get("results") if isinstance(document, dict) else None
    following = document.get("next") if isinstance(document, dict) else None
    if not isinstance(results, list) or not (following is None or isinstance(following, str)):
        raise FeedFailed("a page has no results")
    return results, following
