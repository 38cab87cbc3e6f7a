"""Rotate the log files of a folder into its archive, so that no line is lost and none stands twice.

    copy to the end, compressed -> .rotating-… (whole and on disk) -> copy what came meanwhile -> nothing new: delete
    the file, or empty it where its writer keeps it open -> give the archive its name

Between the last look and the emptying are microseconds, in which an appending writer's line can be lost: that is the
price of copy-and-truncate, and why a file nobody has open is deleted instead. Killed anywhere, the next run sees by
the file's own beginning whether the archive already holds what was taken away.
"""

import errno
import gzip
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

from shared.storage import files
from shared.storage.files import File, Gone, InUse

_CHUNK = 1 << 20
# How often to copy what a busy writer added before it is left to the next run.
_ROUNDS = 200
_LEFT = re.compile(r"\.rotating-(?P<number>\d+)-(?P<bytes>\d+)-(?P<name>.+)\.\d{8}T\d{6}Z\.gz")


@dataclass(frozen=True)
class Rotation:
    """Files at `place` whose name fits `patterns` go to its folder `archive`; archives over `keep_days` are removed."""

    place: str
    patterns: tuple[str, ...]
    archive: str
    keep_days: int

    def __post_init__(self) -> None:
        if self.keep_days < 1:
            raise ValueError(f"keep_days: expected at least 1, got {self.keep_days}")
        if not re.fullmatch(r"[\w.-]*\w", self.archive):
            raise ValueError(f"archive: expected a folder's plain name, got {self.archive!r}")
        if Path(self.place) == Path("/"):
            raise ValueError("place: / is no folder of logs: give the one the application writes to")

    def cutoff(self, now: datetime) -> datetime:
        """Archives of before this moment are expired."""
        return now - timedelta(days=self.keep_days)


def waiting(root: Path, rotation: Rotation) -> list[File]:
    """The files to rotate: those that are not empty."""
    return [file for file in files.walk(root, rotation.patterns, below=False) if file.size]


def expired(root: Path, rotation: Rotation, now: datetime) -> list[File]:
    """The archives to remove."""
    archives = files.walk(root / rotation.archive, ("*.gz",)) if _plain(root / rotation.archive) else ()
    return [file for file in archives if file.modified < rotation.cutoff(now)]


def _plain(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink()


@contextmanager
def _archive(root: Path, rotation: Rotation) -> Iterator[int]:
    """A descriptor of the archive's folder, made where it is missing. Raises OSError where a link has its name."""
    with suppress(FileExistsError):
        (root / rotation.archive).mkdir(parents=True)
    if not _plain(root / rotation.archive):
        raise NotADirectoryError(errno.ENOTDIR, "the archive is a link or a file, not a folder")
    with files.folder(root, [rotation.archive]) as handle:
        yield handle


def recover(root: Path, rotation: Rotation) -> int:
    """Finish or undo what a killed run left half done; how many archives were finished."""
    finished = 0
    if not _plain(root / rotation.archive):
        return 0
    with _archive(root, rotation) as folder:
        for name in sorted(os.listdir(folder)):
            if name.startswith(".partial-"):
                os.unlink(name, dir_fd=folder)
            elif left := _LEFT.fullmatch(name):
                if _still_there(root, folder, name, left):
                    os.unlink(name, dir_fd=folder)
                else:
                    _publish(folder, name, name.split("-", 3)[3])
                    finished += 1
    return finished


def _still_there(root: Path, folder: int, name: str, left: re.Match[str]) -> bool:
    """Whether the log still begins with what the archive `name` holds: then it was not taken away."""
    live = next((f for f in files.walk(root, (_literal(left["name"]),), below=False)), None)
    size = int(left["bytes"])
    if live is None or live.number != int(left["number"]) or live.size < size:
        return False
    with suppress(Gone), files.opened(root, live) as (handle, _, _):
        with gzip.open(os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), "rb")) as packed:
            archived = _digest(packed, size)
        with os.fdopen(os.dup(handle), "rb") as stream:
            return archived == _digest(stream, size)
    return False


def _literal(name: str) -> str:
    """`name` as a pattern that fits only itself."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _digest(stream: IO[bytes] | gzip.GzipFile, size: int) -> str:
    digest = hashlib.sha256()
    while size and (chunk := stream.read(min(size, _CHUNK))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


@dataclass
class Copied:
    """A log's copy in the archive's folder, and how much of the log is in it, in bytes."""

    name: str
    temporary: str
    size: int


def copy(root: Path, rotation: Rotation, file: File, now: datetime) -> Copied:
    """Copy `file` to its end, whole and on disk. Raises Gone; OSError where it cannot be read or the disk is full."""
    final = f"{file.name}.{now:%Y%m%dT%H%M%SZ}.gz"
    with files.opened(root, file) as (handle, _, _), _archive(root, rotation) as folder:
        partial = f".partial-{final}"
        with suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=folder)
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=folder), "wb") as sink:
                size = _append(handle, 0, sink)
                sink.flush()
                os.fsync(sink.fileno())
            temporary = f".rotating-{file.number}-{size}-{final}"
            os.rename(partial, temporary, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            with suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=folder)
            raise
    return Copied(final, temporary, size)


def _append(handle: int, start: int, sink: IO[bytes]) -> int:
    """Compress what stands from `start` to the end into `sink`; the end."""
    with gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=6, mtime=0) as packed:
        while chunk := os.pread(handle, _CHUNK, start):
            packed.write(chunk)
            start += len(chunk)
    return start


def take_away(root: Path, rotation: Rotation, file: File, copied: Copied) -> bool:
    """Delete or empty the log, once all of it is in the copy, and give the copy its name; whether it was emptied.

    Raises InUse when its writer is faster than we are, Gone when it is another file by now; then the copy is removed.
    """
    with _archive(root, rotation) as folder:
        try:
            emptied = _take_away(root, folder, file, copied)
        except (Gone, InUse):
            os.unlink(copied.temporary, dir_fd=folder)
            raise
        _publish(folder, copied.temporary, copied.name)
    return emptied


def _take_away(root: Path, folder: int, file: File, copied: Copied) -> bool:
    opening = os.open(copied.temporary, os.O_WRONLY | os.O_APPEND, dir_fd=folder)
    with files.opened(root, file, write=True) as (handle, home, name), os.fdopen(opening, "ab", buffering=0) as sink:
        if os.fstat(handle).st_size < copied.size:
            raise Gone(file.name)  # somebody else emptied it meanwhile
        size = copied.size
        for _ in range(_ROUNDS):
            free = not files.in_use(handle)
            if os.fstat(handle).st_size == size:
                if free:
                    os.unlink(name, dir_fd=home)
                else:
                    os.ftruncate(handle, 0)
                os.fsync(sink.fileno())
                return not free
            if free:
                files.let_go(handle)
            size = _append(handle, size, sink)
    raise InUse(file.name)


def _publish(folder: int, temporary: str, name: str) -> None:
    """Give an archive its name, or the next one that is free."""
    stem = name.removesuffix(".gz")
    for number in range(1000):
        final = name if number == 0 else f"{stem}-{number}.gz"
        try:
            os.link(temporary, final, src_dir_fd=folder, dst_dir_fd=folder)
            break
        except FileExistsError:
            if os.path.samestat(os.stat(final, dir_fd=folder), os.stat(temporary, dir_fd=folder)):
                break  # a killed run got as far as this
    os.unlink(temporary, dir_fd=folder)
    os.fsync(folder)
