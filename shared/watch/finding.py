"""What the watchdog found wrong."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong now. `key` is the same as long as it is the same thing; `runbook` names the task whose
    page says what to do. The summary goes to chat and mail: no secret, no personal data."""

    key: str
    severity: str  # warning or error
    summary: str
    runbook: str
