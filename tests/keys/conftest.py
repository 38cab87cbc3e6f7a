"""A platform with accounts and credentials, a keyring, and rotate_keys behind an address as its function is."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.call import by_hand
from shared.database import Database
from shared.keys.credentials import Credentials
from shared.keys.keyring import Keyring
from shared.laptop.ports import free_ports
from shared.settings import Settings
from tests.conftest import NOW, ManualClock, RunTask

ACCOUNTS = ("a1", "a2", "a3")


@pytest.fixture
def keyring(settings: Settings) -> Keyring:
    return Keyring(Path(settings.environ["KEEPER_KEY_KEK"]))


@pytest.fixture
def credentials(keyring: Keyring) -> Credentials:
    """The application's side."""
    return Credentials(keyring)


@pytest.fixture
def accounts(db: Database) -> tuple[str, ...]:
    with db.transaction() as connection:
        for name in ACCOUNTS:
            connection.execute(
                text("""
                insert into user_profile (account_id, firebase_uid, email, created_at, updated_at)
                values (:name, :name, :name || '@example.com', :now, :now)"""),
                {"name": name, "now": NOW},
            )
    return ACCOUNTS


Write = Callable[..., None]
Read = Callable[[str, str], bytes | None]


@pytest.fixture
def write(db: Database, credentials: Credentials, accounts: tuple[str, ...], clock: ManualClock) -> Write:
    def put(account: str, provider: str, value: bytes) -> None:
        with db.transaction() as connection:
            credentials.write(connection, account_id=account, provider=provider, value=value, now=clock.now())

    return put


@pytest.fixture
def read(db: Database, credentials: Credentials) -> Read:
    def get(account: str, provider: str) -> bytes | None:
        with db.transaction(read_only=True) as connection:
            return credentials.read(connection, account_id=account, provider=provider)

    return get


@dataclass
class Endpoint:
    """Where a started task is called; the requests it was given."""

    url: str
    asked: list[uuid.UUID]


@pytest.fixture
def rotate_keys_at(run_task: RunTask) -> Iterator[Endpoint]:
    """rotate_keys behind an address, run as its own role when it is called."""
    asked: list[uuid.UUID] = []

    class Function(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(uuid.UUID(body["run_request"]))
            result = run_task("rotate_keys", by_hand(asked[-1]))
            answer = json.dumps(result.document()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", next(free_ports())), Function)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield Endpoint(f"http://127.0.0.1:{server.server_port}/", asked)
    server.shutdown()
    thread.join()
    server.server_close()
