"""Kill a run with SIGKILL at a chosen step, for tests that prove the next run goes on.

A step is any statement sent to the database, any commit, any program started, and any file of an object store appearing
or going, in the order one process makes them: between two steps nothing a database, a store or a rerun could see
happens. `Killer` keeps one process that has everything imported and forks a child a run, so that killing at each of a
hundred steps takes seconds.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.manifest import ROOT


@dataclass(frozen=True)
class Life:
    """How a child ended: killed at its step, or by itself with an outcome after `steps` steps."""

    killed: bool
    outcome: str | None
    error: str | None
    steps: int


class Killer:
    """Runs `folder`'s task for a slot in children that die where they are told to."""

    def __init__(self, process: "subprocess.Popen[str]", environment: Mapping[str, str], folder: Path) -> None:
        self._process, self._environment, self._folder = process, dict(environment), folder

    def run(
        self,
        *,
        slot: str = "",
        step: int | None = None,
        now: str,
        request: str | None = None,
        message: Mapping[str, Any] | None = None,
    ) -> Life:
        """One run for the cron slot at `slot`, for the `request` by hand or for the `message` in its push envelope,
        killed just before its `step`-th step (from 1); None: not killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {
            "environment": self._environment, "folder": str(self._folder), "slot": slot, "step": step, "now": now,
            "request": request, "message": message,
        }  # fmt: skip
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Life(**json.loads(self._process.stdout.readline()))


@contextmanager
def killer(environment: Mapping[str, str], folder: Path) -> Iterator[Killer]:
    """A Killer whose children run with `environment` as their only settings."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.killing"], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Killer(process, environment, folder)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def _zygote() -> None:
    import shared.backup.drill
    import shared.relay.pubsub
    import shared.retention.purge
    import shared.storage.rotate
    import shared.task  # noqa: F401 - imported once, inherited by every child

    for line in sys.stdin:
        order = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os.dup2(2, 1)  # the run's log lines are not the answer
            _live(order, writer)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            said = pipe.read().splitlines()
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        ending = json.loads(said[-1]) if said and not killed else {"outcome": None, "error": None, "steps": len(said)}
        print(json.dumps({"killed": killed, **ending}), flush=True)


def _live(order: dict[str, Any], writer: int) -> None:
    from datetime import datetime

    from sqlalchemy import Engine, event

    from shared import settings as settings_module
    from shared.call import by_hand, of_message, of_slot
    from shared.clock import parse_rfc3339
    from shared.manifest import Cron, Every
    from shared.task import load

    steps = itertools.count(1)

    removing: list[bool] = []

    def step(*_: object) -> None:
        if removing:
            return
        number = next(steps)
        os.write(writer, f"{number}\n".encode())
        if number == order["step"]:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", step)
    event.listen(Engine, "commit", step)

    def stepping(act: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*given: Any, **options: Any) -> Any:
            step()
            return act(*given, **options)

        return stepped

    os.link = stepping(os.link)
    os.rename, os.ftruncate = stepping(os.rename), stepping(os.ftruncate)
    unlink = os.unlink

    def stepped_unlink(path: Any, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:  # the others are a store's own, or Path's, which is a step already
            step()
        unlink(path, dir_fd=dir_fd)

    def stepped_rmtree(*given: Any, **options: Any) -> None:
        step()  # a folder of a thousand files is one thing, and a test of its own where it matters
        removing.append(True)
        rmtree(*given, **options)
        removing.pop()

    rmtree, shutil.rmtree = shutil.rmtree, stepped_rmtree  # type: ignore[assignment]
    os.unlink = stepped_unlink
    Path.unlink = stepping(Path.unlink)  # type: ignore[method-assign]
    subprocess.Popen.__init__ = stepping(subprocess.Popen.__init__)  # type: ignore[method-assign]

    class Frozen:
        def now(self) -> datetime:
            return parse_rfc3339(order["now"])

        def monotonic(self) -> float:
            return 0.0

        def sleep(self, seconds: float) -> None:
            time.sleep(min(seconds, 0.02))  # for the connections of a killed predecessor to be noticed as broken

    entry = load(Path(order["folder"]))
    runner = entry.runner(settings_module.read(order["environment"]), Frozen())
    if order["request"]:
        call = by_hand(uuid.UUID(order["request"]))
    elif order["message"]:
        call = of_message(order["message"])
    else:
        timed = next(t for t in entry.task.triggers if isinstance(t, Cron | Every))
        call = of_slot(timed, parse_rfc3339(order["slot"]))
    result = runner.execute(call)
    os.write(
        writer,
        (
            json.dumps({"outcome": result.outcome.value, "error": result.error, "steps": next(steps) - 1}) + "\n"
        ).encode(),
    )
    os._exit(0)


if __name__ == "__main__":
    _zygote()
