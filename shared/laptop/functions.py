"""All functions of the plane behind one address: each at /<slug>, and its endpoints at their own paths.

By default they share this process, each as functions-framework makes it; `isolated` gives each a process of its
own, as in the cloud. Endpoints' paths are routed as Firebase Hosting's rewrites do: the function sees the whole path.
As in the cloud a function takes as many requests at once as `max_instances` times `concurrency`; more wait, then 429.
"""

import json
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import functions_framework
import requests
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from shared.laptop.ports import answers, free_ports
from shared.laptop.processes import Child
from shared.manifest import Http, Task

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

DEFAULT_PORT = 8080

# Cloud Run lets a request wait about this long for a free instance.
_QUEUE_S = 10.0
_STOP_S = 5.0


class Apps(Protocol):
    """Where the functions run."""

    def app(self, task: Task) -> "WSGIApplication":
        """What answers for `task`."""
        ...

    def stop(self) -> None: ...


class OneProcess:
    """Every function in this process. Its settings are this process's environment."""

    def app(self, task: Task) -> "WSGIApplication":
        """The function as functions-framework serves it. What is wrong with its source is raised here."""
        path = list(sys.path)
        try:
            return functions_framework.create_app("main", str(task.folder / "main.py"), "http")  # type: ignore[no-any-return, no-untyped-call]
        finally:
            # The framework loads every source as the module `main` and puts its folder on the path: a later
            # `import main`, or a neighbour's file of the same name, would silently be another task's.
            sys.modules.pop("main", None)
            sys.path[:] = path

    def stop(self) -> None:
        """Nothing runs but requests, and those end with their server."""


class Isolated:
    """Every function as a process of functions-framework; requests are passed on."""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self._environ = environ
        self._folder = folder
        self._children: list[Child] = []
        self._forwards: list[Forward] = []

    def app(self, task: Task) -> "WSGIApplication":
        """Start the function's process. Raises NotStartedError."""
        port = next(free_ports())
        source = ["--target", "main", "--source", str(task.folder / "main.py"), "--signature-type", "http"]
        arguments = [sys.executable, "-m", "functions_framework", *source, "--host", "127.0.0.1", "--port", str(port)]
        child = Child.start(task.slug, arguments, folder=self._folder, env=self._environ, cwd=task.folder)
        self._children.append(child)
        child.wait_until(lambda: answers(port))
        forward = Forward(f"http://127.0.0.1:{port}")
        self._forwards.append(forward)
        return forward

    def stop(self) -> None:
        """End every process."""
        for forward in self._forwards:
            forward.close()
        for child in self._children:
            child.stop()


class Forward:
    """Passes a request on to the process that has the function."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._web = requests.Session()
        self._web.trust_env = False

    def close(self) -> None:
        """Let go of the connections that were kept for the next request."""
        self._web.close()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        headers = {name: value for name, value in request.headers if name.lower() not in ("host", "connection")}
        query = f"?{request.query_string.decode()}" if request.query_string else ""
        try:
            answer = self._web.request(
                request.method, f"{self._url}{request.path}{query}", headers=headers, data=request.get_data(),
                allow_redirects=False,
            )  # fmt: skip
        except requests.ConnectionError:
            return Response("the function's process does not answer\n", 503)(environ, start_response)
        own = {"connection", "transfer-encoding", "content-encoding", "content-length", "keep-alive", "server", "date"}
        passed = [(name, value) for name, value in answer.headers.items() if name.lower() not in own]
        return Response(answer.content, answer.status_code, passed)(environ, start_response)


class _Capacity:
    """A function's room for requests at once; who finds none in time is told 429, as by Cloud Run."""

    def __init__(self, app: "WSGIApplication", room: int) -> None:
        self._app = app
        self._free = threading.BoundedSemaphore(room)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not self._free.acquire(timeout=_QUEUE_S):
            return Response("no available instance\n", 429)(environ, start_response)
        try:
            return list(self._app(environ, start_response))
        finally:
            self._free.release()


