"""For the application: write and read an account's credentials, while keys rotate beneath.

    credentials = Credentials(kms.at("projects/…/cryptoKeys/kek"))
    with engine.begin() as connection:
        credentials.write(connection, account_id="a1", provider="ga4", value=token, now=now)

It needs SELECT on data_encryption_key and SELECT, INSERT, UPDATE, DELETE on integration_credential.
"""

from datetime import datetime

from sqlalchemy import Connection, text

from shared.errors import Unavailable
from shared.keys.data_keys import DataKeys, Key, active, by_id, credential, keep_switch_away
from shared.keys.kms import Kms
from shared.keys.sealing import identity_of


class Credentials:
    """Credentials sealed in integration_credential. Keep one a process: it unwraps each key once."""

    def __init__(self, kms: Kms) -> None:
        self._keys = DataKeys(kms)

    def write(self, connection: Connection, *, account_id: str, provider: str, value: bytes, now: datetime) -> None:
        """Seal `value` with the active key and store it in the caller's transaction.

        Until that ends, a rotation waits to change keys: keep it short. Raises Unavailable when there is no key yet.
        """
        self._keys.plain(_required(connection))  # asks the KMS, if at all, before anybody has to wait
        keep_switch_away(connection)
        key = _required(connection)
        sealed = key.format.seal(self._keys.plain(key), value, identity_of(account_id, provider))
        connection.execute(
            text("""
                insert into integration_credential as c
                       (account_id, provider, dek_id, nonce, ciphertext, created_at, updated_at)
                values (:account, :provider, :dek, :nonce, :ciphertext, :now, :now)
                    on conflict (account_id, provider) do update
                   set dek_id = excluded.dek_id, nonce = excluded.nonce, ciphertext = excluded.ciphertext,
                       generation = c.generation + 1, updated_at = excluded.updated_at"""),
            {
                "account": account_id,
                "provider": provider,
                "dek": key.id,
                "nonce": sealed.nonce,
                "ciphertext": sealed.ciphertext,
                "now": now,
            },
        )

    def read(self, connection: Connection, *, account_id: str, provider: str) -> bytes | None:
        """The value, or None when there is none. Raises Unreadable when the row was tampered with."""
        row = credential(connection, account_id, provider)
        if row is None:
            return None
        key = by_id(connection, row.dek_id)
        return key.format.open(self._keys.plain(key), row.sealed, identity_of(account_id, provider))

    def remove(self, connection: Connection, *, account_id: str, provider: str) -> bool:
        """Delete it; False when there was none."""
        gone = connection.execute(
            text("delete from integration_credential where account_id = :account and provider = :provider"),
            {"account": account_id, "provider": provider},
        )
        return bool(gone.rowcount)


def _required(connection: Connection) -> Key:
    key = active(connection)
    if key is None:
        raise Unavailable("there is no active data key: run rotate_keys, which makes the first one")
    return key
