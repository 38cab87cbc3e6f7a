"""Find, read and check `functions/<task>/task.yaml`: the one declaration of a task.

Everything reads it through here (Terraform reads the same bytes with `yamldecode`; a parity test holds
the two equal). A wrong file fails when it is loaded, in words that name file, key, value and remedy.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cronsim import CronSim, CronSimError

from shared.strict_yaml import Fields, ManifestError, parse

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = ROOT / "functions"

# Under `starts`: every other task. The console starts whatever an operator says.
ANY = "*"

# Service account ids are 6 to 30 characters and end in no hyphen; the scheduler job, the function and the
# account all bear the task's name with hyphens.
NAME = re.compile(r"[a-z][a-z0-9_]{4,22}[a-z0-9]")

# PostgreSQL's predefined roles a task may be given. Those that read rows read every table's, so a reason stands beside
# them in task.yaml; pg_write_all_data and what acts as the server are not among them.
# https://www.postgresql.org/docs/current/predefined-roles.html
DATABASE_ROLES = ("pg_maintain", "pg_read_all_data", "pg_read_all_settings", "pg_read_all_stats", "pg_stat_scan_tables")


# --- the declaration -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cron:
    """Started by Cloud Scheduler at the slots of a five-field cron expression, in UTC."""

    expression: str
    kind: str = field(default="cron", init=False)

    def __str__(self) -> str:
        return f"cron {self.expression}"


@dataclass(frozen=True)
class Every:
    """Ticks every `seconds` (a divisor of 60) inside a run that Cloud Scheduler starts each minute."""

    seconds: int
    kind: str = field(default="every", init=False)

    def __str__(self) -> str:
        return f"every {self.seconds} s"


@dataclass(frozen=True)
class Topic:
    """Started by each message of a Pub/Sub topic, through a push subscription."""

    name: str
    kind: str = field(default="topic", init=False)

    def __str__(self) -> str:
        return f"topic {self.name}"


@dataclass(frozen=True)
class Http:
    """An endpoint. `auth` other than `service` is reachable without IAM, so `reason` must say why."""

    path: str
    methods: tuple[str, ...]
    auth: str
    reason: str | None = None
    kind: str = field(default="http", init=False)

    def __str__(self) -> str:
        return f"{'/'.join(self.methods)} {self.path}"


Trigger = Cron | Every | Topic | Http


@dataclass(frozen=True)
class Run:
    """Where the task runs. Memory in MiB, CPU in vCPU, timeout in seconds."""

    kind: str
    memory_mb: int
    cpu: float
    timeout_s: int
    max_instances: int = 1
    concurrency: int = 1
    ingress: str = "internal"
    tasks: int = 1
    parallelism: int = 1
    image: str = "base"

    @property
    def connections(self) -> int:
        """Database connections an instance may hold: one a request, and three for all of them together: a second to
        read on, the heartbeat's, and one outside transactions."""
        return self.concurrency + 3


@dataclass(frozen=True)
class Bucket:
    """A bucket of terraform/data/buckets.yaml the task may touch, under `prefix` only, `read` or `write`."""

    bucket: str
    access: str
    prefix: str = ""


@dataclass(frozen=True)
class Task:
    """One task as its task.yaml declares it; all collections are immutable or not to be changed."""

    name: str
    folder: Path
    summary: str
    owner: str
    triggers: tuple[Trigger, ...]
    run: Run
    uses: tuple[str, ...]
    requires: tuple[str, ...]
    must_succeed_within_s: int | None
    tables: Mapping[str, Mapping[str, tuple[str, ...]]]
    params: Mapping[str, Any]
    lock: str | None = None
    secrets: tuple[str, ...] = ()
    kms: tuple[str, ...] = ()
    publishes: tuple[str, ...] = ()
    subscribes: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    roles: tuple[str, ...] = ()
    database_roles: tuple[str, ...] = ()
    destructive: bool = False
    caps: Mapping[str, int] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The name in the cloud: service account, function, scheduler job."""
        return self.name.replace("_", "-")

    def trigger(self, kind: str) -> Trigger | None:
        """The first trigger of `kind`, or None."""
        return next((t for t in self.triggers if t.kind == kind), None)

    @property
    def scheduled(self) -> bool:
        return any(t.kind in ("cron", "every") for t in self.triggers)

    @property
    def adopts(self) -> bool:
        """Whether it follows adopt.yaml's names: its SQL is made of rules, not written out."""
        return "retention" in self.uses

    @property
    def for_operators(self) -> bool:
        """Whether only operators call it: a pause stops the work, not the hands that would end the pause."""
        return bool(self.triggers) and all(isinstance(t, Http) and t.auth == "operator" for t in self.triggers)


