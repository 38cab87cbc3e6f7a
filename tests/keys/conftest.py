"""A platform with accounts and credentials, a keyring, and rotate_keys behind an address as its function is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.call import by_hand
from shared.database import Database
from shared.keys.credentials import Credentials
from shared.keys.keyring import Keyring
from shared.settings import Settings
from tests.conftest import NOW, ManualClock, RunTask
from tests.started import Endpoint, function

ACCOUNTS = ("a1", "a2", "a3")


@pytest.fixture
def keyring(settings: Settings) -> Keyring:
    return Keyring(Path(settings.environ["KEEPER_KEY_KEK"]))


@pytest.fixture
def credentials(keyring: Keyring) -> Credentials:
    """The application's side."""
    return Credentials(keyring)


@pytest.fixture
def accounts(db: Database) -> tuple[str, ...]:
    with db.transaction() as connection:
        for name in ACCOUNTS:
            connection.execute(
                text("""
                insert into user_profile (account_id, firebase_uid, email, created_at, updated_at)
                values (:name, :name, :name || '@example.com', :now, :now)"""),
                {"name": name, "now": NOW},
            )
    return ACCOUNTS


Write = Callable[..., None]
Read = Callable[[str, str], bytes | None]


@pytest.fixture
def write(db: Database, credentials: Credentials, accounts: tuple[str, ...], clock: ManualClock) -> Write:
    def put(account: str, provider: str, value: bytes) -> None:
        with db.transaction() as connection:
            credentials.write(connection, account_id=account, provider=provider, value=value, now=clock.now())

    return put


@pytest.fixture
def read(db: Database, credentials: Credentials) -> Read:
    def get(account: str, provider: str) -> bytes | None:
        with db.transaction(read_only=True) as connection:
            return credentials.read(connection, account_id=account, provider=provider)

    return get


@pytest.fixture
def rotate_keys_at(run_task: RunTask) -> Iterator[Endpoint]:
    """rotate_keys behind an address, run as its own role when it is called."""
    with function(lambda request: run_task("rotate_keys", by_hand(request))) as endpoint:
        yield endpoint
