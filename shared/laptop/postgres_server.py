"""One PostgreSQL server process of a data folder: made, started, found again, ended."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pg8000.native
import psutil

from shared.backup.postgres_binaries import Binaries
from shared.clock import SystemClock
from shared.errors import ConfigurationError
from shared.laptop.ports import PORTS, free_ports

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


class PostgresError(ConfigurationError):
    """The server cannot be started; the message names the folder, the cause and the remedy."""


def beside(data: Path, what: str) -> Path:
    return data.with_name(f"{data.name}.{what}")


# --- programs ------------------------------------------------------------------------------------------------


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


def initialise(data: Path, found: Binaries, password: str, *, uid: int | None, durable: bool) -> None:
    """Make the cluster beside its place and rename it, so that a kill leaves no half of one."""
    new = beside(data, "new")
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


def spawn(
    data: Path, found: Binaries, password: str, *, uid: int | None, port: int | None, durable: bool
) -> tuple[int, int]:
    """Start a server: its (pid, port). A port that was taken between the look and the start is replaced."""
    log = beside(data, "log")
    settings = _SETTINGS | ({} if durable else _NOT_DURABLE)
    arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    options = _as_server(uid, **_past_stale_pid(data))
    limit = _CLOCK.monotonic() + _START_S
    for candidate in free_ports(port):
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
    raise PostgresError(f"no free port from {PORTS.start} to {PORTS.stop} on 127.0.0.1 for the PostgreSQL of {data}")


def _past_stale_pid(data: Path) -> dict[str, str]:
    """Environment that lets PostgreSQL start over the postmaster.pid of a dead server.

    The number in it may be another process's by now, and PostgreSQL would refuse to start beside that one. Removing
    the file would also switch off its check that no orphan of the dead server still writes; naming the number as
    a grandparent, as pg_ctl does, keeps that check.
    """
    with suppress(FileNotFoundError):
        return {"PG_GRANDPARENT_PID": (data / "postmaster.pid").read_text().split("\n")[0]}
    return {}


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
def connected(port: int, password: str) -> Iterator[pg8000.native.Connection]:
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
        connected(port, password) as server,
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


def find_running(data: Path, password: str) -> tuple[int, int] | None:
    """The (pid, port) of a server somebody left or shares, once it answers; None when there is none."""
    limit = _CLOCK.monotonic() + _START_S
    while found := _postmaster(data):
        process, port = found
        if _answers(port, password):
            return process.pid, port
        if _CLOCK.monotonic() > limit:
            raise PostgresError(
                f"process {process.pid} holds {data} and does not answer on port {port}: "
                f"see {beside(data, 'log')}, then end it"
            )
        _CLOCK.sleep(0.05)
    return None


def end(data: Path) -> None:
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
