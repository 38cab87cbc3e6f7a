"""The browser's only way out: a proxy on 127.0.0.1 that connects to public addresses and to nothing else.

A page is a stranger's, and so is every address in it. Names are resolved here, each answer is judged, and the
connection goes to the judged number, so neither a redirect nor a rebound name leads inside. What a page may load is
capped.
"""

import re
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from shared.addresses import Forbidden, Pin, Reach, pin

_HEAD = 65_536
_CONNECT_S = 10.0
_IDLE_S = 60.0
_REQUEST = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r\n")
_PLAIN = re.compile(rb"http://([^/?#]*)(.*)", re.DOTALL)
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_UNREACHED = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """One scan's proxy. `refused` counts what it did not connect to; `spent` the bytes that came in."""

    def __init__(self, reach: Reach, *, most_bytes: int) -> None:
        self._reach, self._most = reach, most_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.refused, self.spent = 0, 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ended = False
        threading.Thread(target=self._accept, name="scan-proxy", daemon=True).start()

    def close(self) -> None:
        """Stop, and cut what is under way."""
        with self._lock:
            self._ended = True
            left = [self._listener, *self._open]
        for one in left:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="scan-connection", daemon=True).start()

    @contextmanager
    def _kept(self, one: socket.socket) -> Iterator[socket.socket]:
        with self._lock:
            self._open.add(one)
        try:
            yield one
        finally:
            with self._lock:
                self._open.discard(one)
            one.close()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), self._kept(client):
            client.settimeout(_IDLE_S)
            head = _head(client)
            found = _REQUEST.match(head)
            if found is None:
                client.sendall(_REFUSED)
                return
            method, target = found[1], found[2]
            plain = _PLAIN.match(target)
            try:
                host, port = _authority((plain[1] if plain else target).decode("ascii"), 80 if plain else 443)
                upstream = self._connect(host, port)
            except (Forbidden, ValueError):
                self.refused += 1
                client.sendall(_REFUSED)
                return
            except OSError:
                client.sendall(_UNREACHED)
                return
            with self._kept(upstream):
                if method == b"CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    upstream.sendall(_rewritten(head, found.end(), method, plain[2] if plain else b"/"))
                self._pump(client, upstream)

    def _connect(self, host: str, port: int) -> socket.socket:
        return socket.create_connection((connectable(host, port, self._reach).text, port), timeout=_CONNECT_S)

    def _pump(self, client: socket.socket, upstream: socket.socket) -> None:
        other = {client: upstream, upstream: client}
        with selectors.DefaultSelector() as waiting:
            for one in other:
                waiting.register(one, selectors.EVENT_READ)
            while ready := waiting.select(_IDLE_S):
                for key, _ in ready:
                    source = client if key.fileobj is client else upstream
                    chunk = source.recv(65_536)
                    if source is upstream:
                        self.spent += len(chunk)
                    if not chunk or self.spent > self._most:
                        return
                    other[source].sendall(chunk)


def connectable(host: str, port: int, reach: Reach) -> Pin:
    """The address to connect to for a name or an address. Raises Forbidden, or OSError where there is none."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label longer than DNS has
        raise OSError("no such name") from None
    return pin((str(one[4][0]) for one in found), reach)[0]


@contextmanager
def proxy(reach: Reach, *, most_bytes: int) -> Iterator[Proxy]:
    """A proxy for as long as the block lasts."""
    started = Proxy(reach, most_bytes=most_bytes)
    try:
        yield started
    finally:
        started.close()


def _head(client: socket.socket) -> bytes:
    """A request's head and what came with it."""
    held = b""
    while b"\r\n\r\n" not in held and len(held) < _HEAD:
        chunk = client.recv(4096)
        if not chunk:
            break
        held += chunk
    return held


def _authority(text: str, default: int) -> tuple[str, int]:
    """Host and port of `host:port`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default)
    if not _HOST.fullmatch(host) or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError("no authority")
    return host, int(port)


def _rewritten(head: bytes, after: int, method: bytes, path: bytes) -> bytes:
    """A proxied request as its server wants it: the path alone, one request a connection."""
    lines, _, body = head[after:].partition(b"\r\n\r\n")
    kept = [
        line
        for line in lines.split(b"\r\n")
        if not line.lower().startswith((b"proxy-", b"connection:", b"upgrade:", b"keep-alive:"))
    ]
    first = method + b" " + (path if path.startswith(b"/") else b"/" + path) + b" HTTP/1.1"
    return b"\r\n".join([first, *kept, b"Connection: close", b"", body])
