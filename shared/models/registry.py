"""Versions of models in a place for objects: immutable, whole by their manifest, and one of them current.

`<model>/versions/<version>/` holds the files of a version; manifest.json comes last and has the hash of each, and what
has no manifest does not exist. `<model>/current/<number>.json` says which version is current: the highest number
counts, and a number is created once and never replaced, so of two promotions at once one is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from shared.clock import rfc3339
from shared.errors import Refused, Retry
from shared.models.net import Net, NotLoadable
from shared.objects import Exists, Missing, Objects

MODELS = ("sla", "threat", "ces")

_MANIFEST = "manifest.json"


class Pointer(NamedTuple):
    """Which version is current since when, by whom and why."""

    number: int
    version: str
    by: str
    why: str
    at: str


class Loaded(NamedTuple):
    """A version that was read whole: its nets by part, and its manifest."""

    version: str
    parts: Mapping[str, Net]
    manifest: Mapping[str, Any]


class Registry:
    """The models kept at one place."""

    def __init__(self, place: Objects) -> None:
        self._place = place

    def location(self, model: str, version: str) -> str:
        """Where a version is."""
        return f"{self._place.location}/{model}/versions/{version}"

    def store(self, model: str, version: str, files: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
        """Keep a version, its manifest last; again with the same files changes nothing. Raises Refused otherwise."""
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
        manifest = json.dumps({**about, "model": model, "version": version, "files": hashes}, sort_keys=True, indent=1)
        for name, content in (*sorted(files.items()), (_MANIFEST, manifest.encode())):
            self._create(f"{model}/versions/{version}/{name}", content)

    def _create(self, name: str, content: bytes) -> None:
        try:
            with self._place.create(name) as stream:
                stream.write(content)
        except Exists:
            if self._read(name) != content:
                raise Refused(f"{name} is there with other content: a version never changes") from None

    def _read(self, name: str) -> bytes:
        with self._place.open(name) as stream:
            return stream.read()

    def versions(self, model: str) -> list[Mapping[str, Any]]:
        """The manifests of the versions that are whole, oldest first."""
        prefix = f"{model}/versions/"
        found = [one.name for one in self._place.list(prefix) if one.name.endswith(f"/{_MANIFEST}")]
        return [json.loads(self._read(name)) for name in found]

    def load(self, model: str, version: str) -> Loaded:
        """Read a version and try it. Raises Refused where it is missing, changed or no model."""
        files = self.files(model, version)
        try:
            parts = {
                name.removesuffix(".npz"): Net.load(content) for name, content in files.items() if name.endswith(".npz")
            }
        except NotLoadable as error:
            raise Refused(f"version {version} of {model}: {error}") from error
        if not parts:
            raise Refused(f"version {version} of {model} has no weights")
        return Loaded(version, parts, json.loads(files[_MANIFEST]))

    def files(self, model: str, version: str) -> dict[str, bytes]:
        """The files of a version, each as its manifest says. Raises Refused."""
        at = f"{model}/versions/{version}"
        try:
            manifest = self._read(f"{at}/{_MANIFEST}")
            hashes = json.loads(manifest)["files"]
            files = {name: self._read(f"{at}/{name}") for name in hashes}
        except (Missing, ValueError) as error:  # ValueError: a version that is no name
            raise Refused(f"there is no whole version {version} of {model}: `keeper models list`") from error
        for name, digest in hashes.items():
            if hashlib.sha256(files[name]).hexdigest() != digest:
                raise Refused(f"{at}/{name} is not what its manifest says: somebody changed it")
        return {**files, _MANIFEST: manifest}

    # --- which one is current

    def pointers(self, model: str) -> list[Pointer]:
        """What has been current, oldest first."""
        found = []
        for one in self._place.list(f"{model}/current/"):
            said = json.loads(self._read(one.name))
            number = int(Path(one.name).stem)
            found.append(Pointer(number, said["version"], said["by"], said["why"], said["at"]))
        return found

    def current(self, model: str) -> Pointer | None:
        """What is current."""
        return next(reversed(self.pointers(model)), None)

    def champion(self, model: str) -> Loaded | None:
        """The current version, loaded. Raises Refused where it cannot be."""
        pointer = self.current(model)
        return self.load(model, pointer.version) if pointer else None

    def point(self, model: str, version: str, *, by: str, why: str, now: datetime) -> Pointer:
        """Make a version current, once it has loaded and scored; the same again changes nothing.

        Raises Refused where it cannot be loaded, Retry where somebody else was faster.
        """
        self.load(model, version)
        last = self.current(model)
        if last is not None and last.version == version:
            return last
        pointer = Pointer(last.number + 1 if last else 1, version, by, why, rfc3339(now))
        said = {"version": version, "by": by, "why": why, "at": pointer.at}
        try:
            with self._place.create(f"{model}/current/{pointer.number:08}.json") as stream:
                stream.write(json.dumps(said, sort_keys=True).encode())
        except Exists:
            raise Retry(f"somebody else has just changed what is current of {model}: look again") from None
        return pointer

    def rollback(self, model: str, *, by: str, why: str, now: datetime) -> Pointer:
        """Make the version current that was before this one. Raises Refused where there is none that loads."""
        pointers = self.pointers(model)
        before = [p.version for p in pointers[:-1] if p.version != pointers[-1].version]
        if not before:
            raise Refused(f"nothing was current of {model} before what is: there is nothing to roll back to")
        return self.point(model, before[-1], by=by, why=why, now=now)

    def export(self, folder: Path) -> list[tuple[str, str]]:
        """Write the current version of each model below `folder`, and nothing else; what was written."""
        written = []
        for model in MODELS:
            if (pointer := self.current(model)) is None:
                continue
            for name, content in self.files(model, pointer.version).items():
                path = folder / model / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            written.append((model, pointer.version))
        return written
