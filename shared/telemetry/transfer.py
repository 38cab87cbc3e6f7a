"""One libcurl handle that can reach nothing but the pin it was given.

The rule is held twice, by different parts. CONNECT_TO sends every connection to the pinned address, whatever curl
reads out of the URL (SNI, Host and the certificate's name stay the URL's). And no socket exists unless `_open` made
it, which it does for the pinned address alone. Redirects, proxies, other protocols and reuse of connections are off.
"""

import errno
import os
import socket
import ssl
from datetime import UTC, datetime
from typing import Any

import pycurl

from shared.addresses import Pin
from shared.telemetry.probes import Limits
from shared.telemetry.targets import Target

# Why connect(2) failed. Without a way to IPv6, or without a port left, we learn nothing about the target.
_OURS = {
    errno.ENETUNREACH: "ours: no way to that network",
    errno.EADDRNOTAVAIL: "ours: no port was left",
    errno.EMFILE: "ours: no socket was left",
    errno.ENFILE: "ours: no socket was left",
}
_THEIRS = {
    errno.ECONNREFUSED: "connect: refused",
    errno.EHOSTUNREACH: "connect: no route to the host",
    errno.ECONNRESET: "connect: reset",
    errno.ETIMEDOUT: "timeout: connect",
}

_AGENT = "Groundskeeper (uptime check)"


