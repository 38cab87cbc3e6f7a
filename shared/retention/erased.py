"""Which rows on their way back are of erased accounts: those stay away."""

from collections.abc import Collection

from sqlalchemy import Connection, text

from shared import erasure
from shared.errors import Refused


def account_of(columns: Collection[str]) -> str | None:
    """SQL for the account of a staged row s, by its own column or its event's payload; None where it names none."""
    if "account_id" in columns:
        return "cast(s.account_id as text)"
    return "cast(s.payload as jsonb) ->> 'account_id'" if "payload" in columns else None


def among(connection: Connection, account: str, source: str, key: str | None) -> list[str]:
    """The erased accounts that staged rows name by `account`. Raises Refused when they cannot be told without `key`."""
    if key is None:
        if erasure.any_at_all(connection):
            raise Refused(
                f"accounts are erased, and {source} may hold rows of theirs: store the secret {erasure.KEY} where "
                "KEEPER_SECRETS says, or run where Secret Manager has it"
            )
        return []
    named = connection.execute(text(f"select distinct {account} from restoring s where {account} is not null"))
    return sorted(erasure.among(connection, named.scalars(), key))
