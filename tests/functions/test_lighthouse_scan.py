"""lighthouse_scan: the real Lighthouse, a dead page as a result, and no way to an address that is not public."""

import gzip
import json
import os
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.addresses import Reach
from shared.call import of_slot
from shared.database import Database
from shared.errors import Outcome
from shared.lighthouse import scanner
from shared.lighthouse.proxy import Proxy, proxy
from shared.manifest import Cron, load_all
from tests import node
from tests.conftest import NOW, RunTask
from tests.parts import missing

Rows = Callable[..., list[Any]]
LOOPBACK = Reach.of(allow=["127.0.0.0/8"])
PAGE = b"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Status</title>
<meta name="description" content="All is well."><meta name="viewport" content="width=device-width"></head>
<body><main><h1>All is well</h1></main></body></html>"""


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append((self.headers["Host"], self.path))
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/computeMetadata/v1/")
            self.end_headers()
            return
        body = b"x" * 300_000 if self.path == "/large" else PAGE
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def page(db: Database) -> Callable[..., None]:
    """A status page at an address."""

    def insert(number: int, url: str, *, public: bool = True) -> None:
        with db.transaction() as connection:
            connection.execute(
                text("""
                insert into user_profile (account_id, firebase_uid, email, created_at, updated_at)
                values ('a1', 'f1', 'a1@example.com', :now, :now) on conflict do nothing"""),
                {"now": NOW},
            )
            connection.execute(
                text("""
                insert into status_page (id, account_id, slug, title, url, is_public, created_at, updated_at)
                values (:id, 'a1', 's' || :id, 't', :url, :public, :now, :now)"""),
                {"id": number, "url": url, "public": public, "now": NOW},
            )

    return insert


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lighthouse as its lock file says; Chromium as it is installed."""
    if shutil.which("chromium") is None:
        missing("Chromium", "apt-get install chromium")
    binary = node.installed("images/lighthouse") / ".bin"
    monkeypatch.setenv("PATH", f"{binary}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def named_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Programs of the right names, for runs that come to no browser."""
    for name in ("node", "lighthouse", "chromium"):
        (tmp_path / name).write_text("#!/bin/false\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def through(way: Proxy, url: str) -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{way.port}"}))
    try:
        with opener.open(url, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_the_proxy_brings_what_is_allowed(site: ThreadingHTTPServer) -> None:
    with proxy(LOOPBACK, most_bytes=1_000_000) as way:
        assert through(way, f"http://127.0.0.1:{site.server_port}/a?b=c") == (200, PAGE)
        assert site.asked == [(f"127.0.0.1:{site.server_port}", "/a?b=c")]
        assert way.spent > len(PAGE)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "localhost", "169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433"]
)
def test_the_proxy_connects_to_nothing_inside(site: ThreadingHTTPServer, address: str) -> None:
    with proxy(Reach(), most_bytes=1_000_000) as way:
        assert through(way, f"http://{address}:{site.server_port}/")[0] == 403
        with socket.create_connection(("127.0.0.1", way.port), 5) as tunnel:
            tunnel.sendall(f"CONNECT {address}:{site.server_port} HTTP/1.1\r\n\r\n".encode())
            assert b" 403 " in tunnel.recv(100)
        assert way.refused == 2
    assert site.asked == []


@pytest.mark.parametrize(
    "head", [b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"CONNECT :1 HTTP/1.1\r\n\r\n", b"\xff" * 70_000]
)
def test_the_proxy_refuses_what_is_no_request(head: bytes) -> None:
    with proxy(LOOPBACK, most_bytes=1_000_000) as way, socket.create_connection(("127.0.0.1", way.port), 5) as client:
        client.sendall(head)
        assert b" 403 " in client.recv(100)


def test_the_proxy_cuts_a_page_that_is_too_large(site: ThreadingHTTPServer) -> None:
    with proxy(LOOPBACK, most_bytes=100_000) as way:
        with pytest.raises(Exception, match="IncompleteRead"):
            through(way, f"http://127.0.0.1:{site.server_port}/large")
        assert way.spent > 100_000


def test_pages_that_lead_nowhere_are_results_without_a_browser(
    page: Callable[..., None], run_task: RunTask, rows: Rows, named_tools: None
) -> None:
    page(4, "https://nobody.invalid/")
    page(8, "http://127.0.0.1/")
    page(12, "ftp://x.example/")
    page(16, "https://hidden.invalid/", public=False)
    page(17, "https://other-shard.invalid/")
    result = run_task("lighthouse_scan", of_slot(Cron("37 */6 * * *"), NOW))
    assert result.outcome is Outcome.OK, result.error
    assert result.counts == {"scanned": 3, "dead": 3}
    assert [
        (row.status_page_id, row.performance, row.error) for row in rows("select * from lighthouse_scan order by 2")
    ] == [
        (4, None, "the page's name does not resolve"),
        (8, None, "the page's address is loopback"),
        (12, None, "the page's address is not http or https, or holds a user"),
    ]
    assert run_task("lighthouse_scan", of_slot(Cron("37 */6 * * *"), NOW)).outcome is Outcome.SKIPPED


def test_every_page_is_of_exactly_one_shard(
    page: Callable[..., None], run_task: RunTask, rows: Rows, tools: None
) -> None:
    for number in range(1, 9):
        page(number, "https://nobody.invalid/")
    shards = load_all()["lighthouse_scan"].run.tasks
    for shard in range(shards):
        result = run_task("lighthouse_scan", of_slot(Cron("37 */6 * * *"), NOW, shard=shard))
        assert result.counts["scanned"] == 8 / shards
    assert [row[0] for row in rows("select status_page_id from lighthouse_scan order by 1")] == list(range(1, 9))


def test_without_chromium_the_run_is_unavailable_and_names_it(
    page: Callable[..., None], run_task: RunTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run_task("lighthouse_scan")
    assert "chromium" in (result.error or "")
    assert result.outcome is Outcome.UNAVAILABLE


def test_a_report_without_a_score_is_a_result() -> None:
    assert scanner.read({"runtimeError": {"code": "NO_FCP"}}).error == "the page did not load (NO_FCP)"
    assert scanner.read({"categories": {}}).error == "Lighthouse gave no score"


@pytest.mark.full
def test_a_real_page_is_scanned_and_its_trimmed_report_kept(
    page: Callable[..., None], run_task: RunTask, rows: Rows, site: ThreadingHTTPServer, tools: None
) -> None:
    page(4, f"http://127.0.0.1:{site.server_port}/")
    page(8, f"http://127.0.0.1:{site.server_port}/away")
    params = {"allow_networks": ["127.0.0.0/8"]}
    result = run_task("lighthouse_scan", params=params)
    assert result.outcome is Outcome.OK, result.error
    assert result.counts == {"scanned": 2, "dead": 1}
    good, bad = rows("select * from lighthouse_scan order by status_page_id")
    assert good.performance >= 80
    assert good.accessibility == 100
    assert good.lcp_ms > 0
    assert good.cls == 0
    report = json.loads(gzip.decompress(Path(good.report).read_bytes()))
    assert report["lighthouse"] == "12.8.2"
    assert len(json.dumps(report)) < 40_000
    assert bad.performance is None
    assert "did not load" in bad.error
