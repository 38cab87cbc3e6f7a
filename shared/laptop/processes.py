"""Servers and jobs of the laptop as child processes: logged, ended with their children, found again after a crash."""

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from shared.clock import SystemClock

_STOP_S = 5.0
_CLOCK = SystemClock()


class NotStartedError(Exception):
    """A program did not come up; the message has its name and the end of its log."""


@dataclass(frozen=True)
class Part:
    """One part of the plane as an operator is told of it: what it is, where, and why it is missing, if it is."""

    name: str
    what: str
    where: str = ""
    missing: str | None = None


class Child:
    """A program in a session of its own, so that Ctrl-C in our terminal reaches it only through us."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], record: Path) -> None:
        self.name = name
        self.process = process
        self._record = record

    @classmethod
    def start(
        cls,
        name: str,
        arguments: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> "Child":
        """Start `arguments`; its output goes to `folder`/`name`.log, its number to `folder`/`name`.pid."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        record = folder / f"{name}.pid"
        with suppress(psutil.NoSuchProcess):
            record.write_text(f"{process.pid} {psutil.Process(process.pid).create_time()}")
        return cls(name, process, record)

    def wait_until(self, ready: Callable[[], bool], *, seconds: float = 30.0) -> None:
        """Return when `ready()`. Raises NotStartedError when the program ends, or takes longer than `seconds`."""
        limit = _CLOCK.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None or _CLOCK.monotonic() > limit:
                self.stop()
                log = self._record.with_suffix(".log")
                raise NotStartedError(
                    f"{self.name} did not start (log: {log}): {log.read_text(errors='replace')[-300:]}"
                )
            _CLOCK.sleep(0.05)

    def stop(self) -> None:
        """End the program and its children: politely, at once after five seconds."""
        _end(self.process.pid)
        self.process.wait()
        self.forget()

    def forget(self) -> None:
        """Remove the record of a program that has ended by itself."""
        self._record.unlink(missing_ok=True)


def end_leftovers(folder: Path) -> list[str]:
    """End the programs that a killed predecessor left running; their names. The folder must be ours alone."""
    ended = []
    for record in sorted(folder.glob("*.pid")):
        with suppress(psutil.NoSuchProcess, ValueError):
            pid, born = record.read_text().split()
            # a number may be another process's by now: only the same birth makes it the same one
            if psutil.Process(int(pid)).create_time() == float(born):
                _end(int(pid))
                ended.append(record.stem)
        record.unlink(missing_ok=True)
    return ended


def _end(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        leader = psutil.Process(pid)
        family = [leader, *leader.children(recursive=True)]
        for how in (signal.SIGTERM, signal.SIGKILL):
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.send_signal(how)
            _, family = psutil.wait_procs(family, timeout=_STOP_S)
            if not family:
                return
