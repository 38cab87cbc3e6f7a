"""What a scan found: a row of threat_intelligence, and an event the first time. An address is a keyed hash only.

The hash is HMAC-SHA256 with a key of the platform's own: whoever has the table alone can test no address against it.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from shared.context import Context
from shared.redaction import redact

TOPIC = "incident-events"
_LONGEST = 1500


@dataclass(frozen=True)
class Finding:
    """One thing found. `value` is unique among its `kind`: breach, exposure or mention. `data` goes into the event."""

    kind: str
    value: str
    source: str
    reference: str
    confidence: int
    severity: str
    description: str
    data: Mapping[str, Any]
    account_id: str | None = None
    first_seen: datetime | None = field(default=None)

    @property
    def key(self) -> str:
        """The canonical key; one too long for an index is a digest."""
        if len(self.value) > _LONGEST:
            return f"{self.kind}:sha256={hashlib.sha256(self.value.encode()).hexdigest()}"
        return f"{self.kind}:{self.value}"


_RECORD = text("""
insert into threat_intelligence as t (
    canonical_key, indicator_type, indicator, confidence, severity, description, sources, first_seen, last_seen,
    created_at
) values (
    :key, :kind, :value, :confidence, :severity, :description,
    jsonb_build_array(jsonb_build_object(
      'source', cast(:source as text), 'reference', cast(:reference as text), 'seen_at', cast(:now as timestamptz),
      'confidence', cast(:confidence as int))),
    least(cast(:first_seen as timestamptz), cast(:now as timestamptz)), :now, :now
)
on conflict (canonical_key) do update set last_seen = greatest(t.last_seen, excluded.last_seen)
returning xmax = 0 as fresh
""")


def record(ctx: Context, connection: Connection, finding: Finding) -> bool:
    """Write `finding` and, if it is new, tell it, with the caller's transaction; whether it is new."""
    fresh = connection.execute(
        _RECORD,
        {
            "key": finding.key,
            "kind": finding.kind,
            "value": finding.value,
            "confidence": finding.confidence,
            "severity": finding.severity,
            "description": redact(finding.description)[:300],
            "source": finding.source,
            "reference": finding.reference,
            "first_seen": finding.first_seen or ctx.now,
            "now": ctx.now,
        },
    ).scalar_one()
    ctx.count("found")
    if fresh:
        ctx.count("new")
        ctx.publish(
            connection,
            topic=TOPIC,
            kind=f"security.{finding.kind}_found",
            data={"key": finding.key, "severity": finding.severity, **finding.data},
            account_id=finding.account_id,
        )
    return bool(fresh)


def address_hash(address: str, key: str) -> str:
    """What stands for an e-mail address: 64 hex digits."""
    return hmac.new(key.encode(), b"address\0" + address.strip().lower().encode(), hashlib.sha256).hexdigest()
