"""The demo's hostile rows: what has broken purges, parsers and dashboards somewhere, declared one by one.

Each row bears `hostile:<name>` in its table's column of LABELS, so tests find and count it. `goes` says how many of
the rows a run of the seeds' policies at the demo's own `now` deletes (db_cleanup, purge_signals); None where a
parameter of the task decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.platform.demo_world import World

# Where the label is, by table.
LABELS = {
    "audit_log": "object_id",
    "bug_report": "title",
    "cookie_consent": "visitor_id",
    "endpoints": "isp",
    "mockup": "title",
    "outbox_event": "ordering_key",
    "signal": "source",
    "threat_intelligence": "description",
    "user_profile": "display_name",
}

Rows = Callable[[World], Sequence[dict[str, Any]]]


@dataclass(frozen=True)
class Hostile:
    """`count` rows in `table`, of which `goes` are deleted, and why they are there."""

    name: str
    table: str
    count: int
    goes: int | None
    why: str
    rows: Rows

    @property
    def label(self) -> str:
        """What the rows bear."""
        return f"hostile:{self.name}"


_DAY, _TICK = timedelta(days=1), timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAP = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)
_NASTY = "Zoë \U0001f9d1‍\U0001f680 مرحبا e\u0301 ' \" \\ \\N \t \r\n ${x} %s :name {} \u202e <script> '; drop table--"


def _at(column: str, *moments: Callable[[World], datetime | str], **values: Any) -> Rows:
    """A row a moment."""
    return lambda world: [{column: moment(world), **values} for moment in moments]


def _ago(span: timedelta) -> Callable[[World], datetime]:
    return lambda world: world.now - span


def _midnight(world: World) -> datetime:
    return (world.now - 32 * _DAY).replace(hour=0, minute=0, second=0, microsecond=0)


def _threats(*rows: dict[str, Any]) -> Rows:
    return lambda world: [{"indicator_type": "domain", "created_at": world.now - 400 * _DAY, **row} for row in rows]


HOSTILE = (
    Hostile("endpoint_at_cutoff", "endpoints", 1, 0, "exactly 30 days old: kept", _at("last_tested", _ago(30 * _DAY))),
    Hostile(
        "endpoint_just_before_cutoff",
        "endpoints",
        1,
        1,
        "a microsecond older than 30 days",
        _at("last_tested", _ago(30 * _DAY + _TICK)),
    ),
    Hostile("endpoint_in_future", "endpoints", 1, 0, "a clock ran ahead", _at("last_tested", _ago(-2 * _DAY))),
    Hostile(
        "endpoint_at_midnight",
        "endpoints",
        3,
        3,
        "first and last instant of a partition, and the first of the next",
        _at(
            "last_tested",
            _midnight,
            lambda world: _midnight(world) + _DAY - _TICK,
            lambda world: _midnight(world) + _DAY,
        ),
    ),
    Hostile(
        "endpoint_unicode",
        "endpoints",
        1,
        1,
        "what must survive an archive byte by byte",
        _at("last_tested", _ago(40 * _DAY), location=_NASTY, telemetry_context={"note": _NASTY, "": None}),
    ),
    Hostile(
        "endpoint_extremes",
        "endpoints",
        1,
        1,
        "numbers at their ends",
        _at("last_tested", _ago(41 * _DAY), status_code=-32768, response_time=float("inf"), asn=2**63 - 1),
    ),
    Hostile(
        "endpoint_of_held_account",
        "endpoints",
        2,
        0,
        "expired, but its account is under a legal hold",
        lambda world: [
            {"last_tested": world.now - days * _DAY, "account_id": world.held.account_id} for days in (31, 44)
        ],
    ),
    Hostile("audit_at_cutoff", "audit_log", 1, 0, "exactly 30 days old: kept", _at("created_at", _ago(30 * _DAY))),
    Hostile(
        "audit_just_before_cutoff",
        "audit_log",
        1,
        1,
        "a microsecond older than 30 days",
        _at("created_at", _ago(30 * _DAY + _TICK)),
    ),
    Hostile("audit_in_future", "audit_log", 1, 0, "a clock ran ahead", _at("created_at", _ago(-365 * _DAY))),
    Hostile("audit_at_epoch", "audit_log", 1, 1, "a zero became a time", _at("created_at", lambda _: _EPOCH)),
    Hostile(
        "audit_for_ever",
        "audit_log",
        1,
        0,
        "the year 9999 stood for never",
        _at("created_at", lambda _: datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
    ),
    Hostile("audit_infinity", "audit_log", 1, 0, "a time no datetime holds", _at("created_at", lambda _: "infinity")),
    Hostile("audit_leap_day", "audit_log", 1, 1, "the last instant of 29 February", _at("created_at", lambda _: _LEAP)),
    Hostile(
        "audit_clock_change",
        "audit_log",
        4,
        4,
        "Berlin's clocks: the hour that is not (31 March 2024) and the one that is twice (27 October)",
        _at(
            "created_at",
            *(
                lambda _, moment=moment: datetime.fromisoformat(moment)
                for moment in (
                    "2024-03-31T00:59:59.999999+00:00",
                    "2024-03-31T01:00:00+00:00",
                    "2024-10-27T00:30:00+00:00",
                    "2024-10-27T01:30:00+00:00",
                )
            ),
        ),
    ),
    Hostile(
        "audit_unicode",
        "audit_log",
        1,
        1,
        "what must survive an archive byte by byte",
        _at("created_at", _ago(40 * _DAY), actor=_NASTY, details={"note": _NASTY}),
    ),
    Hostile(
        "audit_large",
        "audit_log",
        1,
        1,
        "a row of 256 KiB among small ones",
        _at("created_at", _ago(45 * _DAY), details={"diff": "x" * 2**18}),
    ),
    Hostile(
        "audit_without_account",
        "audit_log",
        1,
        1,
        "nobody's row: no account's hold covers it",
        _at("created_at", _ago(31 * _DAY), account_id=None),
    ),
    Hostile(
        "audit_of_held_account",
        "audit_log",
        3,
        0,
        "expired, but its account is under a legal hold",
        lambda world: [
            {"created_at": world.now - days * _DAY, "account_id": world.held.account_id} for days in (31, 60, 800)
        ],
    ),
    Hostile("consent_at_cutoff", "cookie_consent", 1, 0, "exactly 30 days old", _at("created_at", _ago(30 * _DAY))),
    Hostile(
        "consent_just_before_cutoff",
        "cookie_consent",
        1,
        1,
        "a microsecond older than 30 days",
        _at("created_at", _ago(30 * _DAY + _TICK)),
    ),
    Hostile(
        "event_published_at_cutoff",
        "outbox_event",
        1,
        0,
        "published exactly 30 days ago: kept",
        _at("published_at", _ago(30 * _DAY), attempts=1),
    ),
    Hostile(
        "event_published_just_before_cutoff",
        "outbox_event",
        1,
        1,
        "published a microsecond more than 30 days ago",
        _at("published_at", _ago(30 * _DAY + _TICK), attempts=1),
    ),
    Hostile(
        "event_dead_at_cutoff",
        "outbox_event",
        1,
        0,
        "dead for exactly 7 days: kept",
        _at("created_at", _ago(7 * _DAY), attempts=5),
    ),
    Hostile(
        "event_dead_just_before_cutoff",
        "outbox_event",
        1,
        1,
        "dead for a microsecond more than 7 days",
        _at("created_at", _ago(7 * _DAY + _TICK), attempts=5),
    ),
    Hostile(
        "event_published_but_dead",
        "outbox_event",
        2,
        1,
        "published at the sixth attempt: its age is that of published ones, 10 and 31 days",
        _at("published_at", _ago(10 * _DAY), _ago(31 * _DAY), attempts=6),
    ),
    Hostile(
        "event_given_up_by_nobody",
        "outbox_event",
        1,
        0,
        "400 days old and four attempts: undelivered and not dead, so never deleted",
        _at("created_at", _ago(400 * _DAY), attempts=4, last_error="timeout"),
    ),
    Hostile(
        "event_published_before_created",
        "outbox_event",
        1,
        1,
        "two clocks: published 31 days ago, created after that",
        lambda world: [{"published_at": world.now - 31 * _DAY, "created_at": world.now - 30.5 * _DAY, "attempts": 1}],
    ),
    Hostile(
        "threat_100_copies",
        "threat_intelligence",
        100,
        99,
        "an importer ran a hundred times: the same key, all equal",
        _threats(*({"indicator": "copied.example.net", "confidence": 50} for _ in range(100))),
    ),
    Hostile(
        "threat_unknown_confidence",
        "threat_intelligence",
        2,
        1,
        "of two copies the one whose confidence is known stays",
        _threats({"indicator": "unknown.example.net"}, {"indicator": "unknown.example.net", "confidence": 1}),
    ),
    Hostile(
        "threat_canonical_copy",
        "threat_intelligence",
        2,
        1,
        "a merged row and a legacy copy of it: the merged one stays, though less confident",
        _threats(
            {"indicator": "merged.example.net", "confidence": 90},
            {"indicator": "merged.example.net", "confidence": 10, "canonical_key": "domain:merged.example.net"},
        ),
    ),
    Hostile(
        "threat_other_case",
        "threat_intelligence",
        2,
        0,
        "two keys that differ in case only: not copies, until somebody canonicalises them",
        _threats({"indicator": "Case.example.net"}, {"indicator": "case.example.net"}),
    ),
    Hostile("signal_at_cutoff", "signal", 1, 0, "exactly 30 days old: kept", _at("created_at", _ago(30 * _DAY))),
    Hostile(
        "signal_just_before_cutoff",
        "signal",
        1,
        1,
        "a microsecond older than 30 days",
        _at("created_at", _ago(30 * _DAY + _TICK), idea_id=1),
    ),
    Hostile(
        "mockup_leap_day",
        "mockup",
        1,
        None,
        "drawn on 29 February: twelve months later is the 28th",
        _at("created_at", lambda _: _LEAP, image="leap/front.png"),
    ),
    Hostile(
        "mockup_without_image",
        "mockup",
        1,
        None,
        "its image is missing: the row stays unless told otherwise",
        _at("created_at", _ago(500 * _DAY), image="lost/front.png"),
    ),
    Hostile(
        "account_of_shared_address",
        "user_profile",
        2,
        0,
        "two accounts of one e-mail address: an address is no key",
        lambda world: [
            {"account_id": f"acc_shared_{n}", "firebase_uid": f"fb_shared_{n}", "email": "both@example.com"}
            for n in (1, 2)
        ],
    ),
    Hostile(
        "report_of_nobody",
        "bug_report",
        1,
        0,
        "eleven years old and nobody's: kept for ever",
        _at("created_at", _ago(11 * 365 * _DAY), body=_NASTY),
    ),
)
