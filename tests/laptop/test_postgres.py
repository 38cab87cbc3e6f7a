"""The laptop's PostgreSQL: started, shared, adopted, stopped, by root and by an ordinary user."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shared.backup.postgres_binaries import PostgresMissingError, find_binaries
from shared.laptop.postgres import Postgres
from shared.laptop.postgres_server import PostgresError
from tests.processes import alive

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534

# Starts (or joins) the server of argv[1], says so, and waits until its input ends. With argv[2], as that user; the
# interpreter itself may lie in root's private home, so it changes user only after everything is loaded.
_USER = """
import os, sys
from pathlib import Path
from shared.laptop.postgres import Postgres
from shared.backup.postgres_binaries import find_binaries, reachable_binaries
binaries = find_binaries()
if len(sys.argv) > 2:
    uid = int(sys.argv[2])
    binaries = reachable_binaries(binaries, uid)
    os.setgroups([]), os.setgid(uid), os.setuid(uid)
with Postgres.start(Path(sys.argv[1]), binaries=binaries, durable=False) as server:
    print(server.pid, server.port, os.geteuid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder the server's user can reach, whoever we are."""
    with tempfile.TemporaryDirectory(prefix="groundskeeper-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def _user(data: Path, uid: int | None = None) -> subprocess.Popen[str]:
    arguments = [str(data)] if uid is None else [str(data), str(uid)]
    return subprocess.Popen(
        [sys.executable, "-c", _USER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


def _said(user: subprocess.Popen[str]) -> tuple[int, int, int]:
    assert user.stdout
    pid, port, euid = user.stdout.readline().split()
    return int(pid), int(port), int(euid)


def _gone(pid: int) -> bool:
    return not alive(pid)


def test_a_server_starts_answers_and_leaves_nothing_running(folder: Path) -> None:
    with Postgres.start(folder / "data", durable=False) as server:
        assert server.execute("select 1 + 1") == [[2]]
        assert server.execute("show shared_preload_libraries") == [["pg_stat_statements"]]
        assert 20000 <= server.port < 32768
    assert _gone(server.pid)


def test_what_was_written_is_there_after_a_restart(folder: Path) -> None:
    with Postgres.start(folder / "data") as server:
        assert server.create_database("kept").endswith("/kept")
    with Postgres.start(folder / "data") as server:
        assert server.execute("select datname from pg_database where datname = 'kept'") == [["kept"]]
        assert server.create_database("kept").endswith("/kept")
        server.drop_database("kept")
        server.drop_database("kept")


def test_only_the_holder_of_the_password_gets_in(folder: Path) -> None:
    with Postgres.start(folder / "data", durable=False) as server:
        assert (folder / "data.password").stat().st_mode & 0o777 == 0o600
        refused = subprocess.run(
            [
                server.binaries.program("psql"),
                f"host=127.0.0.1 port={server.port} user=postgres",
                "-c",
                "select 1",
            ],
            env={"PGPASSWORD": "guess"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert "password authentication failed" in refused.stderr


def test_root_never_runs_the_server_as_root(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("this promise is to root")
    with Postgres.start(folder / "data", durable=False) as server:
        assert psutil.Process(server.pid).uids().effective == NOBODY


def test_root_in_a_private_home_opens_it_to_nobody(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("this promise is to root")
    home = folder / "home"
    home.mkdir(mode=0o700)
    with Postgres.start(home / "data", durable=False) as server:
        assert server.execute("select 1") == [[1]]
    assert home.stat().st_mode & 0o777 == 0o700
    assert home not in server.data.parents
    for left in server.data.parent.glob(f"{server.data.name}*"):
        subprocess.run(["rm", "-rf", left], check=True)


def test_an_ordinary_user_starts_it_too(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("every other test here proves it when not root")
    folder.chmod(0o777)
    user = _user(folder / "data", NOBODY)
    pid, _, euid = _said(user)
    assert euid == NOBODY
    user.communicate()
    assert _gone(pid)


def test_two_users_share_one_server_and_the_last_one_out_stops_it(folder: Path) -> None:
    first, second = _user(folder / "data"), _user(folder / "data")
    pids = {_said(first)[0], _said(second)[0]}
    assert len(pids) == 1
    first.communicate()
    assert not _gone(*pids)
    second.communicate()
    assert _gone(*pids)


def test_the_server_of_a_killed_owner_is_adopted_and_then_stopped(folder: Path) -> None:
    owner = _user(folder / "data")
    pid, port, _ = _said(owner)
    owner.kill()
    owner.communicate()
    with Postgres.start(folder / "data", durable=False) as server:
        assert (server.pid, server.port) == (pid, port)
    assert _gone(pid)


def test_a_killed_server_is_started_again_with_what_was_committed(folder: Path) -> None:
    first = Postgres.start(folder / "data")
    first.create_database("committed")
    os.kill(first.pid, signal.SIGKILL)
    first.stop()
    with Postgres.start(folder / "data") as second:
        assert second.pid != first.pid
        assert second.execute("select 1 from pg_database where datname = 'committed'") == [[1]]
    assert _gone(second.pid)


def test_a_server_that_died_under_its_users_is_not_started_again_behind_their_backs(folder: Path) -> None:
    user = _user(folder / "data")
    pid, _, _ = _said(user)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(PostgresError, match=r"has died while others use it .*data\.log.*end them, a plane with Ctrl-C"):
        Postgres.start(folder / "data", durable=False)
    user.communicate()
    with Postgres.start(folder / "data", durable=False) as server:
        assert server.execute("select 1") == [[1]]


def test_a_pid_file_whose_number_now_belongs_to_another_process_does_not_block(folder: Path) -> None:
    with Postgres.start(folder / "data", durable=False):
        pass
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (folder / "data/postmaster.pid").write_text(
            f"{stranger.pid}\n{folder}/data\n1\n25432\n\n127.0.0.1\n1 1\nready\n"
        )
        with Postgres.start(folder / "data", durable=False) as server:
            assert server.execute("select 1") == [[1]]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_ctrl_c_stops_the_server(folder: Path) -> None:
    user = _user(folder / "data")
    pid, _, _ = _said(user)
    user.send_signal(signal.SIGINT)
    user.communicate()
    assert _gone(pid)


def test_a_taken_port_is_replaced(folder: Path) -> None:
    with (
        Postgres.start(folder / "one", durable=False) as one,
        Postgres.start(folder / "two", port=one.port, durable=False) as two,
    ):
        assert one.port != two.port


def test_a_half_made_cluster_is_made_again(folder: Path) -> None:
    (folder / "data.new").mkdir()
    (folder / "data.new/PG_VERSION").write_text("18\n")
    with Postgres.start(folder / "data", durable=False) as server:
        assert server.execute("select 1") == [[1]]


def test_a_lost_password_is_said_in_words(folder: Path) -> None:
    with Postgres.start(folder / "data", durable=False):
        pass
    (folder / "data.password").unlink()
    with pytest.raises(PostgresError, match=r"data\.password is gone"):
        Postgres.start(folder / "data", durable=False)


def test_a_version_nobody_installed_is_said_in_words() -> None:
    with pytest.raises(PostgresMissingError, match=r"PostgreSQL 9 is not on this machine: install .*postgresql-9"):
        find_binaries(9)


def test_a_temporary_server_takes_its_folder_with_it() -> None:
    with Postgres.temporary() as server:
        folder = server.data.parent
        assert server.execute("show fsync") == [["off"]]
    assert not folder.exists()