# --- reading ----------------------------------------------------------------------------------------------------

_PACKAGE = r"[a-z0-9][a-z0-9._-]*"
_ROOM = r"[a-z][a-z0-9_]*"
_TABLE = r"([a-z_][a-z0-9_]*\.)?[a-z_][a-z0-9_]*"


def _cron(fields: Fields) -> Cron:
    expression = fields.take("cron", str)
    try:
        CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ManifestError(
            f"{fields.where}.cron: expected five fields like '0 2 * * *', got {expression!r} ({error})"
        ) from error
    if len(expression.split()) != 5:
        raise ManifestError(f"{fields.where}.cron: expected five fields, got {expression!r}")
    return Cron(expression)


def _every(fields: Fields) -> Every:
    seconds = fields.number("every_s", 1, 60)
    if 60 % seconds:
        raise ManifestError(f"{fields.where}.every_s: expected a divisor of 60, got {seconds}")
    return Every(seconds)


def _topic(fields: Fields) -> Topic:
    name = fields.take("topic", str)
    if not re.fullmatch(r"[a-z][a-z0-9-]{2,62}", name):
        raise ManifestError(f"{fields.where}.topic: expected 3 to 63 of a-z, 0-9 and -, got {name!r}")
    return Topic(name)


def _http(fields: Fields) -> Http:
    inner = Fields(fields.take("http", dict), f"{fields.where}.http")
    path = inner.take("path", str)
    if not re.fullmatch(r"(/[a-zA-Z0-9_.*{}-]+)+|/", path):
        raise ManifestError(f"{inner.where}.path: expected a path like /api/v1/x, got {path!r}")
    methods = inner.names("methods", pattern="GET|POST|PUT|PATCH|DELETE")
    if not methods:
        raise ManifestError(f"{inner.where}.methods: is empty: name at least one method")
    auth = inner.choice("auth", ("service", "firebase", "operator", "stripe"))
    reason = inner.take("reason", str, None)
    if auth != "service" and not reason:
        raise ManifestError(f"{inner.where}.reason: is missing: auth {auth!r} is reachable from the internet, say why")
    inner.done()
    return Http(path, methods, auth, reason)


_TRIGGERS: dict[str, Callable[[Fields], Trigger]] = {
    "cron": _cron,
    "every_s": _every,
    "topic": _topic,
    "http": _http,
}


def _triggers(top: Fields) -> tuple[Trigger, ...]:
    found: list[Trigger] = []
    for i, entry in enumerate(top.take("triggers", list)):
        fields = Fields(entry, f"{top.where}.triggers[{i}]")
        kinds = [k for k in _TRIGGERS if k in fields.rest]
        if len(kinds) != 1:
            raise ManifestError(f"{fields.where}: expected exactly one of {', '.join(_TRIGGERS)}, got {entry!r}")
        found.append(_TRIGGERS[kinds[0]](fields))
        fields.known.extend(_TRIGGERS)
        fields.done()
    public = next((t for t in found if isinstance(t, Http) and t.auth != "service"), None)
    if public is not None and any(not isinstance(t, Http) for t in found):
        # Nothing but IAM tells Scheduler's and Pub/Sub's calls from a stranger's.
        raise ManifestError(
            f"{top.where}.triggers: {public.path} is reachable from the internet (auth {public.auth!r}), so anyone "
            "could start what is scheduled or subscribed here too: make the endpoint a task of its own"
        )
    if len(set(found)) != len(found):
        raise ManifestError(f"{top.where}.triggers: the same trigger stands twice: remove one")
    return tuple(found)


