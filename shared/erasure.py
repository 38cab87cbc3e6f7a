"""Erased accounts: a keyed hash of each stays behind, so that whatever arrives later cannot bring the account back.

Late events, valid tokens, restores and backups all ask here. The hash is HMAC-SHA256 with the secret `erasure-key`,
so that the table tells nobody who is in it; the key is never rotated, since nothing is left to hash again.
"""

import hashlib
import hmac
import uuid
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from shared.context import Context
from shared.errors import Retry, Unavailable
from shared.schema import erasure

# The secret's name, for task.yaml's `secrets` and `ctx.secret`.
KEY = "erasure-key"


def account_hash(account_id: str, key: str) -> str:
    """What stands for an account: 64 hex digits."""
    return _keyed("account", account_id, key)


def person_hash(uid: str, key: str) -> str:
    """What stands for a Firebase user: 64 hex digits."""
    return _keyed("person", uid, key)


def _keyed(kind: str, value: str, key: str) -> str:
    return hmac.new(key.encode(), f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()


def tombstone(connection: Connection, account_id: str, key: str, now: datetime) -> None:
    """From the end of this transaction on the account counts as erased; the first moment stands."""
    bury(connection, account_hash(account_id, key), now)


def bury(connection: Connection, digest: str, now: datetime) -> None:
    """As `tombstone`, for an account of which only the hash is known (from a copy kept elsewhere)."""
    connection.execute(
        insert(erasure)
        .values(account_hash=digest, erasure_id=uuid.uuid4(), requested_at=now, erased_at=now)
        .on_conflict_do_update(
            index_elements=[erasure.c.account_hash],
            set_={"erased_at": func.coalesce(erasure.c.erased_at, now)},
        )
    )


def erased(connection: Connection, account_id: str, key: str) -> bool:
    """Whether the account is erased: nothing of it may be written any more."""
    return bool(among(connection, [account_id], key))


def among(connection: Connection, account_ids: Iterable[str], key: str) -> set[str]:
    """Those of `account_ids` that are erased."""
    of_hash = {account_hash(account_id, key): account_id for account_id in account_ids}
    found = connection.execute(
        select(erasure.c.account_hash).where(
            erasure.c.account_hash.in_(list(of_hash)), erasure.c.erased_at.is_not(None)
        )
    ).scalars()
    return {of_hash[digest] for digest in found}


def any_at_all(connection: Connection) -> bool:
    """Whether any account was ever erased."""
    return (
        connection.execute(select(erasure.c.account_hash).where(erasure.c.erased_at.is_not(None)).limit(1)).first()
        is not None
    )


def key_of(ctx: Context) -> str | None:
    """The key; None where nobody stored one, as before the first account is erased."""
    try:
        return ctx.recent_secret(KEY)
    except Unavailable:
        return None


def seen(ctx: Context, connection: Connection, account_ids: Iterable[str]) -> set[str]:
    """Those of `account_ids` that are erased, as a task sees it.

    Raises Retry where accounts are erased and the key to tell them is missing: nothing of theirs may slip in.
    """
    key = key_of(ctx)
    if key is None:
        if any_at_all(connection):
            raise Retry(f"accounts are erased, and which cannot be told without the secret {KEY}: store it again")
        return set()
    return among(connection, account_ids, key)
