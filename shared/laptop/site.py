"""The site of hosting/ as Firebase Hosting serves it: the build with its headers, the endpoints behind its rewrites,
and the reserved address that tells a page which Firebase is its own.

The built page finds our own Firebase Auth through it; the cloud's answer names none, so a page there asks Google's.
"""

import json
import mimetypes
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from werkzeug.security import safe_join
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from shared.laptop.functions import Forward, path_pattern
from shared.laptop.ports import free_ports
from shared.laptop.processes import Part
from shared.manifest import ROOT

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

HOSTING = ROOT / "hosting"
NOT_BUILT = Part("site", "", missing="hosting/dist is not built: npm ci && npm run build in hosting/")
# https://firebase.google.com/docs/hosting/reserved-urls
_CONFIG = "/__/firebase/init.json"
_PORT = 5000


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...


def built() -> bool:
    """Whether there is a build to serve."""
    return (HOSTING / "dist" / "account.html").is_file()


class Site:
    """Serves `dist` and the endpoints of `functions` (an address) at `base`."""

    def __init__(
        self, functions: str, *, project: str, firebase: str | None, dist: Path | None = None, port: int | None = None
    ) -> None:
        """`firebase` is the host:port of a Firebase Auth of our own."""
        rules = json.loads((HOSTING / "firebase.json").read_text(encoding="utf-8"))["hosting"]
        self._headers = [(path_pattern(rule["source"]), rule["headers"]) for rule in rules["headers"]]
        self._rewrites = [path_pattern(rule["source"]) for rule in rules["rewrites"]]
        self._dist = dist or HOSTING / "dist"
        self._config: dict[str, str] = {"projectId": project, "apiKey": "not-needed-here", "authDomain": "localhost"}
        self._firebase = f"http://{firebase}" if firebase else None
        if self._firebase:
            self._config["emulator"] = self._firebase
        self._forward = Forward(functions)
        self._server = _bind(self._answer, port or _PORT)
        self.base = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="site", daemon=True)
        self._thread.start()

    @property
    def part(self) -> Part:
        return Part("site", "hosting/dist with its headers and rewrites; the account page is /account", self.base)

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._forward.close()

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = Request(environ).path
        if path == _CONFIG:
            return Response(json.dumps(self._config), content_type="application/json")(environ, start_response)
        if (file := self._file(path)) is not None:
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            answer = Response(file.read_bytes(), content_type=kind, headers=self._guards(path))
            return answer(environ, start_response)
        if any(pattern.fullmatch(path) for pattern in self._rewrites):
            return self._forward(environ, start_response)
        return Response("not found\n", 404)(environ, start_response)

    def _file(self, path: str) -> Path | None:
        """The file at `path`, with clean addresses: /account is account.html."""
        for name in ("index.html",) if path == "/" else (path[1:], f"{path[1:]}.html"):
            found = safe_join(str(self._dist), name)
            if found is not None and Path(found).is_file():
                return Path(found)
        return None

    def _guards(self, path: str) -> Mapping[str, str]:
        headers: dict[str, str] = {}
        for pattern, rule in self._headers:
            if pattern.fullmatch(path):
                headers |= {header["key"]: header["value"] for header in rule}
        if self._firebase:
            policy = headers.get("Content-Security-Policy", "")
            headers["Content-Security-Policy"] = policy.replace("connect-src", f"connect-src {self._firebase}")
        return headers


def _bind(app: Callable[..., Iterable[bytes]], wish: int) -> Any:
    for port in free_ports(wish):
        try:
            return make_server("127.0.0.1", port, app, threaded=True, request_handler=_Quiet)
        except SystemExit:  # werkzeug's word for a port taken since
            continue
    raise OSError("no free port on 127.0.0.1 for the site: end some of the programs that listen there")
