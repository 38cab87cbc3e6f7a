"""What the environment says. The only module of the core that reads environment variables.

Variables: DATABASE_URL, DATABASE_CA, GOOGLE_CLOUD_PROJECT, KEEPER_STRIPE_LIVEMODE, KEEPER_MODE,
KEEPER_BACKUP_GATE_HOURS, KEEPER_PAUSED, KEEPER_OPERATORS, KEEPER_BUCKET_<NAME>, KEEPER_TARGET_<TASK>,
KEEPER_SECRETS, and Cloud Run's own K_SERVICE, CLOUD_RUN_JOB, CLOUD_RUN_TASK_INDEX, CLOUD_RUN_TASK_ATTEMPT. A
parameter `{env: NAME, default: x}` of a task.yaml is looked up in `environ`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from shared.errors import ConfigurationError

# With one of these set, clients talk to an emulator and firebase-admin accepts unsigned tokens. In the cloud any
# variable that ends so is refused, also one of a client nobody uses yet.
EMULATORS = ("PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST", "FIREBASE_AUTH_EMULATOR_HOST")
_EMULATOR = "_EMULATOR_HOST"


@dataclass(frozen=True)
class Settings:
    """One process's configuration, read once."""

    environ: Mapping[str, str] = field(repr=False)  # it, and the next, may hold secrets
    in_cloud: bool
    database_url: str | None = field(repr=False)
    database_ca: str | None  # PEM text of the instance's certificate authority
    project: str
    livemode: bool  # Stripe's: true only in the production environment
    mode: str  # observe or enforce, for destructive tasks
    backup_gate: timedelta | None  # None: the gate is off
    paused: str | None  # the reason, when everything is paused from outside the database
    operators: tuple[str, ...]  # verified e-mail addresses (laptop: user names) of the operator list
    buckets: Mapping[str, str]  # logical name -> gs://bucket/prefix or a folder
    targets: Mapping[str, str]  # task -> https URL of its function, or projects/P/locations/R/jobs/J
    secrets_folder: Path | None  # the local store; None: Secret Manager
    shard: int  # this job task's index; 0 elsewhere
    tried_before: bool  # this job task's try before ended without success

    def database(self) -> str:
        """The database's URL. Raises ConfigurationError when there is none."""
        if not self.database_url:
            raise ConfigurationError(
                "DATABASE_URL is not set: set it to postgresql://user@host/database, "
                "or use `keeper`, which brings an embedded PostgreSQL on a laptop"
            )
        return self.database_url

    def bucket(self, name: str) -> str:
        """Where the logical bucket `name` is. Raises ConfigurationError when nobody said."""
        if name not in self.buckets:
            variable = "KEEPER_BUCKET_" + name.upper().replace("-", "_")
            raise ConfigurationError(
                f"bucket {name!r} has no location: set {variable} to gs://bucket/prefix or a folder"
            )
        return self.buckets[name]


def _truth(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "false")
    if value not in ("true", "false"):
        raise ConfigurationError(f"{name}: expected true or false, got {value!r}")
    return value == "true"


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name) or str(default)
    if not value.isdecimal() or len(value) > 6:
        raise ConfigurationError(f"{name}: expected a whole number from 0 to 999999, got {value!r}")
    return int(value)


def _prefixed(environ: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {k.removeprefix(prefix).lower(): v for k, v in environ.items() if k.startswith(prefix) and v}


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process. Raises ConfigurationError where starting would be wrong."""
    env = dict(os.environ if environ is None else environ)
    in_cloud = bool(env.get("K_SERVICE") or env.get("CLOUD_RUN_JOB"))
    if in_cloud:
        for name, value in env.items():
            if name.endswith(_EMULATOR) and value:
                raise ConfigurationError(
                    f"{name} is set in the cloud: an emulator there would accept forged "
                    "tokens or swallow messages; remove it from the service"
                )
        for name in ("DATABASE_URL", "GOOGLE_CLOUD_PROJECT"):
            if not env.get(name):
                raise ConfigurationError(f"{name} is not set in the cloud: apply terraform, which sets it")
    mode = env.get("KEEPER_MODE", "observe")
    if mode not in ("observe", "enforce"):
        raise ConfigurationError(f"KEEPER_MODE: expected observe or enforce, got {mode!r}")
    hours = _number(env, "KEEPER_BACKUP_GATE_HOURS", 26)
    folder = env.get("KEEPER_SECRETS")
    return Settings(
        environ=env,
        in_cloud=in_cloud,
        database_url=env.get("DATABASE_URL") or None,
        database_ca=env.get("DATABASE_CA") or None,
        project=env.get("GOOGLE_CLOUD_PROJECT") or "demo-groundskeeper",
        livemode=_truth(env, "KEEPER_STRIPE_LIVEMODE"),
        mode=mode,
        backup_gate=timedelta(hours=hours) if hours else None,
        paused=env.get("KEEPER_PAUSED") or None,
        operators=tuple(o.strip() for o in env.get("KEEPER_OPERATORS", "").split(",") if o.strip()),
        buckets={k.replace("_", "-"): v for k, v in _prefixed(env, "KEEPER_BUCKET_").items()},
        targets=_prefixed(env, "KEEPER_TARGET_"),
        secrets_folder=Path(folder) if folder else None,
        shard=_number(env, "CLOUD_RUN_TASK_INDEX", 0),
        tried_before=_number(env, "CLOUD_RUN_TASK_ATTEMPT", 0) > 0,
    )
