"""The demo's raw telemetry of 45 days, older rollups by day, and page scans."""

import math
import random
from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import Connection

from shared.platform.demo_world import TELEMETRY_DAYS, Service, World
from shared.platform.load import copy_lines, copy_rows
from shared.platform.telemetry import aggregated_analytics, endpoints, lighthouse_scan

_PINGS_A_DAY = 24  # a service: every hour

_COLUMNS = (
    "last_tested id account_id service_id url status_code response_time error ip_address location asn isp"
    " device_type os_name browser_name is_bot is_threat is_active telemetry_context"
)

# Where visitors come from: documentation networks only.
_NETWORKS = (
    ("192.0.2.0/24", "Berlin, DE", 64496, "Example Telekom"),
    ("198.51.100.0/24", "Lyon, FR", 64497, "Exemple Réseau"),
    ("203.0.113.0/24", "Osaka, JP", 64498, "Rei Net"),
    ("2001:db8:10::/64", "Austin, US", 64499, "Sample Cable"),
    ("2001:db8:20::/64", "São Paulo, BR", 64500, "Amostra"),
)
_DEVICES = (
    ("desktop", "Windows", "Firefox"),
    ("desktop", "macOS", "Safari"),
    ("mobile", "Android", "Chrome"),
    ("mobile", "iOS", "Safari"),
    ("tablet", "Android", "Chrome"),
)
_TURNED_AWAY = (401, 404, 403, 403, 403, 429, 429)
_PATHS = ("/", "/login", "/pricing", "/api/v1/items", "/api/v1/items/1", "/docs", "/blog")
_HOSTILE_EVERY = 16  # of a day's requests, where it has attacks
_PROBES = ("/.env", "/wp-login.php", "/admin.php", "/.git/config", "/xmlrpc.php")


def load(connection: Connection, world: World) -> dict[str, int]:
    """Raw rows of the last 45 days; rollups of the 135 days before; scans of 30 days."""
    return {
        "endpoints": copy_lines(connection, endpoints, _COLUMNS, _raw(world)),
        "aggregated_analytics": _rollups(connection, world),
        "lighthouse_scan": _scans(connection, world),
    }


# --- raw rows: made as COPY's lines at once, since they are most of the demo -------------------------------------


def _raw(world: World) -> Iterator[str]:
    start = world.now - timedelta(days=TELEMETRY_DAYS)
    for day in range(TELEMETRY_DAYS):
        begin = start + timedelta(days=day)
        yield from _pings(world, begin)
        yield from _requests(world, begin, world.rows_a_day - _PINGS_A_DAY * len(world.services))


def _pings(world: World, begin: datetime) -> Iterator[str]:
    rng, step = world.rng, timedelta(days=1) / _PINGS_A_DAY
    for service in world.services:
        outages = [o for o in service.outages if o.start < begin + timedelta(days=1) and (o.end or world.now) > begin]
        head = f"{service.account.account_id}\t{service.service_id}\t{service.url}"
        for slot in range(_PINGS_A_DAY):
            at = begin + step * (slot + rng.random())
            down = next((o for o in outages if o.start <= at < (o.end or world.now)), None) if outages else None
            ms = (
                service.base_ms
                * service.load(at)
                * (1 + 0.3 * math.sin(at.hour / 24 * math.tau))
                * rng.lognormvariate(0, 0.2)
            )
            result = f"200\t{ms:.1f}\t\\N"
            if down is not None and down.cause == "slow answers":
                result = f"200\t{ms * 20:.1f}\t\\N"
            elif down is not None:
                result = f"503\t{ms:.1f}\t\\N" if down.cause == "status 503" else f"\\N\t\\N\t{down.cause}"
            active = "f" if down is not None and down.cause != "slow answers" else "t"
            yield (
                f"{at.isoformat()}\t{world.uuid()}\t{head}\t{result}"
                f"\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\tf\tf\t{active}\t{{}}\n"
            )


def _requests(world: World, begin: datetime, count: int) -> Iterator[str]:
    rng = world.rng
    attacks = [a for a in world.attacks if begin <= a < begin + timedelta(days=1)]
    for number in range(count):
        hostile = bool(attacks) and number % _HOSTILE_EVERY == 0
        at = begin + timedelta(seconds=86400 * _daytime(rng))
        if hostile:
            at = rng.choice(attacks) + timedelta(seconds=rng.uniform(0, 3600))
            if at >= world.now:
                continue
        yield _request(rng, world, at, hostile=hostile)


