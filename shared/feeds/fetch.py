"""Get a feed's copy, or hear that it has not changed: conditional, with caps on size and time, keys kept to their host.

What goes wrong outside is `FeedFailed`, in words fit for a log: never an address, a key or an answer's text.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
from requests.packages.urllib3.exceptions import HTTPError, ReadTimeoutError  # type: ignore[import-not-found]

from shared.clock import Clock

_CHUNK = 1 << 16
_IN_MEMORY = 8 << 20
_REDIRECTS = (301, 302, 303, 307, 308)
_AGENT = "Groundskeeper (threat intelligence feeds)"


class FeedFailed(Exception):
    """No copy to be had. `again_s`: the seconds after which the service said it may be asked again."""

    def __init__(self, message: str, *, again_s: int | None = None) -> None:
        super().__init__(message)
        self.again_s = again_s


@dataclass(frozen=True)
class Caps:
    """The most one copy may take: megabytes after decompression, seconds in all, and for connecting and each answer."""

    mb: int
    total_s: int
    answer_s: int
    redirects: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"caps.{name}: expected at least 1, got {value}")


class Validators(NamedTuple):
    """What the last good copy was known by."""

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> dict[str, str]:
        """The headers that ask for a copy only if it is another one."""
        given = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in given.items() if value}


class Copy(NamedTuple):
    """A whole copy, at its beginning. `bytes` after decompression."""

    body: IO[bytes]
    bytes: int
    sha256: str
    validators: Validators = Validators()


class NotModified(Exception):
    """The feed has not changed since the copy its validators are of."""


@contextmanager
def download(
    url: str,
    *,
    clock: Clock,
    caps: Caps,
    headers: Mapping[str, str] | None = None,
    validators: Validators | None = None,
) -> Iterator[Copy]:
    """A copy of `url` for as long as the block lasts. Raises NotModified, FeedFailed.

    `headers` (a key, say) go to the URL's own host and nowhere else; redirects are followed from https to https only.
    """
    until = clock.monotonic() + caps.total_s
    asked = {"User-Agent": _AGENT, **(headers or {}), **(validators.headers() if validators else {})}
    with requests.Session() as session, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as body:
        session.trust_env = False  # no proxy, no password file: what a feed is told stands in task.yaml
        try:
            with _answer(session, url, asked, caps) as answer:
                size, digest = 0, hashlib.sha256()
                # read1 gives what has come: with read, a server that drips would hold us as long as it likes
                while chunk := answer.raw.read1(_CHUNK, decode_content=True):
                    size += len(chunk)
                    if size > caps.mb << 20:
                        raise FeedFailed(f"is larger than {caps.mb} MB")
                    if clock.monotonic() > until:
                        raise FeedFailed(f"took longer than {caps.total_s} s")
                    digest.update(chunk)
                    body.write(chunk)
                expected = answer.headers.get("Content-Length")
                if (
                    not answer.headers.get("Content-Encoding")
                    and (expected or "").isdecimal()
                    and int(expected or 0) != size
                ):
                    raise FeedFailed("broke off before its end")
                known = Validators(answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
        except (requests.Timeout, ReadTimeoutError):
            raise FeedFailed(f"did not answer within {caps.answer_s} s") from None
        except requests.exceptions.SSLError:
            raise FeedFailed("its certificate cannot be verified") from None
        except (requests.RequestException, HTTPError):
            raise FeedFailed("the connection could not be made, or broke") from None
        body.seek(0)
        yield Copy(body, size, digest.hexdigest(), known)


@contextmanager
def _answer(session: requests.Session, url: str, headers: Mapping[str, str], caps: Caps) -> Iterator[requests.Response]:
    """The answer with a body, redirects followed."""
    home = urlsplit(url)
    for _ in range(caps.redirects + 1):
        here = urlsplit(url)
        mine = headers if (here.scheme, here.netloc) == (home.scheme, home.netloc) else {"User-Agent": _AGENT}
        with session.get(url, headers=dict(mine), stream=True, allow_redirects=False, timeout=caps.answer_s) as answer:
            if answer.status_code in _REDIRECTS and "Location" in answer.headers:
                url = urljoin(url, answer.headers["Location"])
                if urlsplit(url).scheme != home.scheme:
                    raise FeedFailed("redirects to another protocol")
                continue
            _judge(answer)
            yield answer
            return
    raise FeedFailed(f"redirects more than {caps.redirects} times")


def _judge(answer: requests.Response) -> None:
    status = answer.status_code
    if status == 304:
        raise NotModified
    if status in (401, 403):
        raise FeedFailed(f"refused us ({status}): is the key right?")
    if status != 200:
        wait = answer.headers.get("Retry-After", "")
        raise FeedFailed(f"answered {status}", again_s=int(wait) if wait.isdecimal() and len(wait) < 7 else None)
