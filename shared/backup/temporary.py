"""A Cloud SQL instance to restore into and delete: for databases too large for a server in a job's memory.

It is made in a project of its own, never in the plane's: there the job's identity may make and delete instances, and
beside production it may not. It is deleted with the block. One whose job was killed is deleted by the next drill, of
whatever size: only one drill runs at a time, so an instance with this plane's label is either its own or a leftover.
"""

import secrets
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.pool import NullPool

from shared.backup.fingerprint import Surroundings
from shared.backup.throwaway import DATABASE, Target, furnish
from shared.errors import Refused, Retry, Unavailable
from shared.redaction import register

API = "https://sqladmin.googleapis.com/v1"
LABEL = "groundskeeper-drill"
_SCOPE = "https://www.googleapis.com/auth/sqlservice.admin"
_TIMEOUT_S, _LOOK_S, _LONGEST_S = 30.0, 10.0, 3600.0
_GIB = 1 << 30


@dataclass(frozen=True)
class Place:
    """Where instances may be made: a project that is not the plane's (empty: nowhere), on a network the job reaches."""

    project: str
    region: str
    network: str  # projects/HOST/global/networks/NAME
    tier: str


class Session(Protocol):
    """What google.auth's AuthorizedSession is to us."""

    def request(self, method: str, url: str, **options: Any) -> Any: ...


def authorized() -> Session:
    """A session as the job's own identity."""
    import google.auth
    import google.auth.transport.requests

    credentials, _ = google.auth.default(scopes=[_SCOPE])
    return google.auth.transport.requests.AuthorizedSession(credentials)  # type: ignore[no-untyped-call]


