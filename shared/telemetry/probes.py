"""What a probe is bounded by and what it found: data, and the words for what can go wrong."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import pycurl

from shared.telemetry.targets import Target


@dataclass(frozen=True)
class Limits:
    """The most one probe may take: seconds by phase and in all (redirects included), bytes of body, redirects."""

    dns_s: float
    connect_s: float
    tls_s: float
    first_byte_s: float
    total_s: float
    body_bytes: int
    redirects: int


@dataclass(frozen=True)
class Manners:
    """How many probes may be under way: in all, against one host name, against one address."""

    at_once: int
    per_host: int
    per_address: int


class Verdict(StrEnum):
    """What one probe says about its target. `unknown`: it says nothing, since the trouble was ours or none was made."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Probe:
    """A target to probe; `key` comes back with the result."""

    key: int
    target: Target


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found. `ms` is the whole time, redirects included; phases are those of the last hop, in ms."""

    key: int
    at: datetime
    verdict: Verdict
    status: int | None = None
    error: str | None = None
    ms: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    hops: int = 0
    tls_expires_at: datetime | None = None


# https://curl.se/libcurl/c/libcurl-errors.html. What is not here is named by its number.
_ERRORS = {
    pycurl.E_PEER_FAILED_VERIFICATION: "tls: the certificate is not valid",
    pycurl.E_SSL_CONNECT_ERROR: "tls: the handshake failed",
    pycurl.E_GOT_NOTHING: "http: no answer",
    pycurl.E_RECV_ERROR: "http: the connection broke",
    pycurl.E_SEND_ERROR: "http: the connection broke",
    pycurl.E_PARTIAL_FILE: "http: the answer broke off",
    pycurl.E_FTP_WEIRD_SERVER_REPLY: "http: the answer is not HTTP",
    pycurl.E_UNSUPPORTED_PROTOCOL: "http: the answer is not HTTP",
    pycurl.E_HTTP2: "http: the answer is not HTTP",
    pycurl.E_BAD_CONTENT_ENCODING: "http: the answer is not HTTP",
}

# What OpenSSL says of a certificate, for the reasons an owner can act upon; a code of its own would name a library's.
_CERTIFICATE = (
    ("certificate has expired", "tls: the certificate has expired"),
    ("not yet valid", "tls: the certificate is not yet valid"),
    ("self-signed", "tls: the certificate is self-signed"),
    ("self signed", "tls: the certificate is self-signed"),
    ("unable to get local issuer", "tls: the certificate's issuer is not trusted"),
    ("no alternative certificate subject name", "tls: the certificate is for another name"),
    ("does not match", "tls: the certificate is for another name"),
)


def words_of(code: int, message: str) -> str:
    """A curl error in our words: from a closed list, so that nothing a server sent reaches a row or a log."""
    if code == pycurl.E_PEER_FAILED_VERIFICATION:
        return next((words for sign, words in _CERTIFICATE if sign in message), _ERRORS[code])
    if code == pycurl.E_RECV_ERROR and "Too large response headers" in message:
        return "http: the headers are too large"
    return _ERRORS.get(code, f"curl: error {code}")
