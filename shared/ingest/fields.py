"""A stranger's values made fit for a column: bounded, anonymous, in one form."""

import math
import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import idna

from shared.redaction import redact

Address = IPv4Address | IPv6Address

_LONGEST_URL = 2048
_PORTS = {"http": 80, "https": 443}
_PERCENT = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_LITERAL = frozenset("!$&'()*+,;=:@/%")


class BadField(ValueError):
    """A value no row can hold; the message names the field and what was expected, never the value."""


def text(value: object, longest: int) -> str | None:
    """A text cut to `longest` characters, without NUL and without halves of characters; None for what is none."""
    if not isinstance(value, str):
        return None
    clean = value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return clean[:longest] or None


def url(value: object) -> str:
    """An URL in one form (RFC 3986, section 6.2.2): scheme, host, path. Raises BadField.

    User, query and fragment are left out, since they hold what nobody should read, and so is an e-mail address or
    a token in the path.
    """
    if not isinstance(value, str) or len(value) > _LONGEST_URL:
        raise BadField(f"data.url is not a text of at most {_LONGEST_URL} characters")
    if re.search(r"[\x00-\x20\x7f\\]|[\ud800-\udfff]", value):
        raise BadField("data.url holds a space, a backslash or a control character")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise BadField("data.url has no readable host or port") from None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise BadField("data.url is not http or https")
    shown_port = "" if port is None or port == _PORTS[scheme] else f":{port}"
    return f"{scheme}://{_host(host)}{shown_port}{_path(parts.path)}"


def host(url: str) -> str | None:
    """The host of an URL, for what may be any text; None where there is none that can be read."""
    try:
        return _host(urlsplit(url[:_LONGEST_URL]).hostname or "")
    except ValueError:  # BadField is one
        return None


def _host(host: str) -> str:
    if ":" in host:
        try:
            return f"[{IPv6Address(host.partition('%')[0])}]"
        except ValueError:
            raise BadField("data.url has no readable host") from None
    try:
        name = idna.encode(host.rstrip("."), uts46=True).decode() if not host.isascii() else host.rstrip(".").lower()
    except (idna.IDNAError, UnicodeError):
        raise BadField("data.url has no readable host") from None
    if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name) or len(name) > 253:
        raise BadField("data.url has no readable host")
    return name


def _path(path: str) -> str:
    decoded = _PERCENT.sub(_triplet, path)
    encoded = "".join(
        c if c in _UNRESERVED or c in _LITERAL else "".join(f"%{b:02X}" for b in c.encode()) for c in decoded
    )
    kept: list[str] = []
    for segment in encoded.split("/")[1:]:  # RFC 3986, section 5.2.4
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if encoded.endswith(("/.", "/..")):
        kept.append("")
    return redact("/" + "/".join(kept))


def _triplet(found: re.Match[str]) -> str:
    sign = chr(int(found[1], 16))
    return sign if sign in _UNRESERVED else f"%{found[1].upper()}"


def address(value: object) -> Address | None:
    """An address of the internet; one of IPv4 that is written as one of IPv6 is one of IPv4. None for what is none."""
    try:
        found = ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or IPv6Address(int(found))  # without its zone
    return found


def anonymous(found: Address | None) -> str | None:
    """The network an address is in: /24 of IPv4, /64 of IPv6. What is left names no one."""
    if found is None:
        return None
    return str(ip_network((found, 24 if found.version == 4 else 64), strict=False))


def status(value: object) -> int | None:
    """A status of HTTP, None where there was no answer. Raises BadField."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 100 <= value <= 599:
        raise BadField("data.status_code is neither null nor a whole number from 100 to 599")
    return value


def milliseconds(value: object) -> float | None:
    """A time in milliseconds, at most a day. Raises BadField."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 86_400_000:
        raise BadField("data.response_time_ms is neither null nor a number from 0 to 86400000")
    return float(value) if math.isfinite(value) else None
