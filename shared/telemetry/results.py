"""A round's findings into the database: raw rows, states, incidents and events, together or not at all."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared.context import Context
from shared.copying import copy, escaped
from shared.redaction import sqlstate
from shared.telemetry.probes import Finding, Verdict
from shared.telemetry.state import Hysteresis, State, after

TOPIC = "service-events"

_ACTIVE = text("""
    select id, kind, url, maintenance
      from monitored_service
     where is_active
     order by last_checked_at nulls first, id""")

# A service somebody is editing is left out, not waited for: it has its next round soon.
_LOCK = text("""
    select id, account_id, name, kind, url, state, state_since, streak, last_checked_at, tls_expires_at
      from monitored_service
     where id = any(:ids)
       and is_active
     order by id
       for no key update skip locked""")

_KEEP = text("""
    update monitored_service s
       set state = n.state, state_since = n.since, streak = n.streak, last_checked_at = n.checked_at,
           tls_expires_at = coalesce(n.expires, s.tls_expires_at)
      from unnest(cast(:ids as bigint[]), cast(:states as text[]), cast(:sinces as timestamptz[]),
                  cast(:streaks as integer[]), cast(:checked as timestamptz[]), cast(:expires as timestamptz[]))
           as n(id, state, since, streak, checked_at, expires)
     where s.id = n.id""")

# When each began to fail: its first failure after its last answer, of those the raw rows still show.
_BEGAN = text("""
    select service_id, min(last_tested) as began
      from (select service_id, last_tested, is_active,
                   max(last_tested) filter (where is_active) over (partition by service_id) as answered
              from endpoints
             where last_tested >= :since
               and last_tested <= :until
               and account_id = any(:accounts)
               and service_id = any(:ids)) e
     where not is_active
       and (answered is null or last_tested > answered)
     group by service_id""")
_BEGAN_WITHIN = timedelta(minutes=10)

_OPEN = text("""
    insert into incident (account_id, service_id, severity, cause, started_at)
    select * from unnest(cast(:accounts as text[]), cast(:ids as bigint[]), cast(:severities as text[]),
                         cast(:causes as text[]), cast(:began as timestamptz[]))
        on conflict (service_id) where resolved_at is null do nothing
    returning id, service_id""")

_CLOSE = text("""
    update incident
       set resolved_at = greatest(n.at, started_at)
      from unnest(cast(:ids as bigint[]), cast(:at as timestamptz[])) as n(service_id, at)
     where incident.service_id = n.service_id
       and incident.resolved_at is null
    returning incident.id, incident.service_id""")

_COLUMNS = (
    "last_tested, id, account_id, service_id, url, status_code, response_time, error, is_active, telemetry_context"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """One service's part of a round: the URL that was probed, and the finding; None under maintenance."""

    service_id: int
    url: str
    at: datetime
    finding: Finding | None


@dataclass(frozen=True, slots=True)
class _Decided:
    """A service's row as it is, what was seen of it, and what that makes of its state."""

    seen: Seen
    row: Any
    state: State

    @property
    def news(self) -> Finding | None:
        """The finding, where it says something and is newer than what the row knows."""
        finding = self.seen.finding
        known = self.row.last_checked_at
        if finding is None or finding.verdict is Verdict.UNKNOWN or (known is not None and finding.at <= known):
            return None
        return finding


def active(connection: Connection) -> Sequence[Any]:
    """The services to probe, longest unchecked first: id, kind, url, maintenance."""
    return connection.execute(_ACTIVE).all()


def keep(ctx: Context, seen: Sequence[Seen], rule: Hysteresis, certificate_days: Sequence[int]) -> int:
    """Keep these findings in one transaction, deciding on the rows as they are now; how many had no partition.

    A service that was switched off, changed its URL, is being edited or has a newer result is passed over.
    """
    with ctx.begin() as connection:
        found = {s.service_id: s for s in seen}
        rows = connection.execute(_LOCK, {"ids": list(found)}).all()
        decided = [_decide(found[row.id], row, rule) for row in rows if row.url == found[row.id].url]
        ctx.count("passed_over", len(seen) - len(decided))
        lost = _raw(ctx, connection, decided)
        _states(connection, decided)
        _changes(ctx, connection, [d for d in decided if d.state.state != d.row.state])
        _certificates(ctx, connection, decided, certificate_days)
    return lost


def _decide(seen: Seen, row: Any, rule: Hysteresis) -> _Decided:
    now = State(row.state, row.state_since, row.streak, row.last_checked_at)
    verdict = seen.finding.verdict if seen.finding else None
    return _Decided(seen, row, after(now, verdict, seen.at, rule))


# --- raw rows


def _raw(ctx: Context, connection: Connection, decided: Sequence[_Decided]) -> int:
    """Rows of what was learned into `endpoints`; how many found no partition (then none of these is kept)."""
    lines = [_line(d, d.news) for d in decided if d.news]
    try:
        with connection.begin_nested():
            copy(connection, "endpoints", _COLUMNS, lines)
    except DBAPIError as error:
        if sqlstate(error) != "23514":  # no partition of relation "endpoints" found for row
            raise
        return len(lines)
    ctx.count("stored", len(lines))
    return 0


