"""Cloud Run jobs on the laptop: `python -m shared.task functions/<task>` as a child process a task index."""

import json
import sys
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

from shared.errors import OUTCOMES
from shared.laptop.processes import Child
from shared.manifest import ROOT, Task

# As terraform/jobs.tf has it; tests/laptop holds the two equal.
MAX_RETRIES = 1


@dataclass(frozen=True)
class Ended:
    """How one index of an execution ended: its outcome, the last line its log says about it, and the exit code."""

    index: int
    outcome: str
    exit: int
    said: Mapping[str, Any]


class Jobs:
    """Runs executions; `stop` ends those under way, as Cloud Run does with SIGTERM."""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        """`environ` is what every job gets; logs are in `folder`/<task>-<index>.log."""
        self._environ = environ
        self._folder = folder
        self._lock = threading.Lock()
        self._children: set[Child] = set()
        self._stopping = False

    def execute(self, task: Task, *, retries: int = MAX_RETRIES) -> list[Ended]:
        """One execution: every index, at most `parallelism` at a time, a failed one tried again `retries` times."""
        execution = f"{task.slug}-{uuid.uuid4().hex[:5]}"
        with ThreadPoolExecutor(task.run.parallelism, thread_name_prefix=execution) as at_once:
            return list(at_once.map(lambda index: self._index(task, execution, index, retries), range(task.run.tasks)))

    def _index(self, task: Task, execution: str, index: int, retries: int) -> Ended:
        for attempt in range(retries + 1):
            ended = self._attempt(task, execution, index, attempt)
            if ended.exit == 0 or self._stopping:
                break
        return ended

    def _attempt(self, task: Task, execution: str, index: int, attempt: int) -> Ended:
        # CLOUD_RUN_JOB is left out: it says "this is the cloud", where emulators and a database without TLS are refused
        variables = {
            "CLOUD_RUN_EXECUTION": execution,
            "CLOUD_RUN_TASK_INDEX": str(index),
            "CLOUD_RUN_TASK_COUNT": str(task.run.tasks),
            "CLOUD_RUN_TASK_ATTEMPT": str(attempt),
        }
        name = f"{task.slug}-{index}"
        log = self._folder / f"{name}.log"
        before = log.stat().st_size if log.exists() else 0
        with self._lock:
            if self._stopping:
                return Ended(index, "stopped", 0, {})
            child = Child.start(
                name,
                [sys.executable, "-m", "shared.task", str(task.folder)],
                folder=self._folder,
                env={**self._environ, **variables},
                cwd=ROOT,
            )
            self._children.add(child)
        try:
            code = child.process.wait(timeout=task.run.timeout_s)
        except TimeoutExpired:
            child.stop()
            code = child.process.returncode
        finally:
            with self._lock:
                self._children.discard(child)
            child.forget()
        said = _last_words(log, before)
        return Ended(index, str(said.get("outcome") or _outcome_of(code)), code, said)

    def stop(self) -> None:
        """Ask what is under way to end; what does not within five seconds is ended."""
        with self._lock:
            self._stopping = True
            children = list(self._children)
        for child in children:
            child.stop()


def _last_words(log: Path, before: int) -> dict[str, Any]:
    """The line "run ended" that this attempt wrote to its log, as a mapping; empty when it never came so far."""
    with log.open("rb") as stream:
        stream.seek(before)
        lines = stream.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("message") in ("run ended", "the job cannot start"):
                return entry
    return {}


def _outcome_of(code: int) -> str:
    """The outcome of an exit code that came without words: 3 is a refusal to start, the rest a defect."""
    return "refused" if code == OUTCOMES["refused"].exit else "ok" if code == 0 else "failed"  # type: ignore[index]
