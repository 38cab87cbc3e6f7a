"""Servers a probe meets: an HTTP and TLS server that behaves badly on request, and a DNS server that lies on request.

All on 127.0.0.1 and below port 32768. Real sockets and real protocols: nothing here knows how the prober works.
"""

import contextlib
import datetime
import random
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ERA = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
FAR = datetime.datetime(2045, 1, 1, tzinfo=datetime.UTC)


def free_port() -> int:
    """A port below 32768 that is free now."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                return port


# --- certificates


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
        certificate = (
            self._builder(self._name, self._key, ERA, FAR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "authority.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        start: datetime.datetime,
        end: datetime.datetime,
        issuer: x509.Name | None = None,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )

    def context(
        self, name: str, *, start: datetime.datetime = ERA, end: datetime.datetime = FAR, own: bool = False
    ) -> ssl.SSLContext:
        """A server's TLS context with a certificate for `name` (or an address); `own`: signed by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        try:
            alternative: x509.GeneralName = x509.IPAddress(ip_address(name))
        except ValueError:
            alternative = x509.DNSName(name)
        builder = self._builder(subject, key, start, end, subject if own else None).add_extension(
            x509.SubjectAlternativeName([alternative]), critical=False
        )
        certificate = builder.sign(key if own else self._key, hashes.SHA256())
        file = self._folder / f"{abs(hash((name, start, end, own)))}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


# --- HTTP and TLS


class Web(socketserver.ThreadingTCPServer):
    """Answers as the path says; counts what came. With `contexts`, TLS by the name asked for (SNI)."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512
    block_on_close = False

    def __init__(self, contexts: dict[str, ssl.SSLContext] | None = None) -> None:
        self.hits: Counter[str] = Counter()
        self.hosts: list[str] = []
        self.agents: set[str] = set()
        self.open_now = 0
        self.most_open = 0
        self.sent = 0
        self.status = 200
        self.loop = "/loop"
        self.before: dict[str, Callable[[], None]] = {}  # what to do before a path is answered
        self.guard = threading.Lock()
        self.closing = threading.Event()
        self.tls: ssl.SSLContext | None = None
        if contexts:
            self.tls = next(iter(contexts.values()))

            def choose(connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
                connection.context = contexts.get(name or "", self.tls)

            self.tls.sni_callback = choose
        super().__init__(("127.0.0.1", free_port()), _Conversation)
        self.port = int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self.hits["connections"] += 1
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what these tests are about."""


class _Conversation(socketserver.BaseRequestHandler):
    server: Web

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self._talk()

    def _talk(self) -> None:
        connection = self.request
        connection.settimeout(10)
        if self.server.tls is not None:
            connection = self.server.tls.wrap_socket(connection, server_side=True)
        with connection:
            self._listen(connection)

    def _listen(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = connection.recv(65536)
            if not chunk:
                return
            received += chunk
        head = received.decode("latin-1").split("\r\n")
        path = head[0].split()[1]
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        with self.server.guard:
            self.server.hits[path] += 1
            self.server.hosts.append(headers.get("host", ""))
            self.server.agents.add(headers.get("user-agent", ""))
        if path in self.server.before:
            self.server.before[path]()
        self._answer(connection, path)

    def _answer(self, connection: socket.socket, path: str) -> None:
        word, _, rest = path.lstrip("/").partition("/")
        if word == "status":
            connection.sendall(f"HTTP/1.1 {rest} x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".encode())
        elif word == "to":  # /to/http/host:port/path
            scheme, _, where = rest.partition("/")
            location = f"{scheme}://{where}" if scheme else f"/{where}"
            connection.sendall(
                f"HTTP/1.1 302 x\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
        elif word == "loop":
            connection.sendall(f"HTTP/1.1 302 x\r\nLocation: {self.server.loop}\r\nContent-Length: 0\r\n\r\n".encode())
        elif word == "chain":  # /chain/3 leads to /chain/2 …
            more = int(rest)
            reply = f"302 x\r\nLocation: /chain/{more - 1}" if more else "200 x"
            connection.sendall(f"HTTP/1.1 {reply}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        elif word == "hang":
            connection.recv(1)  # until the client has had enough
        elif word == "slow":
            with self.server.guard:
                self.server.open_now += 1
                self.server.most_open = max(self.server.most_open, self.server.open_now)
            time.sleep(0.2)
            with self.server.guard:
                self.server.open_now -= 1
            connection.sendall(b"HTTP/1.1 200 x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        elif word == "stream":
            connection.sendall(b"HTTP/1.1 200 x\r\nConnection: close\r\n\r\n")
            while not self.server.closing.is_set():
                self.server.sent += connection.send(b"x" * 65536)
        elif word == "drip":
            connection.sendall(b"HTTP/1.1 200 x\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n")
            while not self.server.closing.wait(0.1):
                connection.sendall(b"x")
        elif word == "headers":
            connection.sendall(b"HTTP/1.1 200 x\r\n")
            while not self.server.closing.is_set():
                connection.sendall(b"X-More: " + b"y" * 1000 + b"\r\n")
        elif word == "garbage":
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        elif word == "dead" or (word == "once" and self.server.hits[path] > 1):
            return
        else:
            reply = f"HTTP/1.1 {self.server.status} x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
            connection.sendall(reply.encode())


@contextlib.contextmanager
def web(contexts: dict[str, ssl.SSLContext] | None = None) -> Iterator[Web]:
    """A running Web, stopped at the end."""
    server = Web(contexts)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that accepts and never says a word; the port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", free_port()))
        listening.listen(64)
        yield int(listening.getsockname()[1])


# --- DNS

Zone = dict[str, list[str] | Callable[[], list[str]] | None]


class _Names(socketserver.ThreadingUDPServer):
    daemon_threads = True
    block_on_close = False
    zone: Zone


class _Question(socketserver.BaseRequestHandler):
    server: _Names

    def handle(self) -> None:
        packet, reply_to = self.request
        labels, at = [], 12
        while packet[at]:
            labels.append(packet[at + 1 : at + 1 + packet[at]].decode())
            at += packet[at] + 1
        wanted = struct.unpack("!H", packet[at + 1 : at + 3])[0]
        name = ".".join(labels).lower()
        if name not in self.server.zone:
            reply_to.sendto(self._reply(packet, at, 3, []), self.client_address)
            return
        found = self.server.zone[name]
        if found is None:  # this name is never answered
            return
        if callable(found):
            found = found() if wanted == 1 else []
        version = {1: 4, 28: 6}.get(wanted)
        addresses = [a for a in map(ip_address, found) if a.version == version]
        reply_to.sendto(self._reply(packet, at, 0, addresses), self.client_address)

    def _reply(self, packet: bytes, end: int, code: int, addresses: list[object]) -> bytes:
        answers = b"".join(
            struct.pack("!HHHIH", 0xC00C, 1 if isinstance(a, IPv4Address) else 28, 1, 0, len(a.packed)) + a.packed
            for a in addresses
        )
        head = packet[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(addresses), 0, 0)
        return head + packet[12 : end + 5] + answers


@contextlib.contextmanager
def names(zone: Zone) -> Iterator[int]:
    """A DNS server for `zone` (a list of addresses, a callable that makes one, None: no answer); its port."""
    with _Names(("127.0.0.1", free_port()), _Question) as server:
        server.zone = zone
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join(5)