def row_id(service_id: int, at: datetime) -> uuid.UUID:
    """The id of a service's result at a moment: the same result again is the same row. RFC 9562, version 8."""
    microseconds = int(at.timestamp() * 1_000_000)
    millis, rest = divmod(microseconds, 1000)
    return uuid.UUID(int=millis << 80 | 8 << 76 | rest << 64 | 2 << 62 | service_id)


def _line(d: _Decided, finding: Finding) -> str:
    context = {"kind": d.row.kind, "hops": finding.hops, "ms": {k: round(v, 2) for k, v in finding.phases.items()}}
    fields = (
        finding.at.isoformat(),
        str(row_id(d.row.id, finding.at)),
        escaped(d.row.account_id),
        str(d.row.id),
        escaped(d.row.url),
        "\\N" if finding.status is None else str(finding.status),
        "\\N" if finding.ms is None else f"{finding.ms:.3f}",
        escaped(finding.error),
        "t" if finding.verdict is Verdict.UP else "f",
        escaped(json.dumps(context, separators=(",", ":"))),
    )
    return "\t".join(fields) + "\n"


# --- states, incidents, events


def _states(connection: Connection, decided: Sequence[_Decided]) -> None:
    moved = [
        d for d in decided if d.state != State(d.row.state, d.row.state_since, d.row.streak, d.row.last_checked_at)
    ]
    if not moved:
        return
    connection.execute(
        _KEEP,
        {
            "ids": [d.row.id for d in moved],
            "states": [d.state.state for d in moved],
            "sinces": [d.state.since for d in moved],
            "streaks": [d.state.streak for d in moved],
            "checked": [d.state.checked_at for d in moved],
            "expires": [d.seen.finding.tls_expires_at if d.seen.finding else None for d in moved],
        },
    )


def _changes(ctx: Context, connection: Connection, changed: Sequence[_Decided]) -> None:
    opened = _open(ctx, connection, [d for d in changed if d.state.state == "down"])
    closed = _close(ctx, connection, [d for d in changed if d.state.state == "up"])
    for d in changed:
        finding = d.seen.finding
        said = {"from": d.row.state, "to": d.state.state, "cause": finding.error if finding else None}
        _say(ctx, connection, "service.state_changed", d, said)
        if d.row.id in opened:
            incident_id, severity = opened[d.row.id]
            _say(ctx, connection, "incident.opened", d, {"incident_id": incident_id, "severity": severity})
        if d.row.id in closed:
            _say(ctx, connection, "incident.closed", d, {"incident_id": closed[d.row.id]})


def _open(ctx: Context, connection: Connection, down: Sequence[_Decided]) -> Mapping[int, tuple[int, str]]:
    """Open an incident for each; the new ones' ids and severities by service."""
    if not down:
        return {}
    ids, accounts = [d.row.id for d in down], [d.row.account_id for d in down]
    until = max(d.seen.at for d in down)
    window = {"ids": ids, "accounts": sorted(set(accounts)), "since": until - _BEGAN_WITHIN, "until": until}
    began = {row.service_id: row.began for row in connection.execute(_BEGAN, window)}
    causes = [d.seen.finding.error or "no answer" if d.seen.finding else "no answer" for d in down]
    severities = {d.row.id: severity(cause) for d, cause in zip(down, causes, strict=True)}
    opened = connection.execute(
        _OPEN,
        {
            "accounts": accounts,
            "ids": ids,
            "severities": [severities[i] for i in ids],
            "causes": causes,
            "began": [began.get(d.row.id, d.seen.at) for d in down],
        },
    ).all()
    ctx.count("incidents_opened", len(opened))
    return {row.service_id: (row.id, severities[row.service_id]) for row in opened}


def _close(ctx: Context, connection: Connection, up: Sequence[_Decided]) -> Mapping[int, int]:
    if not up:
        return {}
    closed = connection.execute(_CLOSE, {"ids": [d.row.id for d in up], "at": [d.seen.at for d in up]}).all()
    ctx.count("incidents_closed", len(closed))
    return {row.service_id: row.id for row in closed}


def severity(cause: str) -> str:
    """How bad it is: nothing there at all, or something that answers wrongly or too late."""
    return "critical" if cause.startswith(("dns", "connect", "tls", "refused")) else "major"


def _certificates(ctx: Context, connection: Connection, decided: Sequence[_Decided], days: Sequence[int]) -> None:
    """Say once, at each of `days` before its end, that a certificate ends: when the last check was still before it."""
    for d in decided:
        expires = d.news.tls_expires_at if d.news else None
        if expires is None:
            continue
        passed = [n for n in days if expires - timedelta(days=n) <= d.seen.at]
        before = d.row.last_checked_at if d.row.tls_expires_at == expires else None
        told = [n for n in passed if before is not None and expires - timedelta(days=n) <= before]
        if len(passed) > len(told):
            ctx.count("certificates_expiring")
            _say(ctx, connection, "certificate.expiring", d, {"expires_at": expires.isoformat(), "days": min(passed)})


def _say(ctx: Context, connection: Connection, kind: str, d: _Decided, data: Mapping[str, Any]) -> None:
    ctx.publish(
        connection,
        topic=TOPIC,
        kind=kind,
        data={"service_id": d.row.id, "name": d.row.name, **data},
        account_id=d.row.account_id,
        ordering_key=f"service-{d.row.id}",
    )