class _Router:
    """/<slug>/… to its function with the slug taken off; an endpoint's path to its function as it is; / lists all."""

    def __init__(self, tasks: Sequence[Task], apps: Mapping[str, "WSGIApplication"]) -> None:
        self._apps = {task.slug: apps[task.name] for task in tasks}
        self._endpoints = [
            (path_pattern(trigger.path), apps[task.name])
            for task in tasks
            for trigger in task.triggers
            if isinstance(trigger, Http)
        ]
        # the more is spelled out, the earlier: /a/b before /a/{id} before /a/**
        self._endpoints.sort(key=lambda endpoint: endpoint[0].pattern.count("["))
        listed = {f"/{task.slug}": task.summary for task in tasks}
        self._index = Response(json.dumps(listed, indent=2) + "\n", content_type="application/json")

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", ""))
        for pattern, app in self._endpoints:
            if pattern.fullmatch(path):
                return app(environ, start_response)
        slug, _, rest = path.removeprefix("/").partition("/")
        if slug in self._apps:
            environ["SCRIPT_NAME"] = f"{environ.get('SCRIPT_NAME', '')}/{slug}"
            environ["PATH_INFO"] = f"/{rest}"  # never empty: Flask would redirect, and the bus follows no redirect
            return self._apps[slug](environ, start_response)
        found = self._index if path == "/" else Response(f"no function or endpoint at {path}\n", 404)
        return found(environ, start_response)


def path_pattern(path: str) -> re.Pattern[str]:
    """The requests an endpoint's `path` means: {name} and * are one segment or a part of one, ** any number."""
    parts = re.split(r"(\*\*|\*|\{[^}]*\})", path)
    meanings = {"**": "[^?]*", "*": "[^/]*"}
    return re.compile("".join(meanings.get(p) or ("[^/]+" if p.startswith("{") else re.escape(p)) for p in parts))


class _Quiet(WSGIRequestHandler):
    """The runs say what happened; a second line for each request says nothing more."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...


class Functions:
    """The server on 127.0.0.1:`port`, a thread a request. `stop` waits a few seconds for requests under way."""

    def __init__(self, *, port: int = DEFAULT_PORT) -> None:
        """Take the address, so that it can be told to others before `serve` loads what answers there."""
        self._apps: Apps | None = None
        self._router: _Router | None = None
        self._under_way = 0
        self._changed = threading.Condition()
        self._server = _bind(self._answer, port)
        self.port = int(self._server.server_port)
        self.base = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="functions")

    def serve(self, tasks: Mapping[str, Task], apps: Apps) -> None:
        """Load every function of `tasks` and answer. Raises what a function's source raises, NotStartedError."""
        served = [task for task in tasks.values() if task.run.kind == "function"]
        self._apps = apps
        loaded = {t.name: _Capacity(apps.app(t), t.run.max_instances * t.run.concurrency) for t in served}
        self._router = _Router(served, loaded)
        self._thread.start()

    def url(self, task: Task) -> str:
        """Where `task` is called."""
        return f"{self.base}/{task.slug}"

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        with self._counting():
            return list(self._router(environ, start_response)) if self._router else []

    @contextmanager
    def _counting(self) -> Iterator[None]:
        with self._changed:
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def stop(self) -> None:
        """Take no more requests, wait for those under way, end."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        with self._changed:
            self._changed.wait_for(lambda: self._under_way == 0, timeout=_STOP_S)
        self._server.server_close()
        if self._apps is not None:
            self._apps.stop()


def _bind(app: Callable[..., Iterable[bytes]], wish: int) -> Any:
    for port in free_ports(wish):
        try:
            return make_server("127.0.0.1", port, app, threaded=True, request_handler=_Quiet)
        except SystemExit:  # werkzeug's word for a port taken since
            continue
    raise OSError("no free port on 127.0.0.1 for the functions: end some of the programs that listen there")
