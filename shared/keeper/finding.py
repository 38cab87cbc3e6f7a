"""What `keeper doctor` looked at."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok`, `note` or `wrong`, what was seen, and what to do."""

    subject: str
    state: str
    seen: str
    remedy: str = ""
