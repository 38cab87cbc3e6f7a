"""Have I Been Pwned, version 3 of its API: breaches of our domains, addresses at our domains, customers' addresses.

The catalogue of breaches takes no key. Who at a verified domain is in which breach takes one; so do customers'
addresses, of which only the first six digits of a SHA-1 are sent (k-anonymity), and only when that is switched on.
https://haveibeenpwned.com/API/v3
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from sqlalchemy import text

from shared.context import Context
from shared.darkweb.findings import Finding, address_hash, record
from shared.darkweb.service import Place, Service, ServiceFailed, keep

SOURCE = "hibp"
_NAME = re.compile(r"[A-Za-z0-9._ -]{1,80}")
_PAGE = 100


def breaches(ctx: Context, service: Service, domains: Sequence[str]) -> None:
    """Look the whole catalogue through for breaches of `domains` themselves."""
    catalogue = service.json("/breaches")
    if not isinstance(catalogue, list):
        raise ServiceFailed("its catalogue is not a list")
    ours = {d.lower() for d in domains}
    found = [b for b in catalogue if isinstance(b, dict) and str(b.get("Domain", "")).lower() in ours]
    ctx.count("breaches_checked", len(catalogue))
    with ctx.begin() as connection:
        for breach in found:
            record(ctx, connection, _breach(breach))


def _breach(breach: dict[str, Any]) -> Finding:
    name = _named(breach.get("Name"))
    classes = [c for c in breach.get("DataClasses") or [] if isinstance(c, str)]
    return Finding(
        kind="breach",
        value=name,
        source=SOURCE,
        reference=f"https://haveibeenpwned.com/PwnedWebsites#{quote(name)}",
        confidence=100 if breach.get("IsVerified") is True else 60,
        severity="critical" if "Passwords" in classes else "high",
        description=f"breach of {breach.get('Domain')}: {', '.join(classes)}",
        data={"breach": name, "domain": breach.get("Domain"), "date": breach.get("BreachDate"), "classes": classes},
        first_seen=_moment(breach.get("AddedDate")),
    )


def domain(ctx: Context, service: Service, name: str, key: str) -> None:
    """Look for addresses at the verified domain `name`; the platform's own, so that no account is named."""
    answer = service.json(f"/breacheddomain/{quote(name)}")
    if answer is not None and not isinstance(answer, dict):
        raise ServiceFailed("its answer for a domain is not an object")
    for alias, names in (answer or {}).items():
        hashed = address_hash(f"{alias}@{name}", key)
        with ctx.begin() as connection:
            for breach in names if isinstance(names, list) else []:
                record(ctx, connection, _exposure(hashed, _named(breach), account_id=None))
    ctx.count("domains_checked")


_CUSTOMERS = text("""
select account_id, email
  from user_profile
 where account_id > :after
   and email is not null
 order by account_id
 limit :page
""")


def customers(ctx: Context, service: Service, place: Place, key: str, *, scan: str) -> None:
    """Look for customers' addresses, from where the last run came to; the whole round once, then from the start."""
    after = str(place.cursor.get("after", ""))
    while True:
        with ctx.read() as connection:
            page = connection.execute(_CUSTOMERS, {"after": after, "page": _PAGE}).all()
        for account_id, email in page:
            names = _of_address(service, email)
            place.cursor = {"after": account_id}
            with ctx.begin() as connection:
                for name in names:
                    record(ctx, connection, _exposure(address_hash(email, key), name, account_id=account_id))
                ctx.count("addresses_checked")
                keep(connection, scan, place, ctx.clock.now())
            after = account_id
        if len(page) < _PAGE:
            break
    place.cursor, place.finished_at = {}, ctx.now
    with ctx.begin() as connection:
        keep(connection, scan, place, ctx.clock.now())


def _of_address(service: Service, email: str) -> list[str]:
    """The breaches `email` is in, by a search for the beginning of its hash: what it is stays here."""
    digest = hashlib.sha1(email.strip().lower().encode(), usedforsecurity=False).hexdigest().upper()
    answer = service.json(f"/breachedaccount/range/{digest[:6]}")
    if answer is not None and not isinstance(answer, list):
        raise ServiceFailed("its answer for a range is not a list")
    for entry in answer or []:
        if isinstance(entry, dict) and str(entry.get("hashSuffix", "")).upper() == digest[6:]:
            return [_named(name) for name in entry.get("websites") or []]
    return []


def _exposure(hashed: str, breach: str, *, account_id: str | None) -> Finding:
    return Finding(
        kind="exposure",
        value=f"{hashed}:{breach}",
        source=SOURCE,
        reference=f"https://haveibeenpwned.com/PwnedWebsites#{quote(breach)}",
        confidence=100,
        severity="high",
        description=f"an address in the breach {breach}",
        data={"address_hash": hashed, "breach": breach},
        account_id=account_id,
    )


def _named(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ServiceFailed("it names a breach nobody could write down")
    return name


def _moment(given: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(given) if isinstance(given, str) else None
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC) if moment else None
