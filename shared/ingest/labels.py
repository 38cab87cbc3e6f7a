"""What is said of windows of traffic, for models to learn from: a row a window and source, the latest word counts.

The rows are bounded by the windows there can be, so a flood of events changes rows and adds none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from shared.clock import parse_rfc3339
from shared.context import Context
from shared.ingest.events import Event, Poison, poisoned
from shared.ingest.fields import BadField

LABELLED = "window.labelled"
SOURCES = ("operator", "incident", "indicator")

# An older word, which came late, never replaces a newer one.
_SAY = text("""
    insert into window_label as l (window_start, width_s, source, is_attack, said_at, received_at)
    values (:start, :width, :source, :is_attack, :said_at, :now)
        on conflict (window_start, width_s, source) do update
       set is_attack = excluded.is_attack, said_at = excluded.said_at, received_at = excluded.received_at
     where l.said_at < excluded.said_at""")


@dataclass(frozen=True)
class Windows:
    """The windows there are: how wide, and how far back a word about one counts."""

    width_s: int
    oldest_days: int


class Labels:
    """Writes a batch's labels. What is of no known type is somebody else's and left alone."""

    def __init__(self, ctx: Context, windows: Windows) -> None:
        self._ctx, self._windows = ctx, windows

    def __call__(self, connection: Connection, events: Sequence[Event]) -> Sequence[Poison]:
        """Write them in the caller's transaction; those that can never be written."""
        poison: list[Poison] = []
        rows: dict[tuple[datetime, str], dict[str, object]] = {}
        now = self._ctx.clock.now()
        for event in sorted(events, key=lambda e: e.occurred_at):
            if event.kind != LABELLED:
                self._ctx.count("ignored")
                continue
            try:
                start, source, is_attack = self._read(event, now)
            except BadField as bad:
                poison.append(poisoned(event, str(bad)))
                continue
            rows[start, source] = {
                "start": start,
                "width": self._windows.width_s,
                "source": source,
                "is_attack": is_attack,
                "said_at": event.occurred_at,
                "now": now,
            }
        if rows:  # in one order everywhere, so that two batches never deadlock
            connection.execute(_SAY, [rows[key] for key in sorted(rows)])
            self._ctx.count("labels", len(rows))
        return poison

    def _read(self, event: Event, now: datetime) -> tuple[datetime, str, bool]:
        data = event.data
        try:
            start = parse_rfc3339(data["window_start"])
        except (KeyError, ValueError, TypeError, OverflowError):
            raise BadField("data.window_start is not RFC 3339 with an offset") from None
        if data.get("width_s") != self._windows.width_s or start.timestamp() % self._windows.width_s:
            raise BadField(f"the window is none of {self._windows.width_s} seconds that begins on its multiple")
        if start > now or start < now - timedelta(days=self._windows.oldest_days):
            raise BadField("the window is in the future, or older than what models learn from")
        if event.occurred_at > now + timedelta(minutes=5):
            raise BadField("it was said in the future")
        if data.get("source") not in SOURCES:
            raise BadField(f"data.source is not one of {', '.join(SOURCES)}")
        if not isinstance(data.get("is_attack"), bool):
            raise BadField("data.is_attack is neither true nor false")
        return start, data["source"], data["is_attack"]
