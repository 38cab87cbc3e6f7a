"""Tables of anybody's design, and db_cleanup run on them as its own role by rules of the test."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from shared.database import Database
from shared.result import Result
from tests.conftest import RunTask

PACE = {"batch_rows": 100, "idle_ms": 200, "busy_ms": 4, "lag_s": 10, "long_transaction_s": 300, "patience_s": 2}
ROLE = '"db-cleanup"'

Execute = Callable[..., None]
Sweep = Callable[..., Result]
Rows = Callable[..., list[Any]]


@pytest.fixture
def execute(db: Database) -> Execute:
    """Run statements as superuser, each in a transaction of its own."""

    def run(*statements: str, **binds: Any) -> None:
        for statement in statements:
            with db.transaction() as connection:
                connection.execute(text(statement), binds)

    return run


@pytest.fixture
def table(execute: Execute) -> Callable[..., None]:
    """Create a table, open it to the task's role, and fill it."""

    def create(name: str, columns: str, *then: str, owned: bool = False) -> None:
        execute(f"create table {name} ({columns}", f"grant select, update, delete on {name} to {ROLE}", *then)
        if owned:
            execute(f"alter table {name} owner to groundskeeper_own_endpoints")

    return create


@pytest.fixture
def sweep(run_task: RunTask) -> Sweep:
    """Run db_cleanup by these rules only."""

    def run(*rules: dict[str, Any], duplicates: tuple[dict[str, Any], ...] = (), **given: Any) -> Result:
        pace = {**PACE, **given.pop("pace", {})}
        params = {"rules": [_rule(r) for r in rules], "duplicates": list(duplicates), "pace": pace}
        return run_task("db_cleanup", params=params, **given)

    return run


def _rule(given: dict[str, Any]) -> dict[str, Any]:
    return {"name": given["table"], "timestamp": "at", "keep_days": 30, "account": "none", **given}
