"""Keep a run's lease alive while its task works, and notice when it is lost."""

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shared import ledger
from shared.context import Context
from shared.database import Database
from shared.endings import FORESEEN
from shared.logs import log
from shared.redaction import describe

# A heartbeat that takes longer than this has failed; several fit into a lease.
_TIMEOUT_MS = 5_000


@contextmanager
def beating(database: Database, context: Context, fence: int) -> Iterator[None]:
    """Beat beside the block; `context.lease_lost` is set when the lease is gone or may be by now."""
    stop = threading.Event()
    # The thread's log lines bear the run's fields too.
    inherited = contextvars.copy_context()
    thread = threading.Thread(target=inherited.run, args=(_beat, database, context, fence, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(1)  # a beat under way on a dead network is left behind rather than waited for


def _beat(database: Database, context: Context, fence: int, stop: threading.Event) -> None:
    silent_since = context.clock.monotonic()
    while not stop.wait(ledger.HEARTBEAT_S):
        asked = context.clock.monotonic()
        try:
            with database.transaction(name=f"{context.task.name}/heartbeat", statement_timeout_ms=_TIMEOUT_MS) as at:
                alive = ledger.heartbeat(at, fence, done=context.done, total=context.total)
            silent_since = asked  # the lease counts from when the database heard of us, at the earliest
        except FORESEEN as error:
            log.warning("heartbeat failed", error=describe(error))
            alive = context.clock.monotonic() - silent_since < ledger.LEASE_S
        if not alive:
            context.lease_lost.set()
            return