def _run(top: Fields, triggers: tuple[Trigger, ...]) -> Run:
    fields = Fields(top.take("run", dict), f"{top.where}.run")
    kind = fields.choice("kind", ("function", "job"))
    memory = fields.number("memory_mb", 128, 32768)
    cpu = float(fields.take("cpu", (int, float)))
    if not 0.08 <= cpu <= 8:
        raise ManifestError(f"{fields.where}.cpu: expected 0.08 to 8 vCPU, got {cpu!r}")
    kinds = {t.kind for t in triggers}
    # Scheduler waits at most 30 minutes for an answer and a push subscription 10; a job may run a week.
    longest = 604800 if kind == "job" else 540 if "topic" in kinds else 1800
    timeout = fields.number("timeout_s", 1, longest)
    if kind == "job":
        if kinds - {"cron"}:
            raise ManifestError(
                f"{fields.where}.kind: a job is started by cron or by hand only, "
                f"not by {', '.join(sorted(kinds - {'cron'}))}: make it a function"
            )
        tasks = fields.number("tasks", 1, 1000, 1)
        run = Run(
            kind,
            memory,
            cpu,
            timeout,
            tasks=tasks,
            parallelism=fields.number("parallelism", 1, 1000, 1),
            image=fields.choice("image", ("base", "postgres", "torch", "lighthouse"), "base"),
        )
    else:
        run = Run(
            kind,
            memory,
            cpu,
            timeout,
            max_instances=fields.number("max_instances", 1, 100, 1),
            concurrency=fields.number("concurrency", 1, 250, 1),
            ingress=fields.choice("ingress", ("internal", "all"), "internal"),
        )
        if run.concurrency > 1 and cpu < 1:
            raise ManifestError(f"{fields.where}.concurrency: more than 1 needs cpu of at least 1, got cpu {cpu}")
    fields.done()
    return run


def _tables(top: Fields) -> dict[str, dict[str, tuple[str, ...]]]:
    fields = Fields(top.take("tables", dict), f"{top.where}.tables")
    tables: dict[str, dict[str, tuple[str, ...]]] = {}
    for access in ("read", "write", "own"):
        inner = Fields(fields.take(access, dict, {}), f"{fields.where}.{access}")
        for table in inner.rest:
            if not re.fullmatch(_TABLE, table):
                raise ManifestError(f"{inner.where}.{table}: expected a table's name in lower case")
        tables[access] = {table: inner.names(table, pattern=r"[a-z_][a-z0-9_]*") for table in list(inner.rest)}
    fields.done()
    return tables


def _buckets(top: Fields) -> tuple[Bucket, ...]:
    found = []
    for i, entry in enumerate(top.take("buckets", list, [])):
        fields = Fields(entry, f"{top.where}.buckets[{i}]")
        found.append(
            Bucket(
                fields.take("bucket", str),
                fields.choice("access", ("read", "write")),
                fields.take("prefix", str, ""),
            )
        )
        fields.done()
    return tuple(found)


def _params(top: Fields) -> dict[str, Any]:
    params: dict[str, Any] = top.take("params", dict, {})

    def check(value: Any, where: str) -> None:
        if isinstance(value, dict) and "env" in value:
            fields = Fields(value, where)
            name = fields.take("env", str)
            if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
                raise ManifestError(f"{where}.env: expected a variable's name like S3_RETENTION_DAYS, got {name!r}")
            fields.take("default", (str, int, float, bool))
            fields.done()
        elif isinstance(value, dict):
            for key, inner in value.items():
                check(inner, f"{where}.{key}")
        elif isinstance(value, list):
            for i, inner in enumerate(value):
                check(inner, f"{where}[{i}]")

    check(params, f"{top.where}.params")
    return params


