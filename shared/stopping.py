"""Whether this process was asked to stop: by SIGTERM, whoever handles it, or by the laptop's plane."""

import signal
import threading


class _Stopping(threading.Event):
    """Set by our handler of SIGTERM. A gunicorn worker (what functions-framework serves with in the cloud) puts its
    own handler in the place of ours after its fork and ends by its `alive`, so that is looked at too."""

    def is_set(self) -> bool:
        worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        return super().is_set() or getattr(worker, "alive", True) is False


process_stopping = _Stopping()
"""Every run in this process stops at its next transaction once this is set."""


def stop_on_sigterm() -> None:
    """Let runs end in order when Cloud Run stops the instance; whoever handled SIGTERM before still does."""
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)
    if getattr(before, "stops_runs", False):
        return

    def stop(number: int, frame: object) -> None:
        process_stopping.set()
        if callable(before):
            before(number, frame)  # type: ignore[arg-type]

    stop.stops_runs = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, stop)
