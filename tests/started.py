"""A task behind an address, as its function is: what `ctx.start` calls over HTTP."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from shared.laptop.ports import free_ports
from shared.result import Result


@dataclass
class Endpoint:
    """Where the task is called, the requests it was given, and how its runs ended."""

    url: str
    asked: list[uuid.UUID]
    ended: list[Result]


@contextmanager
def function(run: Callable[[uuid.UUID], Result]) -> Iterator[Endpoint]:
    """Serve `run` for each run request that is posted."""
    asked: list[uuid.UUID] = []
    ended: list[Result] = []

    class Function(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(uuid.UUID(body["run_request"]))
            ended.append(run(asked[-1]))
            answer = json.dumps(ended[-1].document()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", next(free_ports())), Function)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield Endpoint(f"http://127.0.0.1:{server.server_port}/", asked, ended)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
