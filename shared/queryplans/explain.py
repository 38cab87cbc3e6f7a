"""Generic plans of statements, parameters and all, without executing anything.

PostgreSQL 16 and newer plan a text with parameters (EXPLAIN (GENERIC_PLAN)). Before that, the text is prepared, and its
EXECUTE explained with the generic plan forced: a custom one would be planned for the NULLs given for the parameters.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from shared.queryplans.lexer import has_plan, kind_of
from shared.queryplans.rewriting import plannable, supposing
from shared.redaction import sqlstate

# Planning takes milliseconds; what takes longer than this is named, not waited for.
_PLANNING_MS = 2000
_MOST_TRIES = 16

# Why a statement has no plan here, by SQLSTATE.
_WHY = {
    "42501": "no privilege",
    "42P01": "a table is not found (another search_path, temporary, or gone)",
    "42703": "a column is gone",
    "42883": "a function or operator is not found for these types",
    "42601": "its text cannot be parsed without its values",
    "42P18": "the type of a parameter is unknown",
    "42725": "the types of its parameters are unknown",
    "42804": "the types of its parameters are unknown",
    "22P02": "a supposed type does not fit",
    "57014": "planning took too long",
    "55P03": "a table is locked",
    "0A000": "PostgreSQL plans it with its values only",
    "42704": "a type or other object is not found",
    "3F000": "a schema is not found",
}
_UTILITY = ": not a statement with a plan"
_SUPPOSABLE = ("42P18", "42725", "42883")


@dataclass(frozen=True)
class Explained:
    """A statement's plan as EXPLAIN's JSON has it, or why there is none."""

    plan: dict[str, Any] | None
    reason: str | None = None


def utility(kind: str) -> str:
    """The reason of a statement that PostgreSQL makes no plan for."""
    return f"{kind}{_UTILITY}"


def is_utility(reason: str | None) -> bool:
    """Whether `reason` is that of a statement that PostgreSQL makes no plan for."""
    return reason is not None and reason.endswith(_UTILITY)


def prepare(connection: Connection) -> None:
    """Set this read-only transaction up for explaining."""
    connection.exec_driver_sql(
        f"set local statement_timeout = {_PLANNING_MS}; set local lock_timeout = 200;"
        " set local plan_cache_mode = force_generic_plan; set local jit = off"
    )


def explain(connection: Connection, sql: str | None, *, major: int) -> Explained:
    """The generic plan of one statement, in a transaction that `prepare` has set up. Never executes it."""
    if sql is None or sql == "<insufficient privilege>":
        return Explained(None, "its text cannot be read: the role needs pg_read_all_stats")
    if not has_plan(sql):
        return Explained(None, utility(kind_of(sql) or "nothing"))
    tries, why = [plannable(sql)], ""
    for _ in range(_MOST_TRIES):
        if not tries:
            break
        text = tries.pop(0)
        try:
            return Explained(_plan(connection, text, major))
        except DBAPIError as error:
            state = sqlstate(error)
            if state is None or state.startswith("08"):
                raise
            why = why or _WHY.get(state, f"SQLSTATE {state}")  # of the statement itself, not of what was supposed
            if state in _SUPPOSABLE:
                tries = supposing(text, _message(error)) + tries
    return Explained(None, why)


def _message(error: DBAPIError) -> str:
    detail = error.orig.args[0] if error.orig and error.orig.args else {}
    return str(detail.get("M", "")) if isinstance(detail, dict) else ""


def _plan(connection: Connection, text: str, major: int) -> dict[str, Any]:
    if major >= 16:
        with connection.begin_nested():
            return _json(connection, f"explain (generic_plan, verbose, format json) {text}")
    with connection.begin_nested():
        connection.exec_driver_sql(f"prepare keeper_explained as {text}")
    try:
        with connection.begin_nested():
            params: int = connection.exec_driver_sql(
                "select coalesce(cardinality(parameter_types), 0) from pg_prepared_statements"
                " where name = 'keeper_explained'"
            ).scalar_one()
            given = f"({', '.join(['null'] * params)})" if params else ""
            return _json(connection, f"explain (verbose, format json) execute keeper_explained{given}")
    finally:
        connection.exec_driver_sql("deallocate keeper_explained")  # no rollback takes it


def _json(connection: Connection, sql: str) -> dict[str, Any]:
    # Sent as it stands, in the protocol that has no parameters of its own.
    (document,) = connection.exec_driver_sql(sql).scalar_one()
    return dict(document["Plan"])
