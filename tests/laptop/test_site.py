"""The site on a laptop: the build with its guards, the endpoints behind it, and which Firebase is its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from shared.laptop.ports import free_ports
from shared.laptop.site import Site


@pytest.fixture
def base(tmp_path: Path) -> Iterator[str]:
    """The site before a function that says what it was asked."""
    import threading

    def functions(environ: dict[str, object], start_response: object) -> object:
        asked = Request(environ)
        return Response(f"{asked.method} {asked.path} {asked.headers['Authorization']}")(environ, start_response)  # type: ignore[arg-type]

    server = make_server("127.0.0.1", next(free_ports()), functions, threaded=True)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("home")
    (tmp_path / "account.html").write_text("account")
    (tmp_path / "assets" / "a.js").write_text("1")
    (tmp_path.parent / "secret.txt").write_text("secret")
    address = f"http://127.0.0.1:{server.server_port}"
    site = Site(address, project="p", firebase="127.0.0.1:9", dist=tmp_path, port=next(free_ports()))
    yield site.base
    site.stop()
    server.shutdown()
    thread.join()
    server.server_close()


def test_pages_have_clean_addresses_and_the_sites_guards(base: str) -> None:
    for path, text in (("/", "home"), ("/account", "account")):
        answer = requests.get(base + path, timeout=5)
        assert answer.text == text
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "connect-src http://127.0.0.1:9 'self'" in answer.headers["Content-Security-Policy"]
    assert "immutable" in requests.get(f"{base}/assets/a.js", timeout=5).headers["Cache-Control"]


def test_endpoints_go_to_their_function_and_nothing_else_does(base: str) -> None:
    headers = {"Authorization": "Bearer x"}
    answer = requests.delete(f"{base}/api/v1/auth/delete-account", headers=headers, timeout=5)
    assert answer.text == "DELETE /api/v1/auth/delete-account Bearer x"
    assert requests.get(f"{base}/internal/anything", headers=headers, timeout=5).status_code == 404


@pytest.mark.parametrize("path", ["/../secret.txt", "/%2e%2e/secret.txt", "/assets/../../secret.txt", "/assets"])
def test_no_file_beside_the_build_is_served(base: str, path: str) -> None:
    with requests.Session() as web:
        request = requests.Request("GET", base).prepare()
        request.url = base + path
        assert web.send(request, timeout=5).status_code == 404


def test_the_reserved_address_names_our_own_firebase(base: str) -> None:
    config = requests.get(f"{base}/__/firebase/init.json", timeout=5).json()
    assert (config["projectId"], config["emulator"]) == ("p", "http://127.0.0.1:9")
