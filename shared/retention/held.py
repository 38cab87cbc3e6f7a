"""Legal holds as a rule meets them: the whole table, some accounts' rows, or what a restore brought back."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection

from shared import holds
from shared.holds import Hold
from shared.retention.preflight import Target, Unfit
from shared.retention.rules import Condition, inner, quoted
from shared.wording import counted


class Held(NamedTuple):
    """What holds take out of a rule's reach at this moment."""

    whole: bool
    accounts: tuple[str, ...]
    runs: tuple[str, ...]  # restored rows of these runs

    @property
    def some(self) -> bool:
        """Whether single rows are held."""
        return bool(self.accounts or self.runs)


def of(target: Target, found: Sequence[Hold]) -> Held:
    """What of `target` is held. Raises Unfit where an account is held and the rule cannot tell its rows."""
    about = [h for h in found if h.table is None or h.table in target.relation.names | {target.rule.table}]
    accounts = tuple(sorted({h.account for h in about if h.account is not None}))
    if accounts and not target.rule.account:
        raise Unfit(
            f"{counted(len(accounts), 'account')} under a legal hold, but rule {target.rule.name} does not say how to "
            "find an account's rows: add account (SQL, or `none` where rows are nobody's)"
        )
    return Held(
        whole=any(h.account is None and h.run_id is None for h in about),
        accounts=accounts if target.rule.account_sql else (),
        runs=tuple(sorted({str(h.run_id) for h in about if h.run_id is not None})),
    )


def now(connection: Connection, target: Target, moment: datetime) -> Held:
    """What is held at `moment`, read in the caller's transaction: also a hold placed while the run goes on."""
    return of(target, holds.in_force(connection, moment))


def spared(target: Target, held: Held) -> Condition:
    """The rows that are due and not held: what may go."""
    due = target.due()
    sql, binds = due.sql, dict(due.binds)
    if held.accounts:
        # `is not true`: a row of no account belongs to no held one
        sql += f" and (cast({inner(target.rule.account_sql)} as text) = any(:held)) is not true"
        binds["held"] = list(held.accounts)
    if held.runs:
        key = ", ".join(f"t.{quoted(column)}" for column in target.relation.key)
        sql += (
            " and not exists (select 1 from groundskeeper.restored_row w where w.source = :source"
            f" and w.key = cast(row({key}) as text) and w.run_id = any(cast(:runs as uuid[])))"
        )
        binds |= {"source": target.source, "runs": list(held.runs)}
    return Condition(sql, binds)