def _request(rng: random.Random, world: World, at: datetime, *, hostile: bool) -> str:
    # some accounts have more visitors than others, and all have some: in most hours there are twenty of them
    account = world.accounts[int(len(world.accounts) * rng.random() ** 1.3)]
    network = rng.choice(_NETWORKS[2:4] if hostile else _NETWORKS)
    device = ("server", "Linux", "curl") if hostile else rng.choice(_DEVICES)
    path = rng.choice(_PROBES if hostile else _PATHS)
    bot = "t" if rng.random() < (0.8 if hostile else 0.03) else "f"
    status = 500 if rng.random() < 0.004 else 404 if bot == "t" and rng.random() < 0.15 else 200
    if hostile:
        status = rng.choice(_TURNED_AWAY)
    known = "t" if hostile and rng.random() < 0.6 else "f"  # to an indicator
    return (
        f"{at.isoformat()}\t{world.uuid()}\t{account.account_id}\t\\N\thttps://{account.domain}{path}"
        f"\t{status}\t{rng.lognormvariate(4.2, 0.5):.1f}\t\\N\t{network[0]}\t{network[1]}\t{network[2]}\t{network[3]}"
        f"\t{device[0]}\t{device[1]}\t{device[2]}\t{bot}\t{known}\tt"
        f'\t{{"method": "GET", "path": "{path}"}}\n'
    )


def _daytime(rng: random.Random) -> float:
    """A share of the day, denser in working hours."""
    return rng.random() if rng.random() < 0.4 else min(max(rng.gauss(0.58, 0.14), 0.0), 0.9999)


# --- what was made of raw rows that are gone ---------------------------------------------------------------------


def _rollups(connection: Connection, world: World) -> int:
    columns = (
        "account_id service_id granularity bucket_start requests errors average_ms p50_ms p95_ms p99_ms"
        " error_rate uptime updated_at"
    )
    today = world.now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today - timedelta(days=n) for n in range(180, TELEMETRY_DAYS, -1)]
    rows = (_rollup(world.rng, service, day) for day in days for service in world.services)
    return copy_rows(connection, aggregated_analytics, columns, rows)


def _rollup(rng: random.Random, service: Service, day: datetime) -> tuple[object, ...]:
    end = day + timedelta(days=1)
    down_s = sum(
        max((min(o.end, end) - max(o.start, day)).total_seconds(), 0)
        for o in service.outages
        if o.end is not None and o.cause != "slow answers"
    )
    errors = round(2880 * down_s / 86400)
    typical = service.base_ms * service.load(day) * rng.lognormvariate(0, 0.05)
    return (
        service.account.account_id,
        service.service_id,
        "day",
        day,
        2880,
        errors,
        round(typical * 1.05, 1),
        round(typical, 1),
        round(typical * 1.4, 1),
        round(typical * 1.7, 1),
        errors / 2880,
        1 - down_s / 86400,
        end,
    )


def _scans(connection: Connection, world: World) -> int:
    columns = (
        "account_id status_page_id url performance accessibility best_practices seo lcp_ms tbt_ms cls error scanned_at"
    )
    rng, rows = world.rng, []
    slot = world.now.replace(minute=0, second=0, microsecond=0)
    for number in range(30 * 4):
        for page, account in enumerate(world.accounts[:10], 1):
            at = slot - timedelta(hours=6 * (30 * 4 - number))
            scores = (rng.randint(60, 100), rng.randint(80, 100), rng.randint(70, 100), rng.randint(80, 100))
            vitals = (
                round(rng.lognormvariate(7.5, 0.3), 1),
                round(rng.lognormvariate(5, 0.5), 1),
                rng.randint(0, 25) / 100,
            )
            seen = (*scores, *vitals, None) if rng.random() > 0.01 else (*[None] * 7, "the page did not load")
            rows.append((account.account_id, page, f"https://{account.domain}/", *seen, at))
    return copy_rows(connection, lighthouse_scan, columns, rows)
