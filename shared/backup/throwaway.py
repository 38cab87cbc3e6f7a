"""A PostgreSQL to restore into and throw away: its own process, its own folder, reachable through a private socket.

It ends with its block, also when the block fails; one whose owner was killed is found and ended by the next. It does
not survive a power cut and need not: nothing in it exists nowhere else. Production is never restored into.
"""

import fcntl
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL, create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from shared.backup.fingerprint import Surroundings
from shared.backup.postgres_binaries import Binaries, PostgresMissingError, reachable_binaries, server_uid
from shared.errors import Retry, Unavailable

DATABASE = "drill"
_PREFIX = "keeper-drill-"
_LOOK_S, _LOOKS, _STOP_S = 0.05, 1200, 10.0

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "max_locks_per_transaction": "1024",
    "timezone": "UTC",
}


@dataclass(frozen=True)
class Target:
    """An empty database to restore into: for libpq's programs, and for us. `major` is its server's version."""

    environment: dict[str, str]
    engine: Engine
    major: int


class Throwaway(Protocol):
    """Makes one database to restore into, and takes it away with the block, whatever happens in it.

    `folder` is the drill's own, made by `workplace`.
    """

    def __call__(self, around: Surroundings, folder: Path) -> AbstractContextManager[Target]: ...


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for one drill: its dump, and a server if one is made here. Ends what killed drills left."""
    sweep()
    made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
    with _locked(made):  # until this process ends, however it ends: then it is a leftover
        folder = made.rename(made.with_name(made.name[1:]))
        try:
            yield folder
        finally:
            _end(folder)
            shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


class Embedded:
    """A server of our own on this machine."""

    def __init__(self, found: Binaries) -> None:
        self._found = found

    @contextmanager
    def __call__(self, around: Surroundings, folder: Path) -> Iterator[Target]:
        """Raises Unavailable where the server or an extension the backup needs is not installed, Retry where the
        server does not start."""
        with self._server(folder):
            yield self._database(folder, around)

    @contextmanager
    def _server(self, folder: Path) -> Iterator[None]:
        data = folder / "data"
        data.mkdir(mode=0o700)
        uid = server_uid(data)
        found = self._found
        if uid is not None:
            try:
                found = reachable_binaries(found, uid)
            except PostgresMissingError as missing:
                raise Unavailable(str(missing)) from None
            os.chown(folder, uid, uid)
            os.chown(data, uid, uid)
        as_server: dict[str, Any] = {
            "cwd": "/",
            "start_new_session": True,
            "stdin": subprocess.DEVNULL,
            "umask": 0o077,
            "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        }
        if uid is not None:
            as_server |= {"user": uid, "group": uid, "extra_groups": []}
        made = subprocess.run(
            # Only those who can enter the folder, which is ours alone, reach the socket.
            [
                found.program("initdb"),
                "-D",
                data,
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C",
                "--auth=trust",
                "--no-sync",
            ],
            capture_output=True,
            text=True,
            **as_server,
        )
        if made.returncode:
            raise Retry(f"initdb could not make the throwaway server: {made.stderr.strip()[-300:]}")
        options = [argument for name, value in _SETTINGS.items() for argument in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [found.program("postgres"), "-D", data, "-k", folder, "-p", "5432", *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                **as_server,
            )
        try:
            _wait(process, folder)
            yield
        finally:
            _stop(process)

    def _database(self, folder: Path, around: Surroundings) -> Target:
        environment = {"PGHOST": str(folder), "PGPORT": "5432", "PGUSER": "postgres", "PGDATABASE": DATABASE}
        return furnish(lambda database: _engine(folder, database), environment, around, self._found.major)


def furnish(
    engine_of: Callable[[str], Engine], environment: dict[str, str], around: Surroundings, major: int
) -> Target:
    """An empty database on a new server, with the roles a restore needs. Raises Unavailable without an extension."""
    maintenance = engine_of("postgres")
    quote = maintenance.dialect.identifier_preparer.quote_identifier
    with maintenance.connect().execution_options(isolation_level="AUTOCOMMIT") as server:
        there = set(server.execute(text("select name from pg_available_extensions")).scalars())
        if lacking := sorted(set(around.extensions) - there):
            raise Unavailable(
                f"the throwaway server has no extension {', '.join(lacking)}: install it in the image of the job"
            )
        known = set(server.execute(text("select rolname from pg_roles")).scalars())
        for role in around.roles:
            if role not in known:
                server.exec_driver_sql(f"create role {quote(role)} nologin")
                server.exec_driver_sql(f"grant {quote(role)} to current_user")  # to give it what it owns
        server.exec_driver_sql(
            f"create database {DATABASE} template template0 encoding {quote(around.encoding)} locale 'C'"
        )
    return Target(environment, engine_of(DATABASE), major)


def _engine(folder: Path, database: str) -> Engine:
    return create_engine(
        URL.create("postgresql+pg8000", username="postgres", database=database),
        connect_args={"unix_sock": str(folder / ".s.PGSQL.5432"), "timeout": None},
        poolclass=NullPool,
        hide_parameters=True,
    )


def _state(folder: Path) -> str:
    """What the server says of itself in its postmaster.pid."""
    with suppress(OSError):
        return "".join((folder / "data" / "postmaster.pid").read_text().splitlines()[7:8])
    return ""


def sweep() -> list[str]:
    """End and remove the throwaway servers whose owners were killed; their folders."""
    ended = []
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError), _locked(folder):  # another user's, at work, or gone meanwhile
            _end(folder)
            shutil.rmtree(folder)
            ended.append(str(folder))
    return ended


def _end(folder: Path) -> None:
    """End the server that still runs in `folder`, if one does: it and whoever works for it are gone then."""
    with suppress(OSError, ValueError):
        pid = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        if str(folder) not in Path(f"/proc/{pid}/cmdline").read_text():
            return  # another program has its number now
        process = os.pidfd_open(pid)
        try:
            for how in (signal.SIGQUIT, signal.SIGKILL):
                signal.pidfd_send_signal(process, how)
                if select.select([process], [], [], _STOP_S)[0]:
                    return
        finally:
            os.close(process)


def _wait(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Return when the server takes connections. Raises Retry when it ends instead, or takes too long."""
    for _ in range(_LOOKS):
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_S)
            break
        if "ready" in _state(folder):
            return
    said = (folder / "log").read_text(errors="replace").strip()[-300:]
    raise Retry(f"the throwaway server did not start: {said}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server whose data nobody needs, and reap it."""
    process.send_signal(signal.SIGQUIT)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
