"""Secrets by name, read by API when they are needed: Secret Manager in the cloud, a folder on a laptop.

A secret without a version is not an error of the program: the task's outcome is `unavailable` and names it. (A
function that mounts a secret without a version would not even start.) Every value read is masked in all output.
"""

import functools
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shared.errors import Retry, Unavailable
from shared.redaction import register
from shared.settings import Settings

if TYPE_CHECKING:
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient


class Secrets(Protocol):
    """A store of secrets with numbered versions, the newest enabled one being `latest`."""

    def get(self, name: str, version: str = "latest") -> str:
        """The value. Raises Unavailable when there is none."""
        ...

    def add(self, name: str, value: str) -> str:
        """Store a new version; its number."""
        ...


def store(settings: Settings) -> Secrets:
    """The store this process uses."""
    if settings.secrets_folder is not None:
        return LocalSecrets(settings.secrets_folder)
    if settings.in_cloud:
        return SecretManager(_client(), settings.project)
    raise Unavailable("no secret store: set KEEPER_SECRETS to a folder, or run in the cloud")


class LocalSecrets:
    """`folder`/<name>/<version>, readable by the owner alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _versions(self, name: str) -> list[int]:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name):
            raise ValueError(f"secret name {name!r}: expected letters, digits, - and _")
        place = self.folder / name
        return sorted(int(p.name) for p in place.iterdir() if p.name.isdecimal()) if place.is_dir() else []

    def get(self, name: str, version: str = "latest") -> str:
        versions = self._versions(name)
        number = str(versions[-1]) if version == "latest" and versions else version
        if number not in map(str, versions):
            raise Unavailable(f"secret {name} has no version {version}: write one to {name}/1 in $KEEPER_SECRETS")
        value = (self.folder / name / number).read_text(encoding="utf-8")
        register(value)
        return value

    def add(self, name: str, value: str) -> str:
        register(value)
        number = (self._versions(name) or [0])[-1] + 1
        place = self.folder / name
        for folder in (self.folder, place):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, whole = tempfile.mkstemp(dir=place)  # readable by the owner alone
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(value)
            while True:  # the name appears with the value in it, and somebody else's version is never replaced
                with suppress(FileExistsError):
                    os.link(whole, place / str(number))
                    return str(number)
                number += 1
        finally:
            os.unlink(whole)


@functools.cache
def _client() -> "SecretManagerServiceClient":
    """One client a process: making it costs more than using it."""
    from google.cloud import secretmanager_v1

    return secretmanager_v1.SecretManagerServiceClient()


class SecretManager:
    """Secret Manager, through its API."""

    def __init__(self, client: "SecretManagerServiceClient", project: str) -> None:
        self._client, self._project = client, project

    def get(self, name: str, version: str = "latest") -> str:
        from google.api_core import exceptions

        resource = f"projects/{self._project}/secrets/{name}/versions/{version}"
        try:
            value = self._client.access_secret_version(name=resource).payload.data.decode()
        except (exceptions.NotFound, exceptions.FailedPrecondition):  # no version, or it is disabled
            raise Unavailable(
                f"secret {name} has no usable version {version}: add one with `gcloud secrets versions add {name}`"
            ) from None
        except exceptions.PermissionDenied:
            raise Unavailable(f"secret {name} may not be read by this task: apply terraform, which grants it") from None
        except (exceptions.ServerError, exceptions.RetryError):
            raise Retry(f"Secret Manager did not give secret {name}") from None
        register(value)
        return value

    def add(self, name: str, value: str) -> str:
        from google.cloud.secretmanager_v1 import SecretPayload

        register(value)
        made = self._client.add_secret_version(
            parent=f"projects/{self._project}/secrets/{name}", payload=SecretPayload(data=value.encode())
        )
        return str(made.name.rsplit("/", 1)[-1])
