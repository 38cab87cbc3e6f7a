"""Secrets by name, read by API when they are needed: Secret Manager in the cloud, a folder on a laptop.

A secret without a version is not an error of the program: the task's outcome is `unavailable` and names it. (A
function that mounts a secret without a version would not even start.) Every value read is masked in all output.
"""

import functools
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from shared.errors import Retry, Unavailable
from shared.redaction import register
from shared.settings import Settings

if TYPE_CHECKING:
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient


class Version(NamedTuple):
    """One version of a secret: its number, and whether it is enabled, disabled or destroyed."""

    number: int
    state: str


class Secrets(Protocol):
    """A store of secrets with numbered versions, the newest being `latest`."""

    def get(self, name: str, version: str = "latest") -> str:
        """The value. Raises Unavailable when there is none."""
        ...

    def add(self, name: str, value: str) -> str:
        """Store a new version; its number."""
        ...

    def versions(self, name: str) -> list[Version]:
        """Every version, oldest first; none where there is no such secret."""
        ...

    def disable(self, name: str, number: int) -> None:
        """Let nobody read the version until it is enabled again."""
        ...

    def enable(self, name: str, number: int) -> None:
        """Let a disabled version be read again."""
        ...

    def destroy(self, name: str, number: int) -> None:
        """Forget the version's value for ever."""
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

    def versions(self, name: str) -> list[Version]:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name):
            raise ValueError(f"secret name {name!r}: expected letters, digits, - and _")
        place = self.folder / name
        found = [f.name.partition(".") for f in place.iterdir()] if place.is_dir() else []
        return sorted(
            (Version(int(number), state or "enabled") for number, _, state in found if number.isdecimal()),
            key=lambda version: version.number,
        )

    def get(self, name: str, version: str = "latest") -> str:
        enabled = [str(v.number) for v in self.versions(name) if v.state == "enabled"]
        number = enabled[-1] if version == "latest" and enabled else version
        if number not in enabled:
            raise Unavailable(f"secret {name} has no usable version {version}: add one with `keeper secret add {name}`")
        value = (self.folder / name / number).read_text(encoding="utf-8")
        register(value)
        return value

    def disable(self, name: str, number: int) -> None:
        with suppress(FileNotFoundError):
            (self.folder / name / str(number)).rename(self.folder / name / f"{number}.disabled")

    def enable(self, name: str, number: int) -> None:
        with suppress(FileNotFoundError):
            (self.folder / name / f"{number}.disabled").rename(self.folder / name / str(number))

    def destroy(self, name: str, number: int) -> None:
        for kept in (self.folder / name / str(number), self.folder / name / f"{number}.disabled"):
            if kept.exists():
                kept.write_text("", encoding="utf-8")
                kept.rename(self.folder / name / f"{number}.destroyed")

    def add(self, name: str, value: str) -> str:
        register(value)
        number = max((v.number for v in self.versions(name)), default=0) + 1
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
        request = {"parent": self._secret(name), "payload": SecretPayload(data=value.encode())}
        made = _asked(name, self._client.add_secret_version, request)
        return str(made.name.rsplit("/", 1)[-1])

    def versions(self, name: str) -> list[Version]:
        listed = _asked(name, self._client.list_secret_versions, {"parent": self._secret(name)})
        found = [Version(int(v.name.rsplit("/", 1)[-1]), v.state.name.lower()) for v in listed]
        return sorted(found, key=lambda version: version.number)

    def disable(self, name: str, number: int) -> None:
        _asked(name, self._client.disable_secret_version, {"name": f"{self._secret(name)}/versions/{number}"})

    def enable(self, name: str, number: int) -> None:
        _asked(name, self._client.enable_secret_version, {"name": f"{self._secret(name)}/versions/{number}"})

    def destroy(self, name: str, number: int) -> None:
        _asked(name, self._client.destroy_secret_version, {"name": f"{self._secret(name)}/versions/{number}"})

    def _secret(self, name: str) -> str:
        return f"projects/{self._project}/secrets/{name}"


def _asked(name: str, method: Callable[..., Any], request: dict[str, Any]) -> Any:
    """What Secret Manager answers, its refusals in our words."""
    from google.api_core import exceptions

    try:
        return method(request=request)
    except exceptions.NotFound:
        raise Unavailable(f"there is no secret {name}: apply terraform, which makes those a task names") from None
    except exceptions.PermissionDenied:
        raise Unavailable(f"secret {name} may not be changed by this task: apply terraform, which grants it") from None
    except (exceptions.ServerError, exceptions.RetryError):
        raise Retry(f"Secret Manager did not answer for secret {name}") from None


@dataclass(frozen=True)
class Secret:
    """One secret of a store, for whoever rotates it."""

    name: str
    store: Secrets

    def get(self, version: str = "latest") -> str:
        """The value. Raises Unavailable."""
        return self.store.get(self.name, version)

    def add(self, value: str) -> int:
        """Store a new version; its number."""
        return int(self.store.add(self.name, value))

    def newest(self) -> int | None:
        """The newest version that is enabled."""
        return max((v.number for v in self.store.versions(self.name) if v.state == "enabled"), default=None)

    def set_older(self, than: int, state: str) -> int:
        """Disable or destroy every version older than `than`; how many were changed."""
        act = {"disabled": self.store.disable, "destroyed": self.store.destroy}[state]
        due = [
            v.number for v in self.store.versions(self.name) if v.number < than and v.state not in (state, "destroyed")
        ]
        for number in due:
            act(self.name, number)
        return len(due)
