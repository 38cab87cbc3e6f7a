"""The demo's threat intelligence, with the duplicates an older importer left, and the reports people sent."""

from datetime import timedelta

from sqlalchemy import Connection

from shared.platform.demo_world import World
from shared.platform.load import copy_rows
from shared.platform.security import bug_report, threat_intelligence, threat_report

_FEEDS = ("otx", "abuseipdb", "threatfox", "urlhaus", "kev")
_LEGACY = 300


def load(connection: Connection, world: World) -> dict[str, int]:
    """1,500 indicators merged by their key, 300 older ones of which each is there once to three times, reports."""
    return {
        "threat_intelligence": _indicators(connection, world),
        "bug_report": _bugs(connection, world),
        "threat_report": _threats(connection, world),
    }


def _indicators(connection: Connection, world: World) -> int:
    rng = world.rng
    rows: list[tuple[object, ...]] = []
    for number in range(1500):
        kind, indicator = _indicator(number)
        seen = world.past(120)
        rows.append(
            (
                f"{kind}:{indicator}",
                kind,
                indicator,
                rng.randint(20, 100),
                [{"source": f, "seen_at": seen.isoformat()} for f in rng.sample(_FEEDS, rng.randint(1, 3))],
                seen - timedelta(days=rng.randint(0, 200)),
                seen,
                seen + timedelta(days=90),
                seen,
            )
        )
    for number in range(_LEGACY):
        kind, indicator = _indicator(10_000 + number)
        for _ in range(1 + number % 3):
            seen = world.past(900)
            rows.append((None, kind, indicator, rng.choice((None, 40, 70)), [], seen, seen, None, seen))
    columns = "canonical_key indicator_type indicator confidence sources first_seen last_seen expires_at created_at"
    return copy_rows(connection, threat_intelligence, columns, rows)


def _indicator(number: int) -> tuple[str, str]:
    if number % 3 == 0:
        return "ipv6", f"2001:db8::{number:x}"
    if number % 3 == 1:
        return "domain", f"malware-{number}.example.net"
    return "sha256", f"{number:064x}"


def _bugs(connection: Connection, world: World) -> int:
    rng, rows = world.rng, []
    for number in range(40):
        account = rng.choice(world.accounts)
        rows.append(
            (
                account.account_id,
                f"owner@{account.domain}",
                f"192.0.2.{number + 1}",
                "Mozilla/5.0",
                f"Chart {number} is empty",
                "It stays empty when I reload.",
                f"https://{account.domain}/charts/{number}",
                rng.choice(("open", "fixed", "rejected")),
                world.past(700),
            )
        )
    columns = "account_id reporter_email ip_address user_agent title body url status created_at"
    return copy_rows(connection, bug_report, columns, rows)


def _threats(connection: Connection, world: World) -> int:
    rng, rows = world.rng, []
    for number in range(30):
        account, (kind, indicator) = rng.choice(world.accounts), _indicator(number * 7)
        rows.append(
            (
                account.account_id,
                f"owner@{account.domain}",
                f"198.51.100.{number + 1}",
                kind,
                indicator,
                "It tried to log in all night.",
                rng.choice(("open", "confirmed", "rejected")),
                world.past(700),
            )
        )
    columns = "account_id reporter_email ip_address indicator_type indicator description status created_at"
    return copy_rows(connection, threat_report, columns, rows)
