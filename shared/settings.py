"""What the environment says. The only module of the core that reads environment variables.

Variables: DATABASE_URL, DATABASE_CA, GOOGLE_CLOUD_PROJECT, KEEPER_STRIPE_LIVEMODE, KEEPER_MODE,
KEEPER_BACKUP_GATE_HOURS, KEEPER_PAUSED, KEEPER_OPERATORS, KEEPER_BUCKET_<NAME>, KEEPER_TARGET_<TASK>,
KEEPER_SECRETS, and Cloud Run's own K_SERVICE, CLOUD_RUN_JOB, CLOUD_RUN_TASK_INDEX. A parameter
`{env: NAME, default: x}` of a task.yaml is looked up in `environ`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from shared.errors import ConfigurationError

# With one of these set, clients talk to an emulator and firebase-admin accepts unsigned tokens.
EMULATORS = (
    "PUBSUB_EMULATOR_HOST",
    "STORAGE_EMULATOR_HOST",
    "FIREBASE_AUTH_EMULATOR_HOST",
    "SECRET_MANAGER_EMULATOR_HOST",
    "FIRESTORE_EMULATOR_HOST",
)


@dataclass(frozen=True)
class Settings:
    """One process's configuration, read once."""

    environ: Mapping[str, str]
    in_cloud: bool
    database_url: str | None
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


def _prefixed(environ: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {k.removeprefix(prefix).lower(): v for k, v in environ.items() if k.startswith(prefix) and v}


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process. Raises ConfigurationError where starting would be wrong."""
    env = dict(os.environ if environ is None else environ)
    in_cloud = bool(env.get("K_SERVICE") or env.get("CLOUD_RUN_JOB"))
    if in_cloud:
        for name in EMULATORS:
            if env.get(name):
                raise ConfigurationError(
                    f"{name} is set in the cloud: an emulator there would accept forged "
                    "tokens or swallow messages; remove it from the service"
                )
        if not env.get("DATABASE_URL"):
            raise ConfigurationError("DATABASE_URL is not set in the cloud: apply terraform, which sets it")
    mode = env.get("KEEPER_MODE", "observe")
    if mode not in ("observe", "enforce"):
        raise ConfigurationError(f"KEEPER_MODE: expected observe or enforce, got {mode!r}")
    hours = env.get("KEEPER_BACKUP_GATE_HOURS", "26")
    if not hours.isdecimal():
        raise ConfigurationError(f"KEEPER_BACKUP_GATE_HOURS: expected whole hours (0 = off), got {hours!r}")
    shard = env.get("CLOUD_RUN_TASK_INDEX", "0")
    if not shard.isdecimal():
        raise ConfigurationError(f"CLOUD_RUN_TASK_INDEX: expected a number, got {shard!r}")
    folder = env.get("KEEPER_SECRETS")
    return Settings(
        environ=env,
        in_cloud=in_cloud,
        database_url=env.get("DATABASE_URL") or None,
        database_ca=env.get("DATABASE_CA") or None,
        project=env.get("GOOGLE_CLOUD_PROJECT", "demo-groundskeeper"),
        livemode=_truth(env, "KEEPER_STRIPE_LIVEMODE"),
        mode=mode,
        backup_gate=timedelta(hours=int(hours)) if int(hours) else None,
        paused=env.get("KEEPER_PAUSED") or None,
        operators=tuple(o.strip() for o in env.get("KEEPER_OPERATORS", "").split(",") if o.strip()),
        buckets={k.replace("_", "-"): v for k, v in _prefixed(env, "KEEPER_BUCKET_").items()},
        targets=_prefixed(env, "KEEPER_TARGET_"),
        secrets_folder=Path(folder) if folder else None,
        shard=int(shard),
    )
