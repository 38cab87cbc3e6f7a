"""The relay of one run: sweeps its tables again and again over one connection to the broker, and says how it went."""

from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from shared.context import Context
from shared.errors import Partial, Retry
from shared.relay.event import Broker
from shared.relay.sweep import Backoff, Memory, Sweep
from shared.relay.table import OutboxTable
from shared.wording import counted


class Relay:
    """Use as a context manager: `sweep` as often as wanted, `report` at the end."""

    def __init__(self, ctx: Context, tables: Sequence[str], connect: Callable[[], Broker], backoff: Backoff) -> None:
        """`connect` opens the broker; it is called at the first event, so that an idle run never loads a client."""
        self._ctx, self._open, self._backoff = ctx, connect, backoff
        self._tables = [OutboxTable(name) for name in tables]
        self._memories: dict[str, Memory] = {}
        self._broker: Broker | None = None
        self._refused: Counter[str] = Counter()
        self._unanswered: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disconnect()

    def sweep(self) -> None:
        """Send everything that is due, table by table. Raises what `ctx.begin()` raises."""
        self._unanswered = Counter()
        for table in self._tables:
            sweep = Sweep(self._ctx, table, self._connect, self._backoff, self._memory(table))
            sweep.run()
            self._refused += Counter({f"{table.name}: {words}": n for words, n in sweep.refused.items()})
            self._unanswered += sweep.unanswered
        if self._unanswered:
            self._disconnect()  # whatever is wrong with the connection, the next sweep has a new one

    def report(self) -> dict[str, int]:
        """The run's counts with what waits now: events, the oldest one's age in seconds, dead letters.

        Raises Partial where events failed, Retry where the broker did not answer at the last sweep.
        """
        self._measure()
        if self._refused:
            raise Partial([f"{n} of {words}" for words, n in sorted(self._refused.items())], self._ctx.counts)
        if self._unanswered:
            words, _ = self._unanswered.most_common(1)[0]
            raise Retry(f"{words}: {counted(self._ctx.counts['backlog'], 'event')} waiting, none lost")
        return self._ctx.counts

    def _measure(self) -> None:
        now = self._ctx.clock.now()
        with self._ctx.read() as connection:
            found = [table.waiting(connection) for table in self._tables]
        since = min((one.oldest for one in found if one.oldest), default=now)
        figures = {
            "backlog": sum(one.backlog for one in found),
            "oldest_s": max(0, int((now - since).total_seconds())),
            "dead_letters": sum(one.dead for one in found),
        }
        for name, value in figures.items():
            self._ctx.count(name, value - self._ctx.counts.get(name, 0))

    def _memory(self, table: OutboxTable) -> Memory:
        """What is known of the table: its held keys are read once, since nobody else makes events wait."""
        if table.name not in self._memories:
            with self._ctx.read() as connection:
                self._memories[table.name] = Memory(table.held(connection, self._ctx.clock.now()))
        return self._memories[table.name]

    def _connect(self) -> Broker:
        if self._broker is None:
            self._broker = self._open()
        return self._broker

    def _disconnect(self) -> None:
        if self._broker is not None:
            self._broker.close()
            self._broker = None
