"""`make up`: the whole plane on this machine, from a fresh clone to every trigger firing as in the cloud.

Everything stops with Ctrl-C. What a killed predecessor left running is ended or adopted at the next start.
"""

import logging
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from shared import guard, manifest
from shared import settings as settings_module
from shared.backup.postgres_binaries import PostgresMissingError
from shared.clock import Clock, SystemClock
from shared.database import Database, ending_of
from shared.errors import ConfigurationError
from shared.laptop import billing, bus, demo_credentials, home, people, show
from shared.laptop.firebase import DEMO_OPERATOR, VARIABLE
from shared.laptop.functions import Functions, Isolated, OneProcess
from shared.laptop.jobs import Jobs
from shared.laptop.objects import GcsServer, find_server
from shared.laptop.postgres import Postgres
from shared.laptop.processes import NotStartedError, Part, end_leftovers
from shared.laptop.scheduler import Attempt, Here, Http, Job, Scheduler, Target, jobs_of
from shared.laptop.scheduler_api import SchedulerApi
from shared.laptop.site import NOT_BUILT, Site, built
from shared.manifest import Every
from shared.params import variables
from shared.redaction import describe
from shared.schedule import MINUTE, last_slot, minute_of
from shared.settings import Settings
from shared.stopping import process_stopping
from shared.strict_yaml import ManifestError
from shared.wording import counted

_TROUBLE = (ConfigurationError, ManifestError, NotStartedError)


