"""The one entrypoint of every task: as an HTTP function, as a Cloud Run job, by hand.

`main = entrypoint(__file__, run)` in a task's main.py is all there is to it. functions-framework serves `main`;
a job starts with `python -m shared.task functions/<task>`.
"""

import importlib.util
import json
import signal
import sys
import threading
import typing
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import select

from shared import logs, manifest, schedule, targets
from shared import settings as settings_module
from shared.call import BadCall, Call, Request, by_hand, of_slot, parse
from shared.clock import Clock, SystemClock
from shared.context import Context, process_stopping
from shared.errors import OUTCOMES, ConfigurationError
from shared.manifest import Cron, Task
from shared.redaction import redact
from shared.result import Result
from shared.run import Body, Runner
from shared.schema import run_request
from shared.settings import Settings
from shared.strict_yaml import ManifestError

if TYPE_CHECKING:
    import flask

__all__ = ["Context", "Entry", "entrypoint", "load"]  # Context is what a task annotates its run with


@dataclass
class Entry:
    """A loaded task: its declaration and its `run`; a Runner is made when it is first called."""

    task: Task
    body: Body
    params_type: type

    def runner(self, settings: Settings, clock: Clock) -> Runner:
        """A runner of this task. Raises ManifestError when its parameters do not fit."""
        return Runner(
            self.task,
            self.body,
            self.params_type,
            manifest.code_version(self.task),
            settings,
            clock,
            starter=lambda name, request: targets.start(name, request, settings, clock),
        )


def entrypoint(file: str, run: Callable[..., Any]) -> Callable[["flask.Request"], "flask.Response"]:
    """The function to serve for the task whose main.py is `file`.

    At import it reads the manifest and checks the parameters, so that a wrong file fails the deployment and not
    the night; the database is opened at the first call.
    """
    task = manifest.load(Path(file).resolve().parent)
    entry = Entry(task, run, typing.get_type_hints(run)["params"])
    settings = settings_module.read()
    if not logs.configured():  # under `keeper` standard output belongs to the answer
        logs.configure()
    _stop_on_sigterm()
    runner = entry.runner(settings, SystemClock())

    # functions-framework takes nothing but a plain function
    def main(request: "flask.Request") -> "flask.Response":
        return _serve(runner, request)

    main.entry = entry  # type: ignore[attr-defined]
    return main


def _serve(runner: Runner, request: "flask.Request") -> "flask.Response":
    import flask

    headers = {k.lower(): v for k, v in request.headers.items()}
    asked = Request(request.method, request.path, request.args.to_dict(), headers, request.get_data(cache=True))
    with logs.fields(**logs.trace_fields(headers.get("x-cloud-trace-context"), runner.settings.project)):
        try:
            call = parse(runner.task, asked, _document(asked))
        except BadCall as error:
            logs.log.warning("a request started nothing", error=redact(str(error)))
            return flask.Response(json.dumps({"error": redact(str(error))}), 400, content_type="application/json")
        return _answer(runner.execute(call))


def _document(request: Request) -> Any:
    if not request.headers.get("content-type", "").startswith("application/json"):
        return None
    try:
        return json.loads(request.body)
    except ValueError:  # an endpoint may take any body; whoever needs JSON says so
        return None


def _answer(result: Result) -> "flask.Response":
    import flask

    if result.reply is not None:
        return flask.Response(result.reply.body, result.reply.status, headers=result.reply.headers)
    return flask.Response(json.dumps(result.document()), OUTCOMES[result.outcome].http, content_type="application/json")


def _stop_on_sigterm() -> None:
    """Let runs end in order when Cloud Run stops the instance; whoever handled SIGTERM before still does."""
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        process_stopping.set()
        if callable(before):
            before(number, frame)

    if getattr(before, "stops_runs", False):
        return
    stop.stops_runs = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, stop)


def load(folder: Path) -> Entry:
    """The task in `folder`, imported from its main.py under a name of its own. Raises ManifestError."""
    name = f"functions_{folder.name}_main"
    spec = importlib.util.spec_from_file_location(name, folder / "main.py")
    if spec is None or spec.loader is None or not (folder / "main.py").is_file():
        raise ManifestError(f"functions/{folder.name}: no main.py: `keeper list` shows the tasks there are")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return cast(Entry, module.main.entry)


def run_job(folder: Path, settings: Settings, clock: Clock) -> Result:
    """One start of a job: a request waiting for it, else the slot of its schedule that came last.

    Cloud Run's :run carries no body, so a request by hand is found in the ledger.
    """
    entry = load(folder)
    runner = entry.runner(settings, clock)
    try:
        return runner.execute(_job_call(entry.task, runner, settings, clock))
    finally:
        runner.close()


def _job_call(task: Task, runner: Runner, settings: Settings, clock: Clock) -> Call:
    waiting: uuid.UUID | None = None
    with runner.database().transaction(read_only=True) as connection:
        waiting = connection.execute(
            select(run_request.c.request_id)
            .where(
                run_request.c.task == task.name,
                run_request.c.claimed_at.is_(None),
                run_request.c.cancelled_at.is_(None),
            )
            .order_by(run_request.c.requested_at)
            .limit(1)
        ).scalar()
    if waiting is not None:
        return by_hand(waiting)
    slots = [
        (slot, t)
        for t in task.triggers
        if isinstance(t, Cron)
        if (slot := schedule.last_slot(t, clock.now())) is not None
    ]
    if not slots:
        raise ConfigurationError(
            f"{task.name} has no schedule and no request waits for it: start it with `keeper run {task.name}`"
        )
    slot, trigger = max(slots, key=lambda pair: pair[0])
    return of_slot(trigger, slot, shard=settings.shard)


def main() -> int:
    """`python -m shared.task functions/<task>`: run a job once and exit with its outcome's code."""
    logs.configure()
    if len(sys.argv) != 2:
        logs.log.error("expected one argument", usage="python -m shared.task functions/<task>")
        return 2
    try:
        result = run_job(Path(sys.argv[1]).resolve(), settings_module.read(), SystemClock())
    except (ConfigurationError, ManifestError) as error:
        logs.log.error("the job cannot start", error=redact(str(error)))
        return 3
    return OUTCOMES[result.outcome].exit


if __name__ == "__main__":
    sys.exit(main())