class Instances:
    """The drills' instances of one plane. `plane` is its project, which is the label's value."""

    def __init__(
        self,
        place: Place,
        plane: str,
        *,
        session: Session,
        api: str = API,
        check: Callable[[], None],
        sleep: Callable[[float], None],
    ) -> None:
        if place.project == plane:
            raise Refused(f"drill.project is {plane}, the plane's own: no instance is made beside production")
        self._place, self._plane, self._check, self._sleep = place, plane, check, sleep
        self._session, self._instances = session, f"{api}/projects/{quote(place.project)}/instances"
        self._operations = f"{api}/projects/{quote(place.project)}/operations"

    def sweep(self) -> list[str]:
        """Delete the instances that killed drills left; their names."""
        query = {"filter": f"settings.userLabels.{LABEL}:{self._plane}"}
        found = self._ask("GET", self._instances, params=query).get("items", [])
        mine = [i["name"] for i in found if i["settings"].get("userLabels", {}).get(LABEL) == self._plane]
        for name in mine:
            self._delete(name)
        return mine

    @contextmanager
    def made(self, name: str, around: Surroundings) -> Iterator[tuple[str, str, str]]:
        """An instance for the block: its private address, its authority's certificate, the password of `postgres`."""
        password = secrets.token_urlsafe(32)
        register(password)
        try:
            self._wait(self._ask("POST", self._instances, json=self._body(name, password, around)))
            instance = self._ask("GET", f"{self._instances}/{name}")
            (address,) = [a["ipAddress"] for a in instance["ipAddresses"] if a["type"] == "PRIVATE"]
            yield address, instance["serverCaCert"]["cert"], password
        finally:
            self._delete(name)

    def _body(self, name: str, password: str, around: Surroundings) -> dict[str, Any]:
        gib = max(20, 2 * around.bytes // _GIB)  # the database, its indexes while they are made, the log meanwhile
        return {
            "name": name,
            "region": self._place.region,
            "databaseVersion": f"POSTGRES_{around.server_version // 10_000}",
            "rootPassword": password,
            "settings": {
                "tier": self._place.tier,
                "edition": "ENTERPRISE",
                "availabilityType": "ZONAL",
                "dataDiskType": "PD_SSD",
                "dataDiskSizeGb": str(gib),
                "storageAutoResize": True,
                "deletionProtectionEnabled": False,
                "retainBackupsOnDelete": False,
                "backupConfiguration": {"enabled": False},
                "userLabels": {LABEL: self._plane},
                "ipConfiguration": {
                    "ipv4Enabled": False,
                    "privateNetwork": self._place.network,
                    "sslMode": "ENCRYPTED_ONLY",
                    "serverCaMode": "GOOGLE_MANAGED_INTERNAL_CA",
                },
            },
        }

    def _delete(self, name: str) -> None:
        """Delete the instance and see it go, whatever is being done to it."""
        for _ in range(int(_LONGEST_S / _LOOK_S)):
            answer = self._session.request("DELETE", f"{self._instances}/{name}", timeout=_TIMEOUT_S)
            if answer.status_code == 404:
                return
            self._may(answer)
            if answer.status_code not in (200, 409):  # 409: an operation is under way, such as its creation
                raise Retry(f"the drill's instance {name} cannot be deleted: Cloud SQL answered {answer.status_code}")
            self._sleep(_LOOK_S)
        raise Retry(f"the drill's instance {name} is still there: delete it by hand")

    def _wait(self, operation: dict[str, Any]) -> None:
        for _ in range(int(_LONGEST_S / _LOOK_S)):
            if operation["status"] == "DONE":
                if errors := operation.get("error", {}).get("errors"):
                    raise Retry(f"Cloud SQL could not make the drill's instance: {errors[0]['code']}")
                return
            self._check()
            self._sleep(_LOOK_S)
            operation = self._ask("GET", f"{self._operations}/{operation['name']}")
        raise Retry("Cloud SQL did not make the drill's instance within an hour")

    def _ask(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        answer = self._session.request(method, url, timeout=_TIMEOUT_S, **options)
        self._may(answer)
        if answer.status_code >= 400:
            raise Retry(f"Cloud SQL answered {answer.status_code} to {method} in {self._place.project}")
        return dict(answer.json())

    def _may(self, answer: Any) -> None:
        if answer.status_code in (401, 403):
            raise Unavailable(
                f"the job may not make instances in {self._place.project}: grant its account roles/cloudsql.admin there"
            )


class Temporary:
    """A Throwaway on such an instance. `name` is the instance's, which Cloud SQL does not take twice in a week."""

    def __init__(self, instances: Instances, name: str) -> None:
        self._instances, self._name = instances, name

    @contextmanager
    def __call__(self, around: Surroundings, folder: Path) -> Iterator[Target]:
        """Raises Unavailable where the job may not make it, Retry where Cloud SQL does not."""
        with self._instances.made(self._name, around) as (address, authority, password):
            certificate, words = folder / "server-ca.pem", folder / "password"
            certificate.write_text(authority)
            words.touch(mode=0o600)
            words.write_text(f"{address}:5432:*:postgres:{password}\n")
            environment = {
                "PGHOST": address,
                "PGPORT": "5432",
                "PGUSER": "postgres",
                "PGDATABASE": DATABASE,
                "PGPASSFILE": str(words),
                "PGSSLMODE": "verify-ca",
                "PGSSLROOTCERT": str(certificate),
            }

            def engine_of(database: str) -> Engine:
                return _engine(address, password, certificate, database)

            yield furnish(engine_of, environment, around, around.server_version // 10_000)


def _engine(address: str, password: str, certificate: Path, database: str) -> Engine:
    context = ssl.create_default_context(cafile=str(certificate))
    # Cloud SQL's certificates name the instance, not its address; the CA is checked
    context.check_hostname = False  # nosemgrep: unverified-tls
    return create_engine(
        URL.create("postgresql+pg8000", "postgres", password, address, 5432, database),
        connect_args={"ssl_context": context, "timeout": None},
        poolclass=NullPool,
        hide_parameters=True,
    )
