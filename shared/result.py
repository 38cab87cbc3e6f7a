"""How a call ended, and the JSON that says it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.call import Reply
from shared.clock import rfc3339
from shared.errors import Outcome

JSON_VERSION = 1


@dataclass(frozen=True)
class Result:
    """How a call ended. `run_id` is None when it never reached the ledger."""

    task: str
    outcome: Outcome
    run_id: uuid.UUID | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    plan: dict[str, Any] | None = None
    plan_hash: str | None = None
    error: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reply: Reply | None = None

    def document(self) -> dict[str, Any]:
        """The JSON of a run (schema: docs/schemas/run.json)."""
        return {
            "schema_version": JSON_VERSION,
            "run_id": str(self.run_id) if self.run_id else None,
            "task": self.task,
            "outcome": self.outcome.value,
            "counts": dict(sorted(self.counts.items())),
            "plan": self.plan,
            "plan_hash": self.plan_hash,
            "error": self.error,
            "started_at": rfc3339(self.started_at) if self.started_at else None,
            "finished_at": rfc3339(self.finished_at) if self.finished_at else None,
        }
