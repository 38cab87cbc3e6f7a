"""Objects by location: `gs://bucket/prefix` or a folder, one interface.

Writes appear whole or not at all; `create` never replaces; deletes and copies can insist on the generation they
were decided on. A folder's generation is the file's modification time in nanoseconds.
"""

import builtins
import contextlib
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, cast

from shared.errors import ConfigurationError


class Exists(Exception):
    """An object of that name is there already, so it was not created."""


class Changed(Exception):
    """The object is not at the generation the caller decided on; nothing was done."""


class Missing(Exception):
    """There is no object of that name."""


@dataclass(frozen=True)
class Stat:
    """What is known of one object. Size in bytes; `created` is when this generation was written."""

    name: str
    size: int
    generation: int
    created: datetime
    custom_time: datetime | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    crc32c: str | None = None  # base64, as Cloud Storage says it; None where the place keeps none
    held: bool = False  # under a hold of Cloud Storage's own, which refuses its deletion


class Objects(Protocol):
    """A place for objects. Names are relative to the location and use `/`."""

    location: str

    def open(self, name: str) -> IO[bytes]:
        """Stream an object out. Raises Missing."""
        ...

    def create(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """Stream an object in under its final name, which appears when the block ends well. Raises Exists."""
        ...

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[Stat]:
        """The objects below `prefix` in order of name, from the first after `after`; pages are fetched as needed."""
        ...

    def stat(self, name: str) -> Stat:
        """What is known of `name`. Raises Missing."""
        ...

    def copy(self, name: str, to: "Objects", target: str) -> Stat:
        """Copy to `target` elsewhere, which must not exist. Raises Missing, Exists."""
        ...

    def delete(self, name: str, *, generation: int) -> None:
        """Delete exactly this generation. Raises Missing, Changed."""
        ...

    def mark(self, name: str, moment: datetime, *, generation: int) -> None:
        """Give exactly this generation a custom time, for a lifecycle rule to go by. Raises Missing, Changed."""
        ...

    def lifecycle(self) -> builtins.list[dict[str, Any]] | None:
        """The live lifecycle rules as the service says them; None where the place has none to have."""
        ...


def at(location: str) -> Objects:
    """The objects at `location`: gs://bucket/prefix or a folder. Raises ConfigurationError."""
    if location.startswith("gs://"):
        bucket, _, prefix = location.removeprefix("gs://").partition("/")
        if not bucket:
            raise ConfigurationError(f"location {location!r} names no bucket: expected gs://bucket/prefix")
        return _Bucket(bucket, prefix.strip("/"))
    if "://" in location:
        raise ConfigurationError(f"location {location!r}: expected gs://bucket/prefix or a folder")
    return _Folder(Path(location))


def failures() -> tuple[type[Exception], ...]:
    """What a place may raise besides the three above; the cloud's client is asked only where it was loaded."""
    cloud = sys.modules.get("google.api_core.exceptions")
    return (OSError, *((cloud.GoogleAPIError,) if cloud else ()))


def told(error: Exception) -> str:
    """A place's failure in words that hold nothing of what it was asked."""
    return getattr(error, "strerror", None) or type(error).__name__


# Of an upload or a download held in memory, in bytes.
_CHUNK = 8 << 20


def _checked(name: str) -> str:
    if not name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"object name {name!r}: expected a relative path without . or ..")
    return name


def sha256(stream: IO[bytes]) -> str:
    """The SHA-256 of what is left of `stream`, as hex."""
    return hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.location = str(root)

    def _path(self, name: str) -> Path:
        return self.root / _checked(name)

    def open(self, name: str) -> IO[bytes]:
        try:
            return self._path(name).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Missing(f"{self.location}/{name}") from None

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.link(temporary, path)  # fails when the name exists, unlike rename
            except FileExistsError:
                raise Exists(f"{self.location}/{name}") from None
        finally:
            os.unlink(temporary)

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[Stat]:
        names: builtins.list[str] = []
        root = str(self.root)
        for folder, _, files in os.walk(root):
            inside = folder[len(root) :].strip("/")
            below = f"{inside}/" if inside else ""
            names += [below + file for file in files if not file.startswith(".partial-")]
        names.sort()
        for name in names:
            if name.startswith(prefix) and name > after:
                with contextlib.suppress(Missing):  # deleted since it was listed
                    yield self.stat(name)

    def stat(self, name: str) -> Stat:
        try:
            found = self._path(name).lstat()  # a link is no object
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(f"{self.location}/{name}") from None
        if not stat.S_ISREG(found.st_mode):
            raise Missing(f"{self.location}/{name}")
        return Stat(name, found.st_size, found.st_mtime_ns, datetime.fromtimestamp(found.st_mtime, UTC))

    def copy(self, name: str, to: Objects, target: str) -> Stat:
        with self.open(name) as source, to.create(target) as sink:
            shutil.copyfileobj(source, sink)
        return to.stat(target)

    def delete(self, name: str, *, generation: int) -> None:
        if self.stat(name).generation != generation:
            raise Changed(f"{self.location}/{name}")
        try:
            self._path(name).unlink()
        except FileNotFoundError:  # somebody else's delete came between
            raise Missing(f"{self.location}/{name}") from None

    def mark(self, name: str, moment: datetime, *, generation: int) -> None:
        raise ConfigurationError(f"{self.location} is a folder, which has no lifecycle rules to mark objects for")

    def lifecycle(self) -> builtins.list[dict[str, Any]] | None:
        return None


