"""A real HTTP server on 127.0.0.1 that serves feeds as their publishers do: keys, validators, pages, and trouble."""

import contextlib
import gzip
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.telemetry.servers import free_port


@dataclass
class Page:
    """What a path answers. `key`: header and value it asks for; `cut`: the body breaks off after so many bytes."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    key: tuple[str, str] | None = None
    etag: str | None = None
    cut: int | None = None
    zipped: bool = False
    drip_s: float = 0  # between each byte of the body


@dataclass
class Hit:
    """A request that came."""

    path: str
    headers: Message


class Publisher(ThreadingHTTPServer):
    """Answers by `pages`, and notes what came in `hits`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", free_port()), _Answer)
        self.pages: dict[str, Page] = {}
        self.hits: list[Hit] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about."""


class _Answer(BaseHTTPRequestHandler):
    server: Publisher

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the parent's name
        """Nothing is printed."""

    def do_GET(self) -> None:
        self.server.hits.append(Hit(self.path, self.headers))
        page = (
            self.server.pages.get(self.path) or self.server.pages.get(self.path.partition("?")[0]) or Page(status=404)
        )
        if page.key and self.headers.get(page.key[0]) != page.key[1]:
            page = Page(status=403)
        elif page.etag and self.headers.get("If-None-Match") == page.etag:
            page = Page(status=304)
        body = gzip.compress(page.body) if page.zipped else page.body
        self.send_response(page.status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        if page.etag:
            self.send_header("ETag", page.etag)
        if page.zipped:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if page.drip_s:
            for byte in body:
                self.wfile.write(bytes((byte,)))
                time.sleep(page.drip_s)
        else:
            self.wfile.write(body[: page.cut])


@contextlib.contextmanager
def publisher() -> Iterator[Publisher]:
    """A running publisher, stopped at the end."""
    server = Publisher()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
