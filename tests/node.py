"""Node packages for tests: installed once for each lock file, under .cache/node."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from shared.manifest import ROOT
from tests.parts import missing

CACHE = ROOT / ".cache" / "node"
# How npm says that it could not ask the registry, in the words of its error codes.
_NO_NETWORK = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT)\b")


def installed(folder: str) -> Path:
    """node_modules as the lock file of `folder` (from the repository's root) says, by `npm ci`."""
    npm = shutil.which("npm")
    if npm is None:
        missing("npm", "install Node.js 20.19 or newer")
    files = [ROOT / folder / name for name in ("package.json", "package-lock.json", ".npmrc")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    place = CACHE / f"{Path(folder).name}-{digest}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{place.name}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (place / "ready").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for file in files:
                shutil.copy(file, place)
            ended = subprocess.run([npm, "ci"], cwd=place, capture_output=True, text=True, timeout=280, check=False)
            if ended.returncode and _NO_NETWORK.search(ended.stderr):
                missing(f"what {folder}/package-lock.json names", "connect to the npm registry once")
            assert ended.returncode == 0, f"npm ci in {folder}: {ended.stderr[-2000:]}"
            (place / "ready").touch()
    return place / "node_modules"


def run(folder: str, program: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a program of the packages of `folder`; output is text, without colours."""
    command = [str(installed(folder) / ".bin" / program), *arguments]
    environment = {**os.environ, "NO_COLOR": "1", "CI": "true"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False)
