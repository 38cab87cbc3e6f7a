"""Whether an address or a referring site is a known threat: asked once for a whole batch."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from ipaddress import ip_network

from sqlalchemy import Connection, text

from shared.ingest.fields import Address

# As fetch_threat_intel writes them. Whoever is listed without a confidence is listed.
_LISTED = text("""
    select distinct t.indicator_type, t.indicator
      from unnest(cast(:kinds as text[]), cast(:indicators as text[])) as a(kind, indicator)
      join threat_intelligence t on t.indicator_type = a.kind and t.indicator = a.indicator
     where (t.expires_at is null or t.expires_at > :now)
       and coalesce(t.confidence, 100) >= :least""")

# Networks wider than these are no indicator of anybody.
_WIDEST = {4: 8, 6: 19}


def indicators(address: Address | None, referrer: str | None) -> Iterator[tuple[str, str]]:
    """What could be listed of a request: its address, the networks it is in, the site it came from and its parents."""
    if address is not None:
        yield f"ipv{address.version}", str(address)
        for length in range(_WIDEST[address.version], address.max_prefixlen + 1):
            yield "cidr", str(ip_network((address, length), strict=False))
    labels = referrer.split(".") if referrer else []
    for first in range(len(labels) - 1):
        yield "domain", ".".join(labels[first:])


def listed(
    connection: Connection, asked: Iterable[tuple[str, str]], *, least_confidence: int, now: datetime
) -> set[tuple[str, str]]:
    """Those of the indicators that are in force."""
    wanted = sorted(set(asked))
    if not wanted:
        return set()
    binds = {
        "kinds": [kind for kind, _ in wanted],
        "indicators": [indicator for _, indicator in wanted],
        "least": least_confidence,
        "now": now,
    }
    return {(row.indicator_type, row.indicator) for row in connection.execute(_LISTED, binds)}
