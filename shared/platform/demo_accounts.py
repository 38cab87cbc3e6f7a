"""The demo's accounts, their pages, services and incidents, and the one legal hold."""

from datetime import timedelta

from sqlalchemy import Connection

from shared import holds
from shared.platform.accounts import incident, monitored_service, status_page, user_profile
from shared.platform.demo_world import World
from shared.platform.load import copy_rows

_NIGHTLY = [{"start": "02:00", "end": "02:30", "zone": "Europe/Berlin", "repeat": "daily"}]


def load(connection: Connection, world: World) -> dict[str, int]:
    """Accounts first: everything else belongs to them."""
    holds.add(
        connection,
        reason="Litigation: keep everything of this account",
        by="demo",
        now=world.now - timedelta(days=90),
        account=world.held.account_id,
    )
    return {
        "user_profile": _profiles(connection, world),
        "status_page": _pages(connection, world),
        "monitored_service": _services(connection, world),
        "incident": _incidents(connection, world),
    }


def _profiles(connection: Connection, world: World) -> int:
    columns = (
        "account_id firebase_uid email display_name tier stripe_customer_id stripe_subscription_id"
        " created_at updated_at"
    )
    return copy_rows(
        connection,
        user_profile,
        columns,
        (
            (
                a.account_id,
                f"fb_{a.account_id}",
                f"owner@{a.domain}",
                a.name,
                a.tier,
                a.customer,
                a.subscription,
                a.since,
                a.since + timedelta(days=30),
            )
            for a in world.accounts
        ),
    )


def _pages(connection: Connection, world: World) -> int:
    columns = "id account_id slug title url is_public created_at updated_at"
    return copy_rows(
        connection,
        status_page,
        columns,
        (
            (
                number,
                a.account_id,
                a.domain.split(".")[0],
                f"Status of {a.name}",
                f"https://{a.domain}/",
                number % 5 != 0,
                a.since,
                a.since,
            )
            for number, a in enumerate(world.accounts, 1)
        ),
    )


def _services(connection: Connection, world: World) -> int:
    columns = (
        "id account_id status_page_id name kind url is_active maintenance state state_since streak"
        " last_checked_at tls_expires_at created_at"
    )
    rows = []
    for s in world.services:
        down = s.outage_at(world.now)
        rows.append(
            (
                s.service_id,
                s.account.account_id,
                s.page_id,
                s.name,
                s.kind,
                s.url,
                s.service_id % 17 != 0,
                _NIGHTLY if s.service_id % 9 == 0 else [],
                "down" if down else "up",
                down.start if down else s.account.since,
                3,
                world.now - timedelta(seconds=30),
                world.now + timedelta(days=s.service_id % 80) if s.kind == "tls" else None,
                s.account.since,
            )
        )
    return copy_rows(connection, monitored_service, columns, rows)


def _incidents(connection: Connection, world: World) -> int:
    columns = "account_id service_id severity cause started_at resolved_at"
    rows = [
        (s.account.account_id, s.service_id, o.severity, o.cause, o.start, o.end)
        for s in world.services
        for o in s.outages
    ]
    return copy_rows(connection, incident, columns, sorted(rows, key=lambda row: row[4]))
