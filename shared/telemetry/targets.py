"""What a monitored service's URL means: scheme, host and port, in one canonical form that curl reads as we do."""

import re
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import idna

_PORTS = {"http": 80, "https": 443, "tls": 443, "tcp": None}
_SCHEMES = {"http": ("http", "https"), "tcp": ("tcp",), "tls": ("tls", "https")}
_LONGEST = 2048
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# https://url.spec.whatwg.org/#ends-in-a-number-checker: 127.1, 0x7f000001 and 2130706433 are addresses to some
# readers and names to others. We are no such reader, and nobody behind us shall be.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class BadTarget(ValueError):
    """The URL is none we probe; the message says why, without the URL: it may hold what nobody should read."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to probe. `url` is canonical and has no user, no fragment; `literal` when the host is an address."""

    kind: str
    scheme: str
    host: str
    port: int
    url: str
    literal: bool


def parse(kind: str, url: str) -> Target:
    """The target of a service's `kind` (http, tcp, tls) and `url`. Raises BadTarget."""
    return _parse(kind, url, _SCHEMES[kind])


def redirected(url: str) -> Target:
    """The target a redirect leads to. Raises BadTarget for anything but http and https."""
    return _parse("http", url, _SCHEMES["http"])


def _parse(kind: str, url: str, schemes: tuple[str, ...]) -> Target:
    if len(url) > _LONGEST:
        raise BadTarget(f"the URL is longer than {_LONGEST} characters")
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise BadTarget("the URL holds a space, a backslash or a control character")
    try:
        parts = urlsplit(url)
        port, name = parts.port, parts.hostname
    except ValueError:
        raise BadTarget("the URL has no readable host or port") from None
    if parts.scheme not in schemes:
        raise BadTarget(f"the URL's scheme is not {' or '.join(schemes)}")
    if parts.username is not None or parts.password is not None:
        raise BadTarget("the URL holds a user or a password")
    port = port if port is not None else _PORTS[parts.scheme]
    if not port:
        raise BadTarget("the URL has no port, or port 0")
    host, literal = _host(name or "")
    shown = f"[{host}]" if ":" in host else host
    if kind == "http":
        query = f"?{parts.query}" if parts.query else ""
        rest = (parts.path or "/") + query
        if not rest.isascii():
            raise BadTarget("the URL's path is not percent-encoded ASCII")
        canonical = f"{parts.scheme}://{shown}:{port}{rest}"
    else:
        canonical = f"{'https' if kind == 'tls' else 'http'}://{shown}:{port}/"
    # thousands of targets share these words, and a host is many services'
    return Target(sys.intern(kind), sys.intern(parts.scheme), sys.intern(host), port, canonical, literal)


def _host(name: str) -> tuple[str, bool]:
    """The host in the form DNS is asked for, and whether it is an address."""
    if "%" in name:
        raise BadTarget("the URL's host is percent-encoded or has a scope")
    try:
        return str(ip_address(name)), True
    except ValueError:
        pass  # not an address: then it has to be a name
    try:
        host = idna.encode(name, uts46=True).decode() if not name.isascii() else name.lower()
    except idna.IDNAError:
        raise BadTarget("the URL's host is no valid international name") from None
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise BadTarget("the URL's host is no valid name")
    if _NUMBER.fullmatch(labels[-1]):
        raise BadTarget("the URL's host ends in a number and is no plain address")
    return ".".join(labels), False
