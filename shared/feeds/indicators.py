"""One spelling for each indicator: however a feed writes it, the same thing has the same canonical key.

Defanged text is made whole (hxxp, [.], (dot)), names become IDNA's A-labels in lower case, addresses their shortest
form, URLs lose what two writers write differently (case of scheme and host, default port, fragment, user). What is no
indicator, or one that would block everybody (private addresses, networks too wide), is unfit, with the reason.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import idna

# Longer ones fit no index entry; every real one is far shorter.
_LONGEST = 2000

_HASHES = {32: "md5", 40: "sha1", 64: "sha256"}
_HEX = re.compile(r"[0-9a-f]+")
# A label, its dot: 1 to 63 signs, and a hyphen neither first nor last.
_NAME = r"(?:(?:[a-z0-9_][a-z0-9_-]{0,62}(?<=[a-z0-9])|_)\.)++[a-z][a-z0-9-]{0,61}[a-z0-9]"
_DOMAIN = re.compile(rf"(?=.{{4,253}}\Z){_NAME}")
_CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,19}")
_IPV4 = re.compile(
    r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
)
# First octets under which not everything is public (IANA's special-purpose registry); the others need no look.
_SPECIAL = re.compile(r"(?:0|1(?:0|00|27|69|72|9[28])|2(?:03|2[4-9]|[345][0-9]))\.")
# What is canonical already, by kind: most of what comes is, and to take it apart takes several times as long.
_PLAIN = re.compile(
    rf"(?P<ipv4>(?!{_SPECIAL.pattern}){_IPV4.pattern})"
    rf"|(?P<url>https?://(?=[^/]{{4,253}}/){_NAME}/[!$&-;=?@-Z_a-z~]{{0,{_LONGEST - 300}}}+(?<!\?))"
    r"|(?P<sha256>[0-9a-f]{64})|(?P<md5>[0-9a-f]{32})|(?P<sha1>[0-9a-f]{40})"
    rf"|(?P<domain>{_DOMAIN.pattern})"
)
_BRACKETS = re.compile(r"\s*[\[({]\s*(\.|:|/|@|dot|://)\s*[\])}]\s*", re.I)
_SCHEME = re.compile(r"(?:h[tx]{2}p(s?)|f[tx]p):/{1,2}", re.I)
_SCHEMES_BEGIN = ("h", "H", "f", "F")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}
# Unreserved and reserved characters, and % itself, stay as they are. RFC 3986
_KEEP = "!$&'()*+,;=:@/?%-._~[]"


class Unfit(ValueError):
    """This is no indicator, or one nobody should block. The message is the reason, without the value."""


class Indicator(NamedTuple):
    """A canonical indicator: ipv4, ipv6, cidr, ip_port, domain, url, md5, sha1, sha256 or cve, and its value."""

    kind: str
    value: str

    @property
    def key(self) -> str:
        """The canonical key: unique among all indicators."""
        return f"{self.kind}:{self.value}"


class Reader(NamedTuple):
    """Reads indicators. Addresses for documentation (RFC 5737, 3849) are unfit unless `documentation`."""

    documentation: bool = False
    widest_v4: int = 16
    widest_v6: int = 32

    def read(self, text: str, kind: str | None = None) -> Indicator:
        """The indicator that `text` is: of `kind` (also `hash`, `ip`, `host`), or of whatever kind it looks like.

        Raises Unfit, also for a kind it does not know.
        """
        if (plain := _PLAIN.fullmatch(text)) and (kind is None or kind == plain.lastgroup):
            return tuple.__new__(Indicator, (plain.lastgroup, text))  # a third of the time of Indicator(…)
        text = _whole(text if text.isascii() else text.encode("utf-8", "replace").decode())
        if not text:
            raise Unfit("empty")
        if len(text) > _LONGEST:
            raise Unfit(f"longer than {_LONGEST} characters")
        if kind is not None and kind not in _READERS:
            raise Unfit("of a kind nobody here knows")
        found = _READERS[kind](self, text) if kind else self._any(text)
        if len(found.value) > _LONGEST:
            raise Unfit(f"longer than {_LONGEST} characters")
        return found

    def _any(self, text: str) -> Indicator:
        if "://" in text:
            return self._url(text)
        if len(text) in _HASHES and "." not in text and _HEX.fullmatch(lower := text.lower()):
            return Indicator(_HASHES[len(lower)], lower)
        if text[:4].upper() == "CVE-":
            return self._cve(text)
        if "/" in text:
            return self._cidr(text)
        if text.count(":") == 1 or text.startswith("["):
            return self._ip_port(text)
        return self._host(text)

    def _host(self, text: str) -> Indicator:
        if ":" in text or (text[-1].isdigit() and _IPV4.fullmatch(text)):
            return self._ip(text)
        return self._domain(text)

    def _ip(self, text: str) -> Indicator:
        if _IPV4.fullmatch(text):
            if _SPECIAL.match(text):
                self._public(IPv4Address(text))
            return Indicator("ipv4", text)
        try:
            address = ip_address(text.strip("[]"))
        except ValueError:
            raise Unfit("not an address") from None
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        self._public(address)
        return Indicator(f"ipv{address.version}", str(address))

    def _public(self, address: IPv4Address | IPv6Address) -> None:
        if not address.is_global or address.is_multicast:
            if self.documentation and any(address in n for n in _DOCUMENTATION if n.version == address.version):
                return
            raise Unfit("not a public address")

    def _cidr(self, text: str) -> Indicator:
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            raise Unfit("not a network") from None
        if network.prefixlen == network.max_prefixlen:
            return self._ip(str(network.network_address))
        if network.prefixlen < (self.widest_v4 if network.version == 4 else self.widest_v6):
            raise Unfit("a network too wide to block")
        self._public(network.network_address)
        self._public(network.broadcast_address)
        return Indicator("cidr", str(network))

    def _ip_port(self, text: str) -> Indicator:
        host, _, port = text.rpartition(":")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise Unfit("not an address and a port")
        address = self._ip(host)
        value = f"[{address.value}]" if address.kind == "ipv6" else address.value
        return Indicator("ip_port", f"{value}:{int(port)}")

    def _domain(self, text: str) -> Indicator:
        return Indicator("domain", _name(text))

    def _url(self, text: str) -> Indicator:
        try:
            parts = urlsplit(text)
            port, host = parts.port, parts.hostname
        except ValueError:
            raise Unfit("not a URL") from None
        scheme = parts.scheme.lower()
        if scheme not in _DEFAULT_PORTS or not host:
            raise Unfit("not a URL of http, https or ftp")
        where = self._host(host).value
        if ":" in where:
            where = f"[{where}]"
        if port is not None and port != _DEFAULT_PORTS[scheme]:
            where += f":{port}"
        query = f"?{quote(parts.query, safe=_KEEP)}" if parts.query else ""
        return Indicator("url", f"{scheme}://{where}{quote(parts.path, safe=_KEEP) or '/'}{query}")

    def _hash(self, text: str) -> Indicator:
        value = text.lower()
        kind = _HASHES.get(len(value))
        if kind is None or not _HEX.fullmatch(value):
            raise Unfit("not an MD5, SHA-1 or SHA-256")
        return Indicator(kind, value)

    def _cve(self, text: str) -> Indicator:
        if not _CVE.fullmatch(text.upper()):
            raise Unfit("not a CVE number")
        return Indicator("cve", text.upper())


_READERS = {
    "ip": Reader._ip,
    "ipv4": Reader._ip,
    "ipv6": Reader._ip,
    "cidr": Reader._cidr,
    "ip_port": Reader._ip_port,
    "domain": Reader._domain,
    "host": Reader._host,
    "url": Reader._url,
    "hash": Reader._hash,
    "cve": Reader._cve,
}

_DOCUMENTATION: tuple[IPv4Network | IPv6Network, ...] = tuple(
    map(ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"))
)


def _whole(text: str) -> str:
    """`text` without what people write so that nobody clicks on it."""
    text = text.strip(" \t\r\n\"'<>")
    if "[" in text or "(" in text or "{" in text:
        text = _BRACKETS.sub(lambda m: "." if m[1].lower() == "dot" else m[1], text)
    if text[:1] in _SCHEMES_BEGIN and not text.startswith(("http://", "https://")) and (scheme := _SCHEME.match(text)):
        plain = "ftp" if text[0] in "fF" else f"http{scheme[1].lower()}"
        text = f"{plain}://{text[scheme.end() :]}"
    return text


def _name(text: str) -> str:
    lower = text.rstrip(".").lower()
    if not _DOMAIN.fullmatch(lower):
        if lower.isascii():
            raise Unfit("not a domain name")
        try:
            lower = idna.encode(lower, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise Unfit("not a domain name") from None
        if not _DOMAIN.fullmatch(lower):
            raise Unfit("not a domain name")
    return lower
