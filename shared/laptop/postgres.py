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
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pg8000.native
import psutil

from shared.clock import SystemClock
from shared.laptop.postgres_binaries import (
    ROOT_HOME,
    Binaries,
    find_binaries,
    reachable,
    reachable_binaries,
    server_uid,
)

_PORTS = range(20000, 32000)  # below 32768, where systems hand out ports for outgoing connections
_START_S, _STOP_S = 60.0, 15.0
_CLOCK = SystemClock()

# Servers this process began, so that it can reap them; a server may well outlive its beginner.
_BEGUN: dict[int, subprocess.Popen[bytes]] = {}

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_preload_libraries": "pg_stat_statements",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# For tests: survives a killed server, not a power cut.
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class PostgresError(Exception):
    """The server cannot be started; the message names the folder, the cause and the remedy."""


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

        Raises PostgresMissingError when no programs are found, PostgresError when the server does not come up.
        """
        data = _placed(data)
        found = binaries or _binaries_for(data)
        uid = server_uid(data)
        if uid is not None:
            found = reachable_binaries(found, uid)
        with _starting(data):
            users = _open_private(data, "users")
            try:
                fcntl.flock(users, fcntl.LOCK_SH)
                password = _password(data)
                if not (data / "PG_VERSION").exists():
                    _initialise(data, found, password, uid=uid, durable=durable)
                running = _running(data, password) or _spawn(data, found, password, uid=uid, port=port, durable=durable)
            except BaseException:
                users.close()
                raise
        return cls(data, found, running[1], password, running[0], users)

    @classmethod
    @contextmanager
    def temporary(cls, *, binaries: Binaries | None = None) -> Iterator["Postgres"]:
        """A fast server for tests, in a folder of its own that goes with it. Does not survive a power cut."""
        folder = Path(tempfile.mkdtemp(prefix="groundskeeper-"))
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
        """Create the database `name` as a copy of `template`; its URL."""
        self.execute(f"create database {pg8000.native.identifier(name)} template {pg8000.native.identifier(template)}")
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Drop the database `name` with everybody connected to it; nothing when there is none."""
        self.execute(f"drop database if exists {pg8000.native.identifier(name)} with (force)")

    def execute(self, sql: str) -> list[list[object]]:
        """The rows of one statement, run as superuser in the database `postgres`, outside a transaction."""
        with _connected(self.port, self._password) as connection:
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
                _stop(self.data)
            finally:
                self._users.close()
                self._users = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


# --- files beside the data folder ----------------------------------------------------------------------------


def _placed(data: Path) -> Path:
    """Where the cluster is kept: `data`, or for root, when the server's user cannot reach it, a folder it can."""
    data = data.resolve()
    data.parent.mkdir(parents=True, exist_ok=True)
    uid = server_uid(data)
    if uid is None or reachable(data, uid):
        return data
    ROOT_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
    return ROOT_HOME / f"{data.name}-{hashlib.sha256(str(data).encode()).hexdigest()[:12]}"


def _beside(data: Path, what: str) -> Path:
    return data.with_name(f"{data.name}.{what}")


def _open_private(data: Path, what: str) -> IO[bytes]:
    path = _beside(data, what)
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


def _password(data: Path) -> str:
    with _open_private(data, "password") as file:
        password = file.read().decode()
        if password:
            return password
        if (data / "PG_VERSION").exists():
            raise PostgresError(f"{_beside(data, 'password')} is gone, so nobody can log in: remove {data} too")
        password = secrets.token_urlsafe(24)
        file.write(password.encode())
        return password


# --- programs ------------------------------------------------------------------------------------------------


def _binaries_for(data: Path) -> Binaries:
    version = data / "PG_VERSION"
    return find_binaries(int(version.read_text()) if version.exists() else None)


def _as_server(uid: int | None, **environment: str) -> dict[str, Any]:
    """Arguments for subprocess: away from our terminal, our folder and, for root, our rights."""
    options: dict[str, Any] = {
        "cwd": "/",
        "start_new_session": True,
        "stdin": subprocess.DEVNULL,
        "umask": 0o077,
        "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"} | environment,
    }
    return options if uid is None else options | {"user": uid, "group": uid, "extra_groups": []}