class _Bucket:
    def __init__(self, bucket: str, prefix: str) -> None:
        from google.cloud import storage  # type: ignore[attr-defined]

        self.location = f"gs://{bucket}/{prefix}".rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = storage.Client()
        self._bucket = self._client.bucket(bucket)

    def _blob(self, name: str) -> Any:
        return self._bucket.blob(self._prefix + _checked(name))

    def open(self, name: str) -> IO[bytes]:
        blob = self._bucket.get_blob(self._prefix + _checked(name))
        if blob is None:
            raise Missing(f"{self.location}/{name}")
        # Chunks are fetched one by one: all of them from the generation that was found.
        return cast(IO[bytes], blob.open("rb", chunk_size=_CHUNK, if_generation_match=blob.generation))

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        writer = _writer(self._blob(name))
        try:
            yield writer
            writer.close()
        except _Refused:
            raise Exists(f"{self.location}/{name}") from None
        finally:
            writer.abandon()

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[Stat]:
        start = self._prefix + after if after else None
        for blob in self._client.list_blobs(self._bucket, prefix=self._prefix + prefix, start_offset=start):
            name = blob.name.removeprefix(self._prefix)
            if name > after:  # start_offset includes the name itself
                yield self._stat(blob)

    def _stat(self, blob: Any) -> Stat:
        return Stat(
            blob.name.removeprefix(self._prefix),
            blob.size or 0,
            int(blob.generation or 0),
            blob.time_created,
            blob.custom_time,
            tuple(sorted((blob.metadata or {}).items())),
            blob.crc32c,
            bool(blob.temporary_hold or blob.event_based_hold),
        )

    def stat(self, name: str) -> Stat:
        blob = self._bucket.get_blob(self._prefix + _checked(name))
        if blob is None:
            raise Missing(f"{self.location}/{name}")
        return self._stat(blob)

    def copy(self, name: str, to: Objects, target: str) -> Stat:
        if not isinstance(to, _Bucket):
            with self.open(name) as source, to.create(target) as sink:
                shutil.copyfileobj(source, sink)
            return to.stat(target)
        from google.api_core.exceptions import NotFound, PreconditionFailed

        try:
            token, destination = None, to._blob(target)
            while True:
                token, _, _ = destination.rewrite(self._blob(name), token=token, if_generation_match=0)
                if token is None:
                    return to.stat(target)
        except NotFound:
            raise Missing(f"{self.location}/{name}") from None
        except PreconditionFailed:
            raise Exists(f"{to.location}/{target}") from None

    def delete(self, name: str, *, generation: int) -> None:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        try:
            self._blob(name).delete(if_generation_match=generation)
        except NotFound:
            raise Missing(f"{self.location}/{name}") from None
        except PreconditionFailed:
            raise Changed(f"{self.location}/{name}") from None

    def mark(self, name: str, moment: datetime, *, generation: int) -> None:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        blob = self._blob(name)
        blob.custom_time = moment
        try:
            blob.patch(if_generation_match=generation)
        except NotFound:
            raise Missing(f"{self.location}/{name}") from None
        except PreconditionFailed:
            raise Changed(f"{self.location}/{name}") from None

    def lifecycle(self) -> builtins.list[dict[str, Any]] | None:
        self._bucket.reload()
        return [dict(rule) for rule in self._bucket.lifecycle_rules]


class _Refused(Exception):
    """The service refused an upload because the name exists; not another upload's refusal inside its block."""


def _writer(blob: Any) -> Any:
    """A stream into `blob` that creates and never replaces: `close` makes the object appear, `abandon` does not."""
    from google.cloud.storage.exceptions import InvalidResponse
    from google.cloud.storage.fileio import BlobWriter

    class Writer(BlobWriter):  # type: ignore[misc]
        def _upload_chunks_from_buffer(self, num_chunks: int) -> None:
            try:
                super()._upload_chunks_from_buffer(num_chunks)
            except InvalidResponse as error:
                if error.response.status_code == 412:
                    raise _Refused from None
                raise

        def abandon(self) -> None:
            # Whoever collects an open stream closes it, and closing would finish the upload of what there is.
            self._buffer.close()

    return Writer(blob, chunk_size=_CHUNK, if_generation_match=0)
