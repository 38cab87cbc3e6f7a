"""The hostile rows, put among the demo's."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Table, insert

from shared.platform.demo_world import World
from shared.platform.hostile import HOSTILE, LABELS, Hostile
from shared.platform.tables import METADATA


def load(connection: Connection, world: World) -> dict[str, int]:
    """Insert them all; how many in each table."""
    counts: dict[str, int] = {}
    for hostile in HOSTILE:
        table = METADATA.tables[hostile.table]
        rows = [_whole(world, table, hostile, row) for row in hostile.rows(world)]
        for row in rows:
            connection.execute(insert(table), row)
        counts[hostile.table] = counts.get(hostile.table, 0) + len(rows)
    return counts


def _whole(world: World, table: Table, hostile: Hostile, row: dict[str, Any]) -> dict[str, Any]:
    """`row` with its label and what else its table wants."""
    account = world.accounts[0].account_id
    created = row.get("created_at") or world.now - timedelta(days=60)
    usual: dict[str, dict[str, Any]] = {
        "audit_log": {"account_id": account, "actor": "demo", "action": "hostile", "details": {}},
        "bug_report": {},
        "cookie_consent": {"choices": {}, "policy_version": "2025-11"},
        "endpoints": {"id": world.uuid(), "account_id": account, "url": "https://hostile.example.com/"},
        "mockup": {"idea_id": 1},
        "outbox_event": {"id": world.uuid(), "topic": "telemetry-events", "payload": {}, "created_at": created},
        "signal": {},
        "threat_intelligence": {},
        "user_profile": {"created_at": created, "updated_at": created},
    }
    return {**usual[table.name], **row, LABELS[table.name]: hostile.label}
