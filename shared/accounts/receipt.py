"""What the owner gets: what went, a recount of zero everywhere, and what still exists until when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from shared.accounts.inventory import PROFILE, REPORTS, STORES
from shared.accounts.progress import Progress
from shared.clock import rfc3339


@dataclass(frozen=True)
class Remains:
    """What outlives a deletion: at most so many days, or as long as `because` says."""

    what: str
    because: str
    days: int = 0  # 0: nobody here can say


def recount(connection: Connection, account: str) -> dict[str, int]:
    """Rows by table that are still the account's: zero everywhere, or it is not deleted."""
    return {store.table: store.count(connection, account) for store in (*STORES, *REPORTS, PROFILE)}


def write(progress: Progress, counted: Mapping[str, int], remains: Sequence[Remains], now: datetime) -> dict[str, Any]:
    """The receipt of a deletion that is done. No id, no address: it is kept."""
    steps = progress.steps
    return {
        "erasure_id": str(progress.erasure_id),
        "requested_at": rfc3339(progress.requested_at),
        "completed_at": rfc3339(now),
        "subscription": {k: v for k, v in steps["subscription"].items() if k != "done_at"},
        "deleted": {**steps["rows"]["deleted"], "objects": steps["objects"]["deleted"], PROFILE.table: 1},
        "anonymised": steps["rows"]["anonymised"],
        "recount": {**counted, "objects": steps["objects"]["left"]},
        "still_exists": [
            {
                "what": one.what,
                "because": one.because,
                "until": rfc3339(now + timedelta(days=one.days)) if one.days else None,
            }
            for one in remains
        ],
    }