class Transfer:
    """A reusable handle: `aim` it at a target, give `handle` to a CurlMulti, read it when it is done."""

    def __init__(self, limits: Limits, *, ca_file: str) -> None:
        self._limits = limits
        self._pin: Pin | None = None
        self._received = 0
        self._socket: socket.socket | None = None
        self._descriptor: int | None = None
        self._connected_ms: float | None = None
        self.flight: Any = None  # whose hop it is; the prober's
        self.trouble: str | None = None
        """What of our own stopped the hop, in words."""
        self.cut = False
        """Whether the body was longer than the limit and was cut there."""
        self.handle = pycurl.Curl()
        self.handle.owner = self
        for option, value in self._options(ca_file).items():
            self.handle.setopt(option, value)

    def _options(self, ca_file: str) -> dict[int, Any]:
        return {
            pycurl.OPENSOCKETFUNCTION: self._open,
            pycurl.SOCKOPTFUNCTION: self._opened,
            pycurl.WRITEFUNCTION: self._write,
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.REDIR_PROTOCOLS: 0,
            pycurl.FOLLOWLOCATION: 0,
            pycurl.PROXY: "",
            pycurl.NOPROXY: "*",
            pycurl.NETRC: pycurl.NETRC_IGNORED,
            pycurl.DNS_CACHE_TIMEOUT: 0,
            pycurl.FRESH_CONNECT: 1,
            pycurl.FORBID_REUSE: 1,
            pycurl.SSL_SESSIONID_CACHE: 0,
            pycurl.NOSIGNAL: 1,
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.SSL_VERIFYPEER: 1,
            pycurl.SSL_VERIFYHOST: 2,
            pycurl.SSLVERSION: pycurl.SSLVERSION_TLSv1_2,
            # What every server has. OpenSSL's post-quantum default costs an eighth of a probe and hides nothing here.
            pycurl.SSL_EC_CURVES: "X25519:P-256:P-384:P-521",
            pycurl.CAINFO: ca_file,
            pycurl.OPT_CERTINFO: 1,
            pycurl.USERAGENT: _AGENT,
            pycurl.HTTPHEADER: ["Accept: */*", "Cache-Control: no-cache"],
            pycurl.BUFFERSIZE: 16384,
            # A last resort: the prober's own sweep is finer and comes first.
            pycurl.CONNECTTIMEOUT_MS: int((self._limits.connect_s + self._limits.tls_s) * 1000),
        }

    def aim(self, target: Target, pinned: Pin, *, left_s: float) -> None:
        """Set up one hop: this target, at this address, for at most `left_s`."""
        self._pin, self._received, self.cut, self.trouble = pinned, 0, False, None
        self._descriptor = self._connected_ms = None
        self.handle.setopt(pycurl.URL, target.url)
        self.handle.setopt(pycurl.CONNECT_TO, [f"::{pinned.in_url}:{target.port}"])
        self.handle.setopt(pycurl.CONNECT_ONLY, 0 if target.kind == "http" else 1)
        self.handle.setopt(pycurl.TIMEOUT_MS, max(1, int(left_s * 1000)))

    def _open(self, _purpose: int, address: Any) -> "socket.socket | int":
        if self._pin is None or address.addr[0] != self._pin.text:
            self.trouble = "ours: a connection to another address was stopped"
            return int(pycurl.SOCKET_BAD)
        try:
            self._socket = socket.socket(address.family, address.socktype, address.protocol)
        except OSError:
            self.trouble = "ours: no socket was left"
            return int(pycurl.SOCKET_BAD)
        return self._socket

    def _opened(self, descriptor: int, _purpose: int) -> int:
        """Close our end: pycurl has made a duplicate of it for curl."""
        self._drop()
        self._descriptor = descriptor
        return int(pycurl.SOCKOPT_OK)

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _write(self, data: bytes) -> int:
        self._received += len(data)
        self.cut = self._received > self._limits.body_bytes
        return 0 if self.cut else len(data)

    # --- what a hop, done or under way, says of itself

    @property
    def status(self) -> int | None:
        return int(self.handle.getinfo(pycurl.RESPONSE_CODE)) or None

    @property
    def location(self) -> str | None:
        """Where a redirect leads, made absolute; None where there is none."""
        found: str | None = self.handle.getinfo(pycurl.REDIRECT_URL)
        return found

    def phases(self) -> dict[str, float]:
        """Milliseconds from the hop's start to the end of each phase that ended."""
        ends = {
            "connect": pycurl.CONNECT_TIME_T,
            "tls": pycurl.APPCONNECT_TIME_T,
            "first_byte": pycurl.STARTTRANSFER_TIME_T,
        }
        found = {name: self.handle.getinfo(info) / 1000 for name, info in ends.items()}
        if not found["connect"] and self._connected_ms is not None:
            found["connect"] = self._connected_ms
        return {name: ms for name, ms in found.items() if ms > 0}

    def look(self, elapsed_ms: float) -> None:
        """Notice that TCP is connected, which curl does not say before TLS is: a slow handshake is no slow network."""
        if self._connected_ms is not None or self._descriptor is None:
            return
        try:
            with socket.socket(fileno=os.dup(self._descriptor)) as twin:
                twin.getpeername()
        except OSError:  # not yet
            return
        self._connected_ms = elapsed_ms

    def refusal(self) -> tuple[bool, str]:
        """Why there was no connection, in words, and whether the reason is ours."""
        if self.trouble is not None:
            return True, self.trouble
        if self._descriptor is None:  # curl got no socket at all: the duplicate of ours was one too many
            self._drop()
            return True, "ours: no socket was left"
        number = self.handle.getinfo(pycurl.OS_ERRNO)
        if number in _OURS:
            return True, _OURS[number]
        return False, _THEIRS.get(number, "connect: failed")

    def total_ms(self) -> float:
        """Milliseconds the hop took so far."""
        return float(self.handle.getinfo(pycurl.TOTAL_TIME_T)) / 1000

    def tls_expires_at(self) -> datetime | None:
        """When the server's own certificate ends; a chain's other certificates come and go with the server's mood."""
        certificates = self.handle.getinfo(pycurl.INFO_CERTINFO)
        ends = dict(pair for pair in certificates[0] if len(pair) == 2).get("Expire date") if certificates else None
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC) if ends else None

    def close(self) -> None:
        """Free the handle."""
        self._drop()
        self.handle.close()
