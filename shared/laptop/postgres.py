"""A PostgreSQL of our own on 127.0.0.1: started from installed programs, shared, adopted after a crash, stopped.

    with Postgres.start(Path(".groundskeeper/postgres")) as server:
        url = server.create_database("demo")

Several processes may start the same data folder: they share one server, and the last one out stops it. Each
holds a shared lock, which the operating system drops with its process, so kill -9 leaves nothing to clean up: the
server goes on and the next start adopts it. As root the server runs as the data folder's owner, or nobody.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pg8000.native

from shared.backup.postgres_binaries import (
    ROOT_HOME,
    Binaries,
    find_binaries,
    reachable,
    reachable_binaries,
    server_uid,
)
from shared.laptop.postgres_server import PostgresError, beside, connected, end, find_running, initialise, spawn

_DUPLICATE_DATABASE, _UNIQUE_VIOLATION = "42P04", "23505"


class Postgres:
    """A running server. Made by `start`; `stop` (or the end of `with`) leaves it, and the last user stops it."""

    def __init__(self, data: Path, binaries: Binaries, port: int, password: str, pid: int, users: IO[bytes]) -> None:
        self.data = data
        self.binaries = binaries
        self.port = port
        self.pid = pid
        self._password = password
        self._users: IO[bytes] | None = users

    @classmethod
    def start(
        cls, data: Path, *, binaries: Binaries | None = None, port: int | None = None, durable: bool = True
    ) -> "Postgres":
        """The server of `data`, started or joined. `port` is a wish: a taken one is replaced by a free one.

        A server that died while others still use it is not started again behind their backs. Raises
        PostgresMissingError when no programs are found, PostgresError when the server does not or must not come up.
        """
        data = _placed(data)
        found = binaries or _binaries_for(data)
        uid = server_uid(data)
        if uid is not None:
            found = reachable_binaries(found, uid)
        with _starting(data):
            users = _open_private(data, "users")
            try:
                others = _joined(users)
                password = _password(data)
                if not (data / "PG_VERSION").exists():
                    initialise(data, found, password, uid=uid, durable=durable)
                running = find_running(data, password)
                if running is None and others:
                    raise PostgresError(
                        f"the PostgreSQL of {data} has died while others use it (see {beside(data, 'log')}): end them, "
                        "a plane with Ctrl-C where it runs, and start anew; what was committed is kept"
                    )
                pid, port = running or spawn(data, found, password, uid=uid, port=port, durable=durable)
            except BaseException:
                users.close()
                raise
        return cls(data, found, port, password, pid, users)

    @classmethod
    @contextmanager
    def temporary(cls, *, binaries: Binaries | None = None, parent: Path | None = None) -> Iterator["Postgres"]:
        """A fast server for tests, in a folder of its own that goes with it. Does not survive a power cut.

        The folder lies in `parent`, else where the system keeps what is temporary.
        """
        folder = Path(tempfile.mkdtemp(prefix="groundskeeper-", dir=parent))
        folder.chmod(0o711)  # the server's user walks through; what lies inside is private file by file
        try:
            with cls.start(folder / "postgres", binaries=binaries, durable=False) as server:
                yield server
        finally:
            shutil.rmtree(folder)

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database `postgres`, as superuser. Holds the password."""
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """The SQLAlchemy URL of the database `name`. Holds the password."""
        return f"postgresql+pg8000://postgres:{self._password}@127.0.0.1:{self.port}/{name}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create the database `name` as a copy of `template` unless it is there; its URL."""
        quoted = pg8000.native.identifier(name)
        try:
            self.execute(f"create database {quoted} template {pg8000.native.identifier(template)} strategy file_copy")
        except pg8000.native.DatabaseError as error:
            # unique_violation is what the slower of two creators at once sees
            if error.args[0].get("C") not in (_DUPLICATE_DATABASE, _UNIQUE_VIOLATION):
                raise
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Drop the database `name` with everybody connected to it; nothing when there is none."""
        self.execute(f"drop database if exists {pg8000.native.identifier(name)} with (force)")

    def execute(self, sql: str) -> list[list[object]]:
        """The rows of one statement, run as superuser in the database `postgres`, outside a transaction."""
        with connected(self.port, self._password) as connection:
            return [list(row) for row in connection.run(sql) or []]

    def stop(self) -> None:
        """Leave the server; stop it when nobody else uses it. A second call does nothing."""
        if self._users is None:
            return
        with _starting(self.data):
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # others go on
            else:
                end(self.data)
            finally:
                self._users.close()
                self._users = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


# --- files beside the data folder


def _placed(data: Path) -> Path:
    """Where the cluster is kept: `data`, or for root, when the server's user cannot reach it, a folder it can."""
    data = data.resolve()
    data.parent.mkdir(parents=True, exist_ok=True)
    uid = server_uid(data)
    if uid is None or reachable(data, uid):
        return data
    ROOT_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
    return ROOT_HOME / f"{data.name}-{hashlib.sha256(str(data).encode()).hexdigest()[:12]}"


def _open_private(data: Path, what: str) -> IO[bytes]:
    path = beside(data, what)
    try:
        return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0)
    except PermissionError:
        raise PostgresError(f"{path} belongs to another user: remove {data.parent}, or run as that user") from None


@contextmanager
def _starting(data: Path) -> Iterator[None]:
    """One process at a time starts or stops the server of `data`."""
    with _open_private(data, "starting") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _joined(users: IO[bytes]) -> bool:
    """Become one of those who hold `users`; whether there are others."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        others = True
    else:
        others = False
    fcntl.flock(users, fcntl.LOCK_SH)
    return others


def _password(data: Path) -> str:
    with _open_private(data, "password") as file:
        password = file.read().decode()
        if password:
            return password
        if (data / "PG_VERSION").exists():
            raise PostgresError(f"{beside(data, 'password')} is gone, so nobody can log in: remove {data} too")
        password = secrets.token_urlsafe(24)
        file.write(password.encode())
        return password


def _binaries_for(data: Path) -> Binaries:
    version = data / "PG_VERSION"
    return find_binaries(int(version.read_text()) if version.exists() else None)
