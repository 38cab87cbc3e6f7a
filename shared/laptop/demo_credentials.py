"""The demo's integration credentials: sealed by the laptop's own keyring, with a key old enough to be replaced."""

from datetime import datetime, timedelta

from sqlalchemy import Engine, text

from shared.keys import kms
from shared.keys.credentials import Credentials
from shared.keys.data_keys import DataKeys, activate

_AGE = timedelta(days=32)  # due for rotation, not yet overdue
_PROVIDERS = ("ga4", "clarity")


def load(engine: Engine, now: datetime, keyring: str) -> int:
    """Two made-up tokens for each of forty accounts, unless there is a key already; how many."""
    kek = kms.at(keyring)
    with engine.begin() as connection:
        if connection.execute(text("select 1 from data_encryption_key limit 1")).first() is not None:
            return 0
        activate(connection, *DataKeys(kek).new(), now=now - _AGE)
        accounts = connection.execute(
            text("select account_id from user_profile order by account_id limit 40")
        ).scalars()
        credentials, written = Credentials(kek), 0
        for account in accounts.all():
            for provider in _PROVIDERS:
                value = value_of(account, provider)
                credentials.write(connection, account_id=account, provider=provider, value=value, now=now - _AGE)
                written += 1
    return written


def value_of(account: str, provider: str) -> bytes:
    """The token made up for the account."""
    return f"made-up token of {account} at {provider}".encode()
