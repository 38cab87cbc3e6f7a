"""Requests into `endpoints`, issues into `bug_report`: normalised, anonymised, and told what is known of who asked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared import erasure
from shared.context import Context
from shared.copying import copy, escaped
from shared.ingest import fields, threats
from shared.ingest.agents import agent_of
from shared.ingest.events import Event, Poison, poisoned
from shared.ingest.fields import BadField
from shared.ingest.places import Places
from shared.redaction import redact, sqlstate

REQUESTS = frozenset(("request.completed", "page.viewed", "error.raised"))
ISSUES = frozenset(("issue.reported",))

_ACCOUNTS = text("select account_id from user_profile where account_id = any(cast(:ids as text[]))")

_COLUMNS = (
    "last_tested, id, account_id, url, status_code, response_time, error, ip_address, location, asn, isp, device_type,"
    " os_name, browser_name, is_bot, is_threat, telemetry_context"
)
_REPORTS = "account_id, reporter_email, ip_address, user_agent, title, body, url, created_at"


@dataclass(frozen=True)
class Range:
    """When an event may have happened: at most `oldest_days` ago, and `future_s` ahead of our clock."""

    oldest_days: int
    future_s: int


@dataclass(frozen=True, slots=True)
class _Request:
    """A request ready to be written, but for the threat it may be."""

    event: Event
    url: str
    status: int | None
    response_ms: float | None
    address: fields.Address | None
    referrer: str | None


class Telemetry:
    """Writes a batch's events. What is of no known type is somebody else's and left alone."""

    def __init__(self, ctx: Context, places: Places, range_: Range, *, least_confidence: int) -> None:
        self._ctx, self._places, self._range = ctx, places, range_
        self._least_confidence = least_confidence

    def __call__(self, connection: Connection, events: Sequence[Event]) -> Sequence[Poison]:
        """Write them in the caller's transaction; those that can never be written."""
        asked = sorted({e.account_id for e in events if e.account_id is not None})
        known = set(connection.scalars(_ACCOUNTS, {"ids": asked})) if asked else set()
        erased = erasure.seen(self._ctx, connection, asked) if asked else set()
        poison: list[Poison] = []
        requests: list[_Request] = []
        issues: list[tuple[Event, str]] = []
        for event in events:
            if event.kind not in REQUESTS | ISSUES:
                self._ctx.count("ignored")
            elif event.account_id in erased:  # nothing of it is kept, not even as a dead letter
                self._ctx.count("erased")
            elif flaw := self._flaw(event, known):
                poison.append(poisoned(event, flaw))
            else:
                try:
                    if event.kind in ISSUES:
                        issues.append((event, _issue(event)))
                    else:
                        requests.append(_request(event))
                except BadField as bad:
                    poison.append(poisoned(event, str(bad)))
        self._ctx.count("reports", copy(connection, "bug_report", _REPORTS, [line for _, line in issues]))
        return [*poison, *self._write(connection, requests)]

    def _flaw(self, event: Event, known: set[Any]) -> str | None:
        now = self._ctx.clock.now()
        if event.kind in REQUESTS and event.account_id is None:
            return "account_id is missing"
        if event.account_id is not None and event.account_id not in known:
            return "there is no such account"
        if event.occurred_at > now + timedelta(seconds=self._range.future_s):
            return "it happened in the future"
        if event.kind in REQUESTS and event.occurred_at < now - timedelta(days=self._range.oldest_days):
            return "it happened longer ago than raw telemetry is kept"
        return None

    def _write(self, connection: Connection, requests: Sequence[_Request]) -> list[Poison]:
        asked = {r.event.id: list(threats.indicators(r.address, r.referrer)) for r in requests}
        now = self._ctx.clock.now()
        every = (one for many in asked.values() for one in many)
        listed = threats.listed(connection, every, least_confidence=self._least_confidence, now=now)
        days: dict[date, list[tuple[_Request, str]]] = {}
        for r in requests:
            threat = not listed.isdisjoint(asked[r.event.id])
            self._ctx.count("threats", int(threat))
            days.setdefault(r.event.occurred_at.astimezone(UTC).date(), []).append((r, self._line(r, threat=threat)))
        whole = [line for day in sorted(days) for _, line in days[day]]
        if _copied(connection, whole):
            self._ctx.count("requests", len(whole))
            return []
        poison: list[Poison] = []  # some day has no partition: the other days' rows are kept all the same
        for day in sorted(days):
            if _copied(connection, [line for _, line in days[day]]):
                self._ctx.count("requests", len(days[day]))
            else:
                poison += [poisoned(r.event, "its day has no partition of endpoints") for r, _ in days[day]]
        return poison

    def _line(self, r: _Request, *, threat: bool) -> str:
        data = r.event.data
        place, agent = self._places.of(r.address), agent_of(fields.text(data.get("user_agent"), 1000))
        error = fields.text(data.get("error"), 500)
        values: tuple[str | None, ...] = (
            r.event.occurred_at.isoformat(),
            str(r.event.id),
            r.event.account_id,
            r.url,
            _shown(r.status),
            _shown(r.response_ms),
            redact(error) if error else None,
            fields.anonymous(r.address),
            fields.text(place.location, 200),
            _shown(place.asn),
            fields.text(place.isp, 200),
            agent.device,
            agent.system,
            agent.browser,
            "t" if agent.is_bot else "f",
            "t" if threat else "f",
            json.dumps(_kept(r)),
        )
        return "\t".join(escaped(v) for v in values) + "\n"


def _copied(connection: Connection, lines: Sequence[str]) -> bool:
    """Whether the lines are in `endpoints`; False where one of them has no partition, and then none is."""
    try:
        with connection.begin_nested():
            copy(connection, "endpoints", _COLUMNS, lines)
    except DBAPIError as error:
        if sqlstate(error) != "23514":  # no partition of relation "endpoints" found for row
            raise
        return False
    return True


def _request(event: Event) -> _Request:
    data = event.data
    referrer = data.get("referrer")
    return _Request(
        event,
        fields.url(data.get("url")),
        fields.status(data.get("status_code")),
        fields.milliseconds(data.get("response_time_ms")),
        fields.address(data.get("ip")),
        fields.host(referrer) if isinstance(referrer, str) else None,
    )


def _issue(event: Event) -> str:
    data = event.data
    title, body = fields.text(data.get("title"), 200), fields.text(data.get("body"), 10_000)
    if title is None:
        raise BadField("data.title is not a text")
    values = (
        event.account_id,
        fields.text(data.get("reporter_email"), 320),
        fields.anonymous(fields.address(data.get("ip"))),
        fields.text(data.get("user_agent"), 500),
        title,
        body or "",
        fields.url(data["url"]) if data.get("url") is not None else None,
        event.occurred_at.isoformat(),
    )
    return "\t".join(escaped(v) for v in values) + "\n"


def _kept(r: _Request) -> Mapping[str, str]:
    """What of an event has no column and may be kept: a few short words, none of them of a person."""
    words = {"type": r.event.kind, "referrer": r.referrer}
    for name in ("method", "release", "environment", "locale"):
        words[name] = fields.text(r.event.data.get(name), 64)
    return {name: redact(word) for name, word in words.items() if word}


def _shown(value: float | None) -> str | None:
    return None if value is None else repr(value)
