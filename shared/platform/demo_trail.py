"""The demo's trails: what users and operators did, consents, and events on their way out."""

from datetime import timedelta

from sqlalchemy import Connection, insert

from shared.clock import rfc3339
from shared.platform.accounts import audit_log, cookie_consent
from shared.platform.demo_world import World
from shared.platform.load import copy_rows
from shared.platform.telemetry import outbox_event
from shared.schema import operator_audit

_ACTIONS = (
    ("login", "session"),
    ("service.create", "monitored_service"),
    ("service.update", "monitored_service"),
    ("page.publish", "status_page"),
    ("key.rotate", "integration_credential"),
)
_TOPICS = ("incident-events", "billing-events", "telemetry-events")


def load(connection: Connection, world: World) -> dict[str, int]:
    """Sixty days of audit and consent, 45 of published events, dead and pending ones, 30 months of operators."""
    return {
        "audit_log": _audit(connection, world),
        "cookie_consent": _consents(connection, world),
        "outbox_event": _events(connection, world),
        "groundskeeper.operator_audit": _operators(connection, world),
    }


def _audit(connection: Connection, world: World) -> int:
    rng, rows = world.rng, []
    for at in sorted(world.past(60) for _ in range(6000)):
        account, (action, kind) = rng.choice(world.accounts), rng.choice(_ACTIONS)
        rows.append(
            (
                account.account_id,
                f"user:{account.account_id}",
                action,
                kind,
                str(rng.randint(1, 90)),
                f"192.0.2.{rng.randint(1, 254)}",
                {"via": rng.choice(("web", "api"))},
                at,
            )
        )
    columns = "account_id actor action object_type object_id ip_address details created_at"
    return copy_rows(connection, audit_log, columns, rows)


def _consents(connection: Connection, world: World) -> int:
    rng = world.rng
    rows = [
        (
            f"v_{world.uuid().hex}",
            {"analytics": rng.random() < 0.6, "marketing": rng.random() < 0.2},
            "2025-11" if rng.random() < 0.9 else "2024-02",
            f"198.51.100.{rng.randint(1, 254)}",
            at,
        )
        for at in sorted(world.past(60) for _ in range(3000))
    ]
    return copy_rows(connection, cookie_consent, "visitor_id choices policy_version ip_address created_at", rows)


def _events(connection: Connection, world: World) -> int:
    rng = world.rng
    rows: list[tuple[object, ...]] = []
    ages = (
        *((rng.uniform(0.01, 45), "published") for _ in range(2000)),
        *((rng.uniform(0.5, 14), "dead") for _ in range(40)),
        *((rng.uniform(0, 0.002), "pending") for _ in range(100)),
    )
    for days, state in sorted(ages, reverse=True):
        event_id, account = world.uuid(), rng.choice(world.accounts).account_id
        at = world.now - timedelta(days=days)
        payload = {
            "id": str(event_id),
            "type": rng.choice(("incident.opened", "incident.closed", "tier.changed")),
            "occurred_at": rfc3339(at),
            "account_id": account,
            "data": {"service": rng.randint(1, 60)},
        }
        dead, done = state == "dead", state == "published"
        rows.append(
            (
                event_id,
                rng.choice(_TOPICS),
                account,
                payload,
                5 if dead else int(done),
                "the broker refused the message" if dead else None,
                at,
                at + timedelta(seconds=3) if done else None,
            )
        )
    columns = "id topic ordering_key payload attempts last_error created_at published_at"
    return copy_rows(connection, outbox_event, columns, rows)


def _operators(connection: Connection, world: World) -> int:
    rng = world.rng
    rows: list[dict[str, object]] = [
        {
            "at": at,
            "actor": rng.choice(("alma", "bert")),
            "action": rng.choice(("run", "approve", "pause", "resume")),
            "subject": rng.choice(("db_cleanup", "vacuum_analyze", "rotate_secrets")),
            "why": "demo",
            "details": {},
        }
        for at in sorted(world.past(900) for _ in range(120))
    ]
    connection.execute(insert(operator_audit), rows)
    return len(rows)
