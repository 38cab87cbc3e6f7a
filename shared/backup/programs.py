"""pg_dump and pg_restore as child processes: streamed, stoppable, their complaints in words without contents."""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO

from shared.backup.postgres_binaries import Binaries, PostgresMissingError, find_binaries
from shared.errors import Refused, Retry, Unavailable
from shared.redaction import redact

CHUNK = 1 << 20
_LOOK_S, _STOP_S = 0.2, 5.0

# What a program says of its own failure; where it goes on to quote rows, that is another line.
_ERROR = re.compile(r"^pg_(?:dump|restore): (?:error|detail|hint): (.*)$", re.M)

# What an operator can do about it, by the server's words.
_REFUSALS = (
    (
        "row-level security",
        "a table with row-level security cannot be read whole: the role of backup_database needs BYPASSRLS",
    ),
    (
        "permission denied for large object",
        "a large object cannot be read: grant select on it to the role of backup_database, or set lo_compat_privileges",
    ),
    ("permission denied", "the role lacks a right the task declares: run `keeper migrate --grants`"),
    ("server version mismatch", "pg_dump is older than the server: the job's image needs a newer PostgreSQL"),
)
_RETRIES = (
    ("lock", "a table was locked for longer than a dump may wait"),
    ("connection to server", "the connection to the database broke"),
    ("server closed the connection", "the connection to the database broke"),
)


class Failed(Exception):
    """A program ended badly; the message is its own, without secrets."""


def programs(least_major: int) -> Binaries:
    """PostgreSQL's programs, the newest there are. Raises Unavailable unless they are as new as `least_major`."""
    try:
        found = find_binaries()
    except PostgresMissingError as missing:
        raise Unavailable(f"pg_dump and pg_restore are not here: {missing}") from None
    if found.major < least_major:
        raise Unavailable(f"PostgreSQL's programs here are of version {found.major}, the server is {least_major}")
    return found


def version(found: Binaries, program: str) -> str:
    """The first line of `program --version`."""
    done = subprocess.run([found.program(program), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _base(environment: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", **environment}


@contextmanager
def reading(arguments: list[str], environment: Mapping[str, str]) -> Iterator[IO[bytes]]:
    """What a program writes, while the block lasts. The block must read to the end; the program must end well.

    Raises Failed. The program never outlives the block.
    """
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, env=_base(environment)
        )
        assert process.stdout is not None
        try:
            yield process.stdout
        except BaseException:
            process.kill()
            raise
        finally:
            process.stdout.close()
            code = process.wait()
        if code:
            raise Failed(_words(complaints, code))


def run(arguments: list[str], environment: Mapping[str, str], *, check: Callable[[], None]) -> None:
    """Run a program to its end, asking `check` all the while. Raises Failed, and what `check` raises.

    The program never outlives the call: it is told to end first, so that it ends the workers it has.
    """
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            env=_base(environment),
        )
        try:
            while (code := _ended(process, _LOOK_S)) is None:
                check()
        except BaseException:
            process.terminate()
            if _ended(process, _STOP_S) is None:
                process.kill()
                process.wait()
            raise
        if code:
            raise Failed(_words(complaints, code))


def _ended(process: "subprocess.Popen[bytes]", within_s: float) -> int | None:
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        return None


def answer(arguments: list[str], source: IO[bytes]) -> bytes:
    """What a program writes that reads as much of `source` as it likes. Raises Failed."""
    with tempfile.TemporaryFile() as complaints, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=said, stderr=complaints, env=_base({}))
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError), process.stdin:
                while chunk := source.read(CHUNK):
                    process.stdin.write(chunk)
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code:
            raise Failed(_words(complaints, code))
        said.seek(0)
        return said.read()


def _words(complaints: IO[bytes], code: int) -> str:
    complaints.seek(0)
    said = _ERROR.findall(complaints.read().decode(errors="replace"))
    return redact("; ".join(line[:200] for line in said[:3])) or f"it ended with {code} and said nothing"


def ending_of(failed: Failed) -> Refused | Retry | None:
    """The run's ending that a program's failure at our own database means; None when it is a defect."""
    said = str(failed)
    for words, meaning in _REFUSALS:
        if words in said:
            return Refused(f"{meaning} ({said})" if "row-level" in words or "large" in words else meaning)
    for words, meaning in _RETRIES:
        if words in said:
            return Retry(meaning)
    return None
