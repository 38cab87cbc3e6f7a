"""The doorbell: a writer rings in its transaction, `select pg_notify('groundskeeper_outbox', '')`, and PostgreSQL
passes it on at the commit. Whoever is awake hears it; whoever is not finds the event at its next sweep.
"""

import select
from types import TracebackType
from typing import Any, Self

from shared.context import Context
from shared.outbox import DOORBELL

# Seconds between looks at what no socket says: that the run must stop, and what the driver has read ahead already.
_LOOK_S = 0.1


class Doorbell:
    """Use as a context manager: listens from its beginning to its end, on a connection of its own."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._opened = ctx.autocommit()

    def __enter__(self) -> Self:
        self._connection = self._opened.__enter__()
        self._connection.exec_driver_sql(f"listen {DOORBELL}")
        self._driver: Any = self._connection.connection.dbapi_connection
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def rung(self, seconds: float) -> bool:
        """Wait at most so long for a ring; whether there was one. All rings until now are answered as one."""
        end = self._ctx.clock.monotonic() + seconds
        while not self._ctx.stopping and (left := end - self._ctx.clock.monotonic()) > 0:
            select.select([self._driver._usock], [], [], min(left, _LOOK_S))
            # the driver takes notifications in with the answer to any statement
            self._connection.exec_driver_sql("select 1")
            if self._driver.notifications:
                self._driver.notifications.clear()
                return True
        return False
