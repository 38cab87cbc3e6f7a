"""The same engine on a schema of anybody's design, by a rules file; and task.yaml's rules by a platform's names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import Outcome
from tests.conftest import RunTask
from tests.retention.conftest import PACE, ROLE, Execute, Rows

FILE = """\
rules:
  - {name: visits, table: shop.visits, timestamp: happened, assume_tz: Europe/Berlin, keep_days: 30, account: none}
  - {name: orders, table: shop.orders, timestamp: placed, unit: s, keep_days: 30, account: none, children: keep}
  - {name: secrets, table: shop.secrets, timestamp: at, keep_days: 30, account: none}
duplicates:
  - {name: emails, table: shop.emails, key: [address], keep: "id"}
"""


@pytest.fixture
def shop(execute: Execute) -> None:
    """Other names, naive timestamps, serial keys, foreign keys that refuse, no partitions, RLS on one table."""
    execute(
        "create schema shop",
        "create table shop.visits (id serial primary key, happened timestamp)",
        "insert into shop.visits (happened) values ('2026-05-16 13:59'), ('2026-05-16 14:00'), ('2026-06-01')",
        "create table shop.orders (id serial primary key, placed int)",
        "create table shop.lines (order_id int references shop.orders)",
        "create index on shop.lines (order_id)",
        "insert into shop.orders (placed) values (1700000000), (1700000001), (1781000000)",
        "insert into shop.lines values (2)",
        "create table shop.secrets (at timestamptz)",
        "insert into shop.secrets values ('2026-01-01')",
        "alter table shop.secrets enable row level security",
        "create table shop.emails (id serial primary key, address text)",
        "create index on shop.emails (address)",
        "insert into shop.emails (address) select 'x' from generate_series(1, 100)",
        f"grant usage on schema shop to {ROLE}",
        f"grant select, update, delete on all tables in schema shop to {ROLE}",
    )


def test_a_rules_file_cleans_a_foreign_schema(shop: None, run_task: RunTask, rows: Rows, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(FILE)
    result = run_task("db_cleanup", params={"rules_file": str(file), "pace": PACE})
    assert result.outcome is Outcome.PARTIAL
    assert "secrets: row-level security" in (result.error or "")
    assert result.counts == {"visits.deleted": 1, "orders.deleted": 1, "emails.deleted": 99}
    assert [r.id for r in rows("select id from shop.orders order by 1")] == [2, 3]
    assert len(rows("select 1 from shop.secrets")) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("rules: [{name: x}]", "is missing"),
        ("rules: []\nextra: 1", "extra"),
        ("rules: [{name: x, table: t, timestamp: at, keep_days: 0}]", "at least 1"),
        (
            "rules:\n  - {name: x, table: t, timestamp: at, keep_days: 5}\n"
            "  - {name: x, table: u, timestamp: at, keep_days: 5}",
            "stands twice",
        ),
    ],
)
def test_a_wrong_rules_file_is_refused_before_anything_goes(
    run_task: RunTask, tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(content)
    result = run_task("db_cleanup", params={"rules_file": str(file)})
    assert result.outcome is Outcome.REFUSED
    assert words in (result.error or "")


def test_a_missing_rules_file_is_refused(run_task: RunTask, tmp_path: Path) -> None:
    result = run_task("db_cleanup", params={"rules_file": str(tmp_path / "none.yaml")})
    assert (result.outcome, "no such file" in (result.error or "")) == (Outcome.REFUSED, True)


def test_adoption_gives_tables_and_columns_their_own_names(
    run_task: RunTask, rows: Rows, execute: Execute, tmp_path: Path, table: Callable[..., None]
) -> None:
    execute("create schema app", f"grant usage on schema app to {ROLE}")
    table("app.trail", "happened timestamp, who text)", "insert into app.trail values ('2026-01-01', 'a1'), (null, '')")
    adopt = tmp_path / "adopt.yaml"
    adopt.write_text(
        "tables:\n  audit_log:\n    name: app.trail\n    columns:\n"
        "      created_at: {name: happened, assume_tz: UTC}\n      account_id: {name: who}\n"
    )
    result = run_task("db_cleanup", params={"adopt_file": str(adopt)})
    assert result.outcome is Outcome.OK, result.error
    assert result.counts["audit_log.deleted"] == 1
    assert len(rows("select 1 from app.trail")) == 1
