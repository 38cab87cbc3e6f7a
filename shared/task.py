"""The one entrypoint of every task: as an HTTP function, as a Cloud Run job, by hand.

`main = entrypoint(__file__, run)` in a task's main.py is all there is to it. functions-framework serves `main`;
a job starts with `python -m shared.task functions/<task>`.
"""

import importlib.util
import json
import sys
import typing
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from shared import logs, manifest, plans, schedule, targets
from shared import settings as settings_module
from shared.call import BadCall, Call, Request, by_hand, of_slot, parse
from shared.clock import Clock, SystemClock
from shared.context import Context
from shared.endings import FORESEEN, ended
from shared.errors import OUTCOMES, ConfigurationError
from shared.manifest import Cron, Task
from shared.result import Result
from shared.run import Body, Runner, Starter, Unreached
from shared.settings import Settings
from shared.stopping import stop_on_sigterm
from shared.strict_yaml import ManifestError

if TYPE_CHECKING:
    import flask

__all__ = ["Context", "Entry", "entrypoint", "load"]  # Context is what a task annotates its run with


# What Cloud Run passes on, so that nothing larger is read elsewhere either. In bytes; more is answered 413.
_LARGEST_BODY = 32 << 20

# A job's start this soon after a slot may be Scheduler's.
_SCHEDULERS_START = timedelta(minutes=15)


@dataclass
class Entry:
    """A loaded task: its declaration and its `run`; a Runner is made when it is first called."""

    task: Task
    body: Body
    params_type: type
    unreached: Unreached | None = None

    def runner(self, settings: Settings, clock: Clock, starter: Starter | None = None) -> Runner:
        """A runner of this task; what it starts, `starter` starts, by default wherever it lives.

        Raises ManifestError when its parameters do not fit.
        """
        return Runner(
            self.task,
            self.body,
            self.params_type,
            manifest.code_version(self.task),
            settings,
            clock,
            starter=starter or (lambda name, request: targets.start(name, request, settings, clock)),
            unreached=self.unreached,
        )


def entrypoint(
    file: str, run: Callable[..., Any], *, unreached: Unreached | None = None
) -> Callable[["flask.Request"], "flask.Response"]:
    """The function to serve for the task whose main.py is `file`.

    At import it reads the manifest and checks the parameters, so that a wrong file fails the deployment and not
    the night; the database is opened at the first call. `unreached` is called instead of `run` when a start ended
    before its run could be opened: with the settings, the clock, the parameters and how it ended. What it returns is
    the answer.
    """
    task = manifest.load(Path(file).resolve().parent)
    entry = Entry(task, run, typing.get_type_hints(run)["params"], unreached)
    settings = settings_module.read()
    if not logs.configured():  # under `keeper` standard output belongs to the answer
        logs.configure()
    stop_on_sigterm()
    runner = entry.runner(settings, SystemClock())

    # functions-framework takes nothing but a plain function
    def main(request: "flask.Request") -> "flask.Response":
        return _serve(runner, request)

    main.entry, main.runner = entry, runner  # type: ignore[attr-defined]
    return main


def _serve(runner: Runner, request: "flask.Request") -> "flask.Response":
    import flask

    request.max_content_length = _LARGEST_BODY
    headers = {k.lower(): v for k, v in request.headers.items()}
    asked = Request(request.method, request.path, request.args.to_dict(), headers, request.get_data(cache=True))
    with logs.fields(**logs.trace_fields(headers.get("x-cloud-trace-context"), runner.settings.project)):
        try:
            call = parse(runner.task, asked, _document(asked))
        except BadCall as error:
            logs.log.warning("a request started nothing", error=str(error))
            return flask.Response(json.dumps({"error": str(error)}), error.status, content_type="application/json")
        return _answer(runner.execute(call), brought=call.brought)


def _document(request: Request) -> Any:
    if not request.headers.get("content-type", "").startswith("application/json"):
        return None
    try:
        return json.loads(request.body)
    except (ValueError, RecursionError):  # an endpoint may take any body; whoever needs JSON says so
        return None


def _answer(result: Result, *, brought: bool) -> "flask.Response":
    import flask

    if result.reply is not None:
        return flask.Response(result.reply.body, result.reply.status, headers=result.reply.headers)
    meaning = OUTCOMES[result.outcome]
    status = 503 if brought and meaning.again else meaning.http
    return flask.Response(json.dumps(result.document()), status, content_type="application/json")


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
    """One start of a job: the request that waits for it, else the slot of its schedule that came last.

    Cloud Run's :run carries no body, so a request by hand is found in the ledger. Right after a slot this may be
    Scheduler's start, so the slot is run as well: a request must not cost a night. The result is the worse one's.
    """
    entry = load(folder)
    runner = entry.runner(settings, clock)
    try:
        results = [runner.execute(call) for call in _job_calls(entry.task, runner, settings, clock)]
    finally:
        runner.close()
    return max(results, key=lambda result: OUTCOMES[result.outcome].exit)


def _job_calls(task: Task, runner: Runner, settings: Settings, clock: Clock) -> list[Call]:
    now = clock.now()
    slots = [(slot, t) for t in task.triggers if isinstance(t, Cron) if (slot := schedule.last_slot(t, now))]
    slot, trigger = max(slots, key=lambda pair: pair[0], default=(None, None))
    asked = _asked(task, runner, settings, now)
    calls = [] if asked is None else [by_hand(asked, shard=settings.shard)]
    if slot is not None and trigger is not None and (asked is None or now - slot < _SCHEDULERS_START):
        calls.append(of_slot(trigger, slot, shard=settings.shard))
    if not calls:
        raise ConfigurationError(
            f"{task.name} has no schedule and no request waits for it: start it with `keeper run {task.name}`"
        )
    return calls


def _asked(task: Task, runner: Runner, settings: Settings, now: datetime) -> uuid.UUID | None:
    if settings.paused:  # the database may be what the pause is about; the slot's run says that it is paused
        return None
    with runner.database().transaction(read_only=True) as connection:
        return plans.waiting(connection, task.name, shard=settings.shard, now=now)


def main() -> int:
    """`python -m shared.task functions/<task>`: run a job once and exit with its outcome's code."""
    logs.configure()
    if len(sys.argv) != 2:
        logs.log.error("expected one argument", usage="python -m shared.task functions/<task>")
        return 2
    try:
        result = run_job(Path(sys.argv[1]).resolve(), settings_module.read(), SystemClock())
    except FORESEEN as error:
        how = ended(error)
        logs.log.error("the job cannot start", outcome=how.outcome.value, error=how.error)
        return OUTCOMES[how.outcome].exit
    return OUTCOMES[result.outcome].exit


if __name__ == "__main__":
    sys.exit(main())
