"""Secrets by name, read by API when they are needed: Secret Manager in the cloud, a folder on a laptop.

A secret without a version is not an error of the program: the task's outcome is `unavailable` and names it. (A
function that mounts a secret without a version would not even start.) Every value read is masked in all output.
"""

import os
import re
from pathlib import Path
from typing import Protocol

from shared.errors import Unavailable
from shared.redaction import register
from shared.settings import Settings


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
        return _SecretManager(settings.project)
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
        number = versions[-1] if version == "latest" and versions else int(version) if version != "latest" else 0
        if number not in versions:
            raise Unavailable(f"secret {name} has no version {version}: `keeper secret add {name}` stores one")
        value = (self.folder / name / str(number)).read_text(encoding="utf-8")
        register(value)
        return value

    def add(self, name: str, value: str) -> str:
        number = (self._versions(name) or [0])[-1] + 1
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(place / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(value)
        register(value)
        return str(number)


class _SecretManager:
    def __init__(self, project: str) -> None:
        from google.cloud import secretmanager_v1

        self._client = secretmanager_v1.SecretManagerServiceClient()
        self._project = project

    def get(self, name: str, version: str = "latest") -> str:
        from google.api_core.exceptions import FailedPrecondition, NotFound

        resource = f"projects/{self._project}/secrets/{name}/versions/{version}"
        try:
            value = self._client.access_secret_version(name=resource).payload.data.decode()
        except (NotFound, FailedPrecondition):  # no version, or it is disabled
            raise Unavailable(
                f"secret {name} has no usable version {version}: add one with `gcloud secrets versions add {name}`"
            ) from None
        register(value)
        return value

    def add(self, name: str, value: str) -> str:
        from google.cloud import secretmanager_v1

        register(value)
        made = self._client.add_secret_version(
            parent=f"projects/{self._project}/secrets/{name}",
            payload=secretmanager_v1.SecretPayload(data=value.encode()),
        )
        return made.name.rsplit("/", 1)[-1]