def up(*, once: bool = False, demo: bool = True, isolated: bool = False, gcs: bool = False) -> int:
    """Run the plane until Ctrl-C, or with `once` every scheduled task once; the exit code.

    `isolated`: a process for each function; `gcs`: objects in fake-gcs-server instead of folders.

    0: ended as asked; 1: with `once`, a run ended failed, partial, retry or refused; 2: the plane could not start.
    """
    at = home.folder()
    try:
        with _interruptible(), home.alone(at), home.environment() as environ, ExitStack() as stack:
            plane = Plane(at, environ, stack)
            plane.prepare(demo=demo)
            plane.start(isolated=isolated, gcs=gcs)
            return plane.once() if once else plane.run()
    except _TROUBLE as trouble:
        show.console.print(f"[red]the plane could not start:[/] {trouble}")
        return 2
    except KeyboardInterrupt:
        show.console.print("stopped")
        return 130 if once else 0
    finally:
        process_stopping.clear()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end the plane as Ctrl-C does, and Ctrl-C also where a script started it in the background, which
    leaves SIGINT ignored."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Plane:
    """The running parts; each is stopped when `stack` is unwound, in the reverse order of their starts."""

    def __init__(self, at: Path, environ: dict[str, str], stack: ExitStack) -> None:
        self._at = at
        self._logs = at / "log"
        self._environ = environ
        self._stack = stack
        self._clock: Clock = SystemClock()
        self._tasks = manifest.load_all(home.functions())
        self._parts: list[Part] = []
        self._published: dict[str, str] = {}  # what `keeper` in another terminal needs to know
        self._targets: dict[str, Target] = {}
        self._jobs: SchedulerApi | None = None

    # --- the database

    def prepare(self, *, demo: bool) -> None:
        """Migrate, stamp and fill a database of our own; of somebody's, only look whether it is ready."""
        if left := end_leftovers(self._logs):
            show.console.print(f"ended what a killed plane had left running: {', '.join(left)}")
        self._logs.mkdir(exist_ok=True)
        for log in self._logs.glob("*.log"):
            log.unlink()
        settings = settings_module.read(self._environ)
        database = Database(settings, "keeper-up")
        try:
            if home.embedded():
                self._migrate(database, settings, demo=demo)
            else:
                _look(database, settings)
        finally:
            database.close()
        url = make_url(settings.database())
        where = f"{url.host}:{url.port or 5432}/{url.database}"
        if home.embedded():
            self._parts.append(Part("database", "PostgreSQL of our own", f"{where}, password in .groundskeeper"))
        else:
            self._parts.append(Part("database", "PostgreSQL of DATABASE_URL", where))

    def _migrate(self, database: Database, settings: Settings, *, demo: bool) -> None:
        from shared.migrations import run as migrations

        for branch in ("groundskeeper", "platform"):
            if done := migrations.upgrade(database.engine, branch):
                show.console.print(f"migrated {branch} to {done[-1]}")
        migrations.stamp_environment(database.engine, settings.project, settings.livemode, self._clock.now())
        _count_statements(database)
        if settings.secrets_folder is not None:
            people.remember_erasures(settings.secrets_folder)
        if demo:
            from shared.platform import demo as platform_demo

            filled = sum(
                platform_demo.seed(database.engine, self._clock.now(), objects_dir=self._at / "objects").values()
            )
            show.console.print(
                f"wrote {counted(filled, 'row')} of demo data" if filled else "the demo's data is there already"
            )
            keyring = self._environ.get("KEEPER_KEY_KEK")  # there when a task of this plane declares the key
            if keyring and (sealed := demo_credentials.load(database.engine, self._clock.now(), keyring)):
                show.console.print(f"sealed {sealed} made-up credentials with a keyring of this laptop's own")

    # --- the parts

    def start(self, *, isolated: bool, gcs: bool) -> None:
        """Start object store, bus, functions and jobs, and tell where everything is and what runs when."""
        self._objects(gcs=gcs)
        port = self._bus()
        self._schedules()
        self._people()
        stripe = self._billing()
        home.publish(self._at, {**self._published, **self._parameters()})
        functions = Functions()
        self._stack.callback(functions.stop)
        for name, task in self._tasks.items():
            if task.run.kind == "function":
                self._environ[f"KEEPER_TARGET_{name.upper()}"] = functions.url(task)
        os.environ.update(self._environ)  # functions in this process read their settings there
        functions.serve(self._tasks, Isolated(self._environ, self._logs) if isolated else OneProcess())
        if stripe is not None:
            stripe.deliver_to(functions.base)
        jobs = Jobs(self._environ, self._logs)
        # the first to be called: runs in this process end at their next transaction, jobs at SIGTERM
        self._stack.callback(jobs.stop)
        self._stack.callback(process_stopping.set)
        self._targets = {"function": Http(functions.url), "job": Here(jobs)}
        if port is not None:
            bus.declare(port, settings_module.read(self._environ).project, self._tasks, functions.url)
        _log_to(self._logs / "plane.log")
        how = "one process each" if isolated else "all in this process"
        self._site(functions)
        self._parts.append(Part("functions", f"functions-framework, {how}", functions.base))
        if "dashboard" in self._tasks:
            self._parts.append(
                Part("console", "the operators' console, open to whoever sits here", f"{functions.base}/console")
            )
        self._parts.append(Part("secrets", "a folder for each secret", self._environ["KEEPER_SECRETS"]))
        self._parts.append(Part("logs", "JSON lines, as Cloud Logging gets them", str(self._logs)))
        self._tell(functions)

    def _objects(self, *, gcs: bool) -> None:
        buckets = sorted({bucket.bucket for task in self._tasks.values() for bucket in task.buckets})
        folder = self._at / "objects"
        folder.mkdir(exist_ok=True)
        program = find_server() if gcs else None
        if program is not None:
            server = GcsServer(program, self._at / "gcs", buckets, folder=self._logs)
            self._stack.callback(server.stop)
            self._publish(server.environment)
            self._parts.append(server.part)
            return
        named = f"a folder for each bucket ({', '.join(buckets) or 'none declared'})"
        lacking = "; fake-gcs-server is not installed" if gcs else ""
        self._parts.append(Part("objects", named + lacking, str(folder)))

    def _parameters(self) -> dict[str, str]:
        """The variables that parameters are read from, so that `keeper` in another terminal makes the same plans."""
        named = {name for task in self._tasks.values() for name in variables(task.params)}
        return {name: os.environ[name] for name in sorted(named) if name in os.environ}

    def _schedules(self) -> None:
        self._jobs = SchedulerApi(self._tasks, self._clock)
        self._stack.callback(self._jobs.stop)
        self._publish({"CLOUD_SCHEDULER_EMULATOR_HOST": self._jobs.host})

    def _site(self, functions: Functions) -> None:
        if not built():
            self._parts.append(NOT_BUILT)
            return
        project = settings_module.read(self._environ).project
        site = Site(functions.base, project=project, firebase=self._environ.get(VARIABLE))
        self._stack.callback(site.stop)
        self._parts.append(site.part)

    def _people(self) -> None:
        if not home.embedded() or self._environ.get(VARIABLE):  # somebody's own Firebase
            return
        double = people.start(settings_module.read(self._environ), self._clock)
        self._stack.callback(double.stop)
        self._publish({VARIABLE: double.host})
        # for functions only: an operator of the command line is the operating system's user
        self._environ.setdefault("KEEPER_OPERATORS", DEMO_OPERATOR)
        self._parts.append(double.part)

    def _billing(self) -> billing.Double | None:
        if not home.embedded() or self._environ.get(billing.VARIABLE):  # somebody's own Stripe
            return None
        double = billing.start(settings_module.read(self._environ), self._clock, self._at / "stripe.json")
        if double is not None:
            self._stack.callback(double.stop)
            self._publish({billing.VARIABLE: double.host})
            self._parts.append(double.part)
        return double

    def _bus(self) -> int | None:
        """Start the bus; its port, or None where there is nothing to keep its messages in."""

        def database_url() -> str:
            server = Postgres.start(self._at / "postgres")
            self._stack.callback(server.stop)
            return server.create_database("bus")

        try:
            started, part = bus.start(self._logs, database_url)
        except PostgresMissingError as missing:
            self._parts.append(Part("bus", "", missing=str(missing)))
            return None
        self._stack.callback(started.stop)
        self._parts.append(part)
        self._publish({"PUBSUB_EMULATOR_HOST": f"127.0.0.1:{started.port}"})
        return started.port

    def _publish(self, variables: Mapping[str, str]) -> None:
        self._environ.update(variables)
        self._published.update(variables)

    def _tell(self, functions: Functions) -> None:
        show.parts(self._parts)
        show.console.print()
        where = {
            name: functions.url(task) if task.run.kind == "function" else "child process of this plane"
            for name, task in self._tasks.items()
        }
        show.schedule(self._tasks, self._clock.now(), where)
        show.console.print()
        settings = settings_module.read(self._environ)
        gate = settings.backup_gate
        show.console.print(
            "mode observe: destructive tasks only show what they would do"
            if settings.mode == "observe"
            else "mode enforce: destructive tasks delete, "
            + (f"if a backup younger than {gate} is verified" if gate else "and ask for no backup, as this is a demo")
        )

    # --- running

    def run(self) -> int:
        """Fire every trigger at its time until Ctrl-C."""
        assert self._jobs is not None
        scheduler = Scheduler(
            self._tasks, self._targets, self._clock, parallel=True, fires=self._jobs.fires, tell=self._heard
        )
        self._stack.callback(scheduler.stop)
        show.console.print("the plane is up; Ctrl-C stops it")
        scheduler.run()
        return 0

    def _heard(self, attempt: Attempt) -> None:
        self._remember(attempt)
        show.attempt(attempt)

    def _remember(self, attempt: Attempt) -> None:
        if self._jobs is not None:
            self._jobs.record(attempt)

    def once(self) -> int:
        """Run every scheduled task once, in the order of the day, for its newest slot; 1 when one failed."""
        due = sorted(((self._newest(job), job) for job in jobs_of(self._tasks)), key=lambda d: (d[0].time(), d[1].name))
        ended: list[Attempt] = []
        for slot, job in due:
            show.console.print(f"running {job.task.name}", highlight=False)
            ended.append(self._targets[job.task.run.kind].fire(job, slot, 1))
            self._remember(ended[-1])
        show.console.print()
        show.outcomes(ended)
        return exit_code(ended)

    def _newest(self, job: Job) -> datetime:
        """The newest slot; of a trigger that ticks, the minute that is over, so that it ticks once."""
        now = self._clock.now()
        if isinstance(job.trigger, Every):
            return minute_of(now) - MINUTE
        return last_slot(job.trigger, now) or minute_of(now)


