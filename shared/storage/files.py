"""Files of a folder, reached without ever following a link: what is outside stays outside, also in a race.

A file is known by its device, number, size and time of its last change; whoever acts on it opens it by these and finds
out whether somebody else has it open.
"""

import fcntl
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path


class Gone(Exception):
    """The file is not there any more, or another one has its name."""


class InUse(Exception):
    """Some process has the file open."""


@dataclass(frozen=True)
class File:
    """One file; `name` is relative to its folder, with `/`. Size in bytes."""

    name: str
    size: int
    modified: datetime
    device: int
    number: int
    changed_ns: int

    @property
    def identity(self) -> tuple[int, int]:
        return self.device, self.number

    @property
    def version(self) -> tuple[int, int, int, int]:
        """What differs as soon as the file, or what is in it, is another."""
        return *self.identity, self.changed_ns, self.size


def walk(root: Path, patterns: tuple[str, ...], *, below: bool = True) -> Iterator[File]:
    """The plain files of `root` whose name without folder fits one of `patterns`, by name; `below`: of its folders too.

    `root` itself may be a link, nothing below it. No folder there is the same as none in it.
    """
    top = root.resolve()
    if not top.is_dir():
        return
    for path, folders, names, handle in os.fwalk(top, follow_symlinks=False):
        folders.sort()
        for name in sorted(n for n in names if any(fnmatchcase(n, p) for p in patterns)):
            with suppress(FileNotFoundError):  # gone since it was listed
                found = os.stat(name, dir_fd=handle, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield _file((Path(path) / name).relative_to(top).as_posix(), found)
        if not below:
            return


def _file(name: str, found: os.stat_result) -> File:
    return File(
        name,
        found.st_size,
        datetime.fromtimestamp(found.st_mtime, UTC),
        found.st_dev,
        found.st_ino,
        found.st_mtime_ns,
    )


@contextmanager
def opened(root: Path, file: File, *, write: bool = False) -> Iterator[tuple[int, int, str]]:
    """Open exactly `file`: its descriptor, its folder's, and its name there. Raises Gone."""
    *folders, name = file.name.split("/")
    with folder(root, folders) as home:
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            handle = os.open(name, flags, dir_fd=home)
        except PermissionError:
            raise
        except OSError as error:
            raise Gone(file.name) from error  # gone, or a link by now
        try:
            if _file(file.name, os.fstat(handle)).identity != file.identity:
                raise Gone(file.name)
            yield handle, home, name
        finally:
            os.close(handle)


@contextmanager
def folder(root: Path, names: list[str]) -> Iterator[int]:
    """A descriptor of a folder below `root`, no step of the way being a link. Raises Gone."""
    handle = os.open(root.resolve(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            try:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            except OSError as error:
                raise Gone("/".join(names)) from error
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def in_use(handle: int) -> bool:
    """Whether any process but this one has the file open. Until `handle` is closed, an opener is made to wait.

    Linux grants a write lease only on a file nobody else has open, whoever that is. Where it grants none (another
    user's file, a network file system), the processes this user may see are asked. A system that has neither leases
    nor /proc cannot tell: there every file counts as open.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return True
    try:
        # Whoever opens the file meanwhile makes the kernel signal us: by a signal that is ignored unless waited for.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except BlockingIOError:
        return True
    except OSError:
        return _seen_open(os.fstat(handle))
    return False


def let_go(handle: int) -> None:
    """Let others open a file again that `in_use` found free."""
    with suppress(OSError):  # there was no lease to be had
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _seen_open(file: os.stat_result) -> bool:
    own = os.getpid()
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == own:
            continue
        with suppress(OSError):  # it ended, or is not ours to look at
            for link in (process / "fd").iterdir():
                with suppress(OSError):
                    if os.path.samestat(link.stat(), file):
                        return True
    return False


def delete(root: Path, file: File) -> None:
    """Delete `file` as it was found. Raises Gone, InUse; OSError where it must not be."""
    with opened(root, file) as (handle, home, name):
        if _file(file.name, os.fstat(handle)).version != file.version:
            raise InUse(file.name)  # written to since it was found
        if in_use(handle):
            raise InUse(file.name)
        os.unlink(name, dir_fd=home)
