"""The data encryption keys: one active, older ones kept as long as anything may need them.

active -> retiring (another is active; rows may be left on it) -> retired (no row is left; a backup may need it)
-> destroyed (the wrapped key is gone).
"""

import os
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.keys.kms import Kms, Unreadable
from shared.keys.sealing import ALGORITHM, FORMATS, KEY_BYTES, Format, Sealed

# Writers of credentials hold it together; whoever changes which key is active holds it alone. Advisory, since such
# locks are granted in the order of asking: a stream of writers cannot keep the rotation out, as with a row's lock.
_SWITCH = 0x6B656570

_COLUMNS = "id, wrapped_key, kek, algorithm, state, created_at, retired_at"


@dataclass(frozen=True)
class Key:
    """A row of data_encryption_key."""

    id: int
    wrapped: bytes | None = field(repr=False)
    kek: str
    algorithm: str
    state: str
    created_at: datetime
    retired_at: datetime | None

    @property
    def format(self) -> Format:
        """How rows are sealed with it. Raises Unreadable when nobody registered the algorithm."""
        if self.algorithm not in FORMATS:
            raise Unreadable(f"key {self.id} is for {self.algorithm!r}, which is no format of shared/keys/sealing.py")
        return FORMATS[self.algorithm]


@dataclass(frozen=True)
class Credential:
    """A row of integration_credential, sealed."""

    id: int
    account_id: str
    provider: str
    dek_id: int
    generation: int
    sealed: Sealed = field(repr=False)


class DataKeys:
    """Unwraps keys through the KMS, once a process each."""

    def __init__(self, kms: Kms) -> None:
        self.kms = kms
        self._plain: dict[int, bytes] = {}

    def plain(self, key: Key) -> bytes:
        """The key's bytes. Raises Unreadable, Retry, Unavailable."""
        if key.id not in self._plain:
            if key.wrapped is None:
                raise Unreadable(f"data key {key.id} was destroyed")
            self._plain[key.id] = self.kms.unwrap(key.wrapped)
        return self._plain[key.id]

    def new(self) -> tuple[bytes, str]:
        """A new key, wrapped and proven to unwrap, and the KEK's version."""
        plain = os.urandom(KEY_BYTES)
        wrapped, kek = self.kms.wrap(plain)
        if self.kms.unwrap(wrapped) != plain:
            raise Unreadable("the KMS gave back another key than it was given to wrap")
        return wrapped, kek


def keys(connection: Connection) -> list[Key]:
    """Every key, oldest first."""
    found = connection.execute(text(f"select {_COLUMNS} from data_encryption_key order by id"))  # noqa: S608 - constants
    return [Key(*row) for row in found]


def active(connection: Connection) -> Key | None:
    """The key that seals now."""
    query = f"select {_COLUMNS} from data_encryption_key where state = 'active'"  # noqa: S608 - constants
    found = connection.execute(text(query)).one_or_none()
    return Key(*found) if found else None


def by_id(connection: Connection, key_id: int) -> Key:
    """The key with this id, which a row names."""
    query = f"select {_COLUMNS} from data_encryption_key where id = :id"  # noqa: S608 - constants
    return Key(*connection.execute(text(query), {"id": key_id}).one())


def keep_switch_away(connection: Connection) -> None:
    """Until the transaction's end the active key stays active; others may write meanwhile."""
    connection.execute(text("select pg_advisory_xact_lock_shared(:switch)"), {"switch": _SWITCH})


def wait_for_writers(connection: Connection) -> None:
    """Until the transaction's end nobody writes credentials, and whoever was at it has committed."""
    connection.execute(text("select pg_advisory_xact_lock(:switch)"), {"switch": _SWITCH})


def activate(connection: Connection, wrapped: bytes, kek: str, *, now: datetime) -> int:
    """Make a new key the active one; the one before is retiring. The new one's id. No writer is under way."""
    wait_for_writers(connection)
    connection.execute(text("update data_encryption_key set state = 'retiring' where state = 'active'"))
    made = connection.execute(
        text("""
            insert into data_encryption_key (wrapped_key, kek, algorithm, state, created_at)
            values (:wrapped, :kek, :algorithm, 'active', :now)
            returning id"""),
        {"wrapped": wrapped, "kek": kek, "algorithm": ALGORITHM, "now": now},
    )
    return int(made.scalar_one())


def rewrap(connection: Connection, key: Key, wrapped: bytes, kek: str) -> bool:
    """Keep the same key wrapped anew, unless somebody did or destroyed it meanwhile."""
    done = connection.execute(
        text("""
            update data_encryption_key
               set wrapped_key = :wrapped, kek = :kek
             where id = :id and wrapped_key = :before"""),
        {"id": key.id, "wrapped": wrapped, "kek": kek, "before": key.wrapped},
    )
    return bool(done.rowcount)


def census(connection: Connection) -> dict[int, int]:
    """How many rows each key seals."""
    found = connection.execute(text("select dek_id, count(*) as rows from integration_credential group by dek_id"))
    return {row.dek_id: row.rows for row in found}


def retire(connection: Connection, key_id: int, *, now: datetime) -> bool:
    """Retire a retiring key if it seals no row, and none can come to be; False: some are left."""
    wait_for_writers(connection)
    done = connection.execute(
        text("""
            update data_encryption_key
               set state = 'retired', retired_at = :now
             where id = :id and state = 'retiring'
               and not exists (select 1 from integration_credential where dek_id = :id)"""),
        {"id": key_id, "now": now},
    )
    return bool(done.rowcount)


def destroy(connection: Connection, key_id: int, *, retired_before: datetime, now: datetime) -> bool:
    """Forget a retired key for ever, if nothing is sealed with it."""
    wait_for_writers(connection)
    done = connection.execute(
        text("""
            update data_encryption_key
               set state = 'destroyed', wrapped_key = null, destroyed_at = :now
             where id = :id and state = 'retired' and retired_at <= :before
               and not exists (select 1 from integration_credential where dek_id = :id)"""),
        {"id": key_id, "before": retired_before, "now": now},
    )
    return bool(done.rowcount)


_CREDENTIAL = "id, account_id, provider, dek_id, generation, nonce, ciphertext"


def _credential(row: Row[Any]) -> Credential:
    return Credential(
        row.id, row.account_id, row.provider, row.dek_id, row.generation, Sealed(row.nonce, row.ciphertext)
    )


def credentials(connection: Connection, *, after: int, limit: int, not_by: int | None = None) -> list[Credential]:
    """Rows by id from `after` on; with `not_by`, only those another key seals."""
    found = connection.execute(
        text(f"""
            select {_CREDENTIAL}
              from integration_credential
             where id > :after and (cast(:not_by as bigint) is null or dek_id <> cast(:not_by as bigint))
             order by id
             limit :limit"""),  # noqa: S608 - constants
        {"after": after, "limit": limit, "not_by": not_by},
    )
    return [_credential(row) for row in found]


def credential(connection: Connection, account_id: str, provider: str) -> Credential | None:
    """One account's credential at one provider."""
    found = connection.execute(
        text(f"""
            select {_CREDENTIAL}
              from integration_credential
             where account_id = :account and provider = :provider"""),  # noqa: S608 - constants
        {"account": account_id, "provider": provider},
    ).one_or_none()
    return _credential(found) if found else None