def _initialise(data: Path, found: Binaries, password: str, *, uid: int | None, durable: bool) -> None:
    """Make the cluster beside its place and rename it, so that a kill leaves no half of one."""
    new = _beside(data, "new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    # The builtin provider has C.UTF-8 on every system; before 17 macOS has none, and sorts by bytes all the same.
    locale = (
        ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if found.major >= 17
        else ["--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C"]
    )
    with tempfile.NamedTemporaryFile("w", dir=data.parent, prefix=f"{data.name}.pw-") as password_file:
        password_file.write(password)
        password_file.flush()
        if uid is not None:
            os.chown(new, uid, uid)
            os.chown(password_file.name, uid, uid)
        done = subprocess.run(
            [
                found.program("initdb"),
                "-D",
                new,
                "-U",
                "postgres",
                "-E",
                "UTF8",
                *locale,
                "--auth=scram-sha-256",
                f"--pwfile={password_file.name}",
                *([] if durable else ["--no-sync"]),
            ],
            capture_output=True,
            text=True,
            **_as_server(uid),
        )
    if done.returncode:
        raise PostgresError(f"initdb could not make {data}: {done.stderr.strip()[-500:]}")
    with suppress(FileNotFoundError):
        data.rmdir()  # an empty folder somebody made beforehand
    new.rename(data)


def _spawn(
    data: Path, found: Binaries, password: str, *, uid: int | None, port: int | None, durable: bool
) -> tuple[int, int]:
    """Start a server: its (pid, port). A port that was taken between the look and the start is replaced."""
    log = _beside(data, "log")
    settings = _SETTINGS | ({} if durable else _NOT_DURABLE)
    arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    options = _as_server(uid, **_past_stale_pid(data))
    limit = _CLOCK.monotonic() + _START_S
    for candidate in _free_ports(port):
        with log.open("wb") as output:
            process = subprocess.Popen(
                [found.program("postgres"), "-D", data, "-p", str(candidate), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                **options,
            )
        try:
            if _ready(process, candidate, password):
                _BEGUN[process.pid] = process
                return process.pid, candidate
        except BaseException:
            process.send_signal(signal.SIGQUIT)
            process.wait()
            raise
        words = log.read_text(errors="replace")
        leaving = "pre-existing shared memory block" in words  # the children of a killed server, for a moment
        if not (leaving or "could not bind" in words) or _CLOCK.monotonic() > limit:
            raise PostgresError(f"the PostgreSQL of {data} did not start (log: {log}): {words.strip()[-500:]}")
        _CLOCK.sleep(0.1)
    raise PostgresError(f"no free port from {_PORTS.start} to {_PORTS.stop} on 127.0.0.1 for the PostgreSQL of {data}")


def _past_stale_pid(data: Path) -> dict[str, str]:
    """Environment that lets PostgreSQL start over the postmaster.pid of a dead server.

    The number in it may be another process's by now, and PostgreSQL would refuse to start beside that one. Removing
    the file would also switch off its check that no orphan of the dead server still writes; naming the number as
    a grandparent, as pg_ctl does, keeps that check.
    """
    with suppress(FileNotFoundError):
        return {"PG_GRANDPARENT_PID": (data / "postmaster.pid").read_text().split("\n")[0]}
    return {}


def _free_ports(wish: int | None) -> Iterator[int]:
    candidates = random.sample(_PORTS, 200)
    for port in [wish, *candidates] if wish else candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                probe.close()
                yield port


def _ready(process: subprocess.Popen[bytes], port: int, password: str) -> bool:
    """Wait until the server answers: True, or False when it ended instead."""
    limit = _CLOCK.monotonic() + _START_S
    while process.poll() is None:
        if _answers(port, password):
            return True
        if _CLOCK.monotonic() > limit:
            process.send_signal(signal.SIGQUIT)
        _CLOCK.sleep(0.05)
    return False


# --- a server that is there ----------------------------------------------------------------------------------


@contextmanager
def _connected(port: int, password: str) -> Iterator[pg8000.native.Connection]:
    connection = pg8000.native.Connection(
        "postgres", host="127.0.0.1", port=port, password=password, database="postgres", timeout=30
    )
    try:
        yield connection
    finally:
        with suppress(pg8000.native.InterfaceError):
            connection.close()


def _answers(port: int, password: str) -> bool:
    with (
        suppress(OSError, pg8000.native.InterfaceError, pg8000.native.DatabaseError),
        _connected(port, password) as server,
    ):
        return bool(server.run("select 1"))
    return False


def _postmaster(data: Path) -> tuple[psutil.Process, int] | None:
    """The process and port that postmaster.pid names, when that process is a living server of `data`."""
    with suppress(OSError, ValueError, IndexError, psutil.NoSuchProcess, psutil.AccessDenied):
        lines = (data / "postmaster.pid").read_text().split("\n")
        process, port = psutil.Process(int(lines[0])), int(lines[3])
        if str(data) in process.cmdline():
            return process, port
    return None


def _running(data: Path, password: str) -> tuple[int, int] | None:
    """The (pid, port) of a server somebody left or shares, once it answers; None when there is none."""
    limit = _CLOCK.monotonic() + _START_S
    while found := _postmaster(data):
        process, port = found
        if _answers(port, password):
            return process.pid, port
        if _CLOCK.monotonic() > limit:
            raise PostgresError(
                f"process {process.pid} holds {data} and does not answer on port {port}: "
                f"see {_beside(data, 'log')}, then end it"
            )
        _CLOCK.sleep(0.05)
    return None


def _stop(data: Path) -> None:
    """End the server: politely, at once after _STOP_S."""
    found = _postmaster(data)
    if found is None:
        return
    process, _ = found
    for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(how)
        limit = _CLOCK.monotonic() + _STOP_S
        while _CLOCK.monotonic() < limit:
            if _postmaster(data) is None:
                if begun := _BEGUN.pop(process.pid, None):
                    begun.wait()
                return
            _CLOCK.sleep(0.02)