def load(folder: Path) -> Task:
    """The task declared by `folder`/task.yaml. Raises ManifestError."""
    name, file = folder.name, folder / "task.yaml"
    where = f"functions/{name}/task.yaml"
    if not NAME.fullmatch(name):
        raise ManifestError(
            f"{where}: the folder's name {name!r} is the task's: 6 to 24 of a-z, 0-9 and _, "
            "a letter first and no _ last"
        )
    try:
        document = parse(file.read_text(encoding="utf-8"), where)
    except FileNotFoundError:
        raise ManifestError(f"{where}: no such file: `keeper new {name}` writes one") from None
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{where}: is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error
    top = Fields(document, where)
    summary = top.take("summary", str)
    owner = top.take("owner", str)
    triggers = _triggers(top)
    run = _run(top, triggers)
    topics = Fields(top.take("topics", dict, {}), f"{top.where}.topics")
    publishes, subscribes = topics.names("publish", []), topics.names("subscribe", [])
    topics.done()
    caps_fields = Fields(top.take("caps", dict, {}), f"{top.where}.caps")
    caps = {unit: caps_fields.number(unit, 1, 10**15) for unit in list(caps_fields.rest)}
    task = Task(
        name=name,
        folder=folder,
        summary=summary,
        owner=owner,
        triggers=triggers,
        run=run,
        lock=top.take("lock", str, None),
        uses=top.names("uses", pattern=_ROOM),
        requires=top.names("requires", pattern=_PACKAGE),
        secrets=top.names("secrets", []),
        kms=top.names("kms", []),
        publishes=publishes,
        subscribes=subscribes,
        starts=top.names("starts", []),
        buckets=_buckets(top),
        tables=_tables(top),
        roles=top.names("roles", [], r"roles/[a-zA-Z.]+"),
        database_roles=top.names("database_roles", [], "|".join(DATABASE_ROLES)),
        destructive=top.take("destructive", bool, False),
        caps=caps,
        must_succeed_within_s=top.number("must_succeed_within_s", 60, 366 * 86400, None),
        params=_params(top),
    )
    top.done()
    if task.scheduled and task.must_succeed_within_s is None:
        raise ManifestError(
            f"{where}.must_succeed_within_s: is missing: a scheduled task says by when the watchdog should miss it"
        )
    if task.destructive and not task.caps:
        raise ManifestError(f"{where}.caps: is missing: a destructive task names the most it may do unapproved")
    return task


def load_all(functions: Path = FUNCTIONS) -> dict[str, Task]:
    """Every task under `functions`, by name, sorted; `starts: ["*"]` is every other one here.

    Raises ManifestError for the first wrong one.
    """
    tasks = {folder.name: load(folder) for folder in _folders(functions)}
    return {
        name: replace(task, starts=tuple(n for n in tasks if n != name)) if task.starts == (ANY,) else task
        for name, task in tasks.items()
    }


@functools.cache
def deployed(functions: Path) -> Mapping[str, Task]:
    """`load_all`, read once a process: what was deployed changes with a deployment only."""
    return load_all(functions)


def _folders(functions: Path) -> Iterator[Path]:
    if not functions.is_dir():
        raise ManifestError(f"{functions}: no such folder: tasks live in functions/<task>/")
    for folder in sorted(functions.iterdir()):
        if folder.is_dir() and not folder.name.startswith((".", "__")):
            yield folder


def code_version(task: Task) -> str:
    """Twelve hex digits over every file the task's source holds: its folder, the core, the rooms it uses.

    The same in the repository and in the deployed zip, since they hold the same files.
    """
    shared = Path(__file__).resolve().parent
    files = [*task.folder.glob("*.*"), *shared.glob("*.*")]
    for room in task.uses:
        files += (shared / room).rglob("*.*")
    digest = hashlib.sha256()
    base = task.folder.parent
    for file in sorted((f for f in files if f.suffix in (".py", ".sql", ".yaml")), key=Path.as_posix):
        place = file.relative_to(base if file.is_relative_to(base) else shared).as_posix()
        digest.update(place.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