def _count_statements(database: Database) -> None:
    """Let analyze_query_plans see what runs here, where the PostgreSQL has the extension."""
    with database.transaction() as connection:
        there = text("select 1 from pg_available_extensions where name = 'pg_stat_statements'")
        if connection.execute(there).first() is not None:
            connection.execute(text("create extension if not exists pg_stat_statements"))


def exit_code(ended: Iterable[Attempt]) -> int:
    """1 when a run ended badly, else 0: what is not installed, or waits for somebody, is shown and no failure."""
    return int(any(one.outcome in show.FAILURES for one in ended))


def _look(database: Database, settings: Settings) -> None:
    """Raises ConfigurationError unless somebody's own database is migrated and stamped for this environment."""
    try:
        with database.transaction(read_only=True) as connection:
            guard.check_version(connection)
            guard.check_stamp(connection, settings)
    except DBAPIError as error:
        raise ConfigurationError(str(ending_of(error) or describe(error))) from None


def _log_to(file: Path) -> None:
    """Send the product's log lines, which the functions' loading has sent to the terminal, to `file`."""
    logger = logging.getLogger("groundskeeper")
    handler = logging.FileHandler(file)
    handler.setFormatter(logger.handlers[0].formatter if logger.handlers else None)
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)  # the terminal gets less
