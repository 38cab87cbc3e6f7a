"""Fetch a job's source archive, check it, unpack it and become its command.

    python load.py COMMAND ARGUMENT...      with KEEPER_SOURCE=gs://bucket/path/<sha256>.zip

The archive's name is its hash: what runs is what Terraform planned, or nothing. Standard library only, since this
file is in the image and the packages beside it may change. Ends with 78 when the archive is not to be had or wrong.
"""

import hashlib
import io
import json
import os
import re
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path

METADATA = "http://metadata.google.internal"
STORAGE = "https://storage.googleapis.com"

# The network of an instance that has just started can take seconds until it answers.
PAUSES_S = (0.5, 1.0, 2.0, 4.0)
_TIMEOUT_S = 30

_CONFIGURATION = 78  # EX_CONFIG of sysexits.h


class Wrong(Exception):
    """The archive cannot be had or is not what it says; the message names it."""


def fetch(
    source: str, *, metadata: str = METADATA, storage: str = STORAGE, pauses: Sequence[float] = PAUSES_S
) -> bytes:
    """The archive at `source`, checked against the hash in its name. Raises Wrong."""
    matched = re.fullmatch(r"gs://([a-z0-9._-]+)/(.+/([0-9a-f]{64})\.zip)", source)
    if matched is None:
        raise Wrong(f"KEEPER_SOURCE: expected gs://bucket/path/<sha256>.zip, got {source!r}")
    bucket, name, digest = matched.groups()
    answer = _get(
        f"{metadata}/computeMetadata/v1/instance/service-accounts/default/token",
        {"Metadata-Flavor": "Google"},
        pauses,
    )
    token = json.loads(answer)["access_token"]
    data = _get(
        f"{storage}/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media",
        {"Authorization": f"Bearer {token}"},
        pauses,
    )
    if (found := hashlib.sha256(data).hexdigest()) != digest:
        raise Wrong(f"{source} has sha256 {found}: it was changed after it was planned, apply terraform again")
    return data


def _get(url: str, headers: dict[str, str], pauses: Sequence[float]) -> bytes:
    place = url.partition("?")[0]
    for pause in (*pauses, None):
        try:
            request = urllib.request.Request(url, headers=headers)  # noqa: S310 - both hosts are constants
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise Wrong(
                    f"{place} answered {error.code}: is it there, and may this job's account read it?"
                ) from None
            reason = str(error.code)
        except OSError as error:
            reason = type(error).__name__
        if pause is None:
            break
        time.sleep(pause)
    raise Wrong(f"{place} does not answer after {len(pauses) + 1} attempts: {reason}")


def main(arguments: list[str]) -> None:
    """Become the command in the unpacked archive; returns only by raising."""
    if not arguments:
        raise Wrong("no command: expected load.py COMMAND ARGUMENT...")
    folder = Path(tempfile.mkdtemp(prefix="source-"))
    with zipfile.ZipFile(io.BytesIO(fetch(os.environ.get("KEEPER_SOURCE", "")))) as archive:
        archive.extractall(folder)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    os.execvp(arguments[0], arguments)  # noqa: S606 - the command is the job's own definition


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Wrong as wrong:
        sys.stdout.write(
            json.dumps({"severity": "ERROR", "message": "the job cannot start", "error": str(wrong)}) + "\n"
        )
        sys.exit(_CONFIGURATION)
