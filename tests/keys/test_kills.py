"""kill -9 in the middle of rotations, with the application writing: at no moment is a credential lost."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text

from shared import plans
from shared.clock import rfc3339
from shared.database import Database
from shared.keys.credentials import Credentials
from shared.keys.data_keys import DataKeys, credentials, keys
from shared.keys.keyring import Keyring
from shared.keys.sealing import identity_of
from shared.manifest import FUNCTIONS
from shared.settings import Settings
from tests.conftest import NOW
from tests.killing import killer

PROVIDERS = ("ga4", "clarity")


def _fill(db: Database, keyring: Keyring, accounts: int) -> None:
    with db.transaction() as connection:
        connection.execute(
            text("""
            insert into user_profile (account_id, firebase_uid, email, created_at, updated_at)
            select 'a' || n, 'f' || n, 'a' || n || '@example.com', :now, :now from generate_series(1, :n) n"""),
            {"now": NOW, "n": accounts},
        )
    mine = Credentials(keyring)
    with db.transaction() as connection:
        for n in range(1, accounts + 1):
            for provider in PROVIDERS:
                mine.write(connection, account_id=f"a{n}", provider=provider, value=b"first", now=NOW)


def _every_row_opens(db: Database, keyring: Keyring) -> int:
    """In one snapshot, as a reader that begins now."""
    unwrapped, after, opened = DataKeys(keyring), 0, 0
    with db.transaction(read_only=True) as connection:
        connection.execute(text("set transaction isolation level repeatable read"))
        known = {key.id: key for key in keys(connection)}
        while rows := credentials(connection, after=after, limit=1000):
            for row in rows:
                key = known[row.dek_id]
                key.format.open(unwrapped.plain(key), row.sealed, identity_of(row.account_id, row.provider))
            after, opened = rows[-1].id, opened + len(rows)
    return opened


@contextmanager
def _writing(db: Database, keyring: Keyring, accounts: int) -> Iterator[dict[str, bytes]]:
    """Two writers that read back what they wrote; what was acknowledged last, by account."""
    stop, acknowledged, troubles = threading.Event(), {}, []

    def work(number: int) -> None:
        chance, mine, count = random.Random(number), Credentials(keyring), 0
        try:
            while not stop.is_set():
                account, count = f"a{chance.randrange(number, accounts, 2) + 1}", count + 1
                value = f"{account} {count}".encode()
                with db.transaction(lock_timeout_ms=30_000) as connection:
                    mine.write(connection, account_id=account, provider="ga4", value=value, now=NOW)
                acknowledged[account] = value
                with db.transaction(read_only=True) as connection:
                    assert mine.read(connection, account_id=account, provider="ga4") == value
                time.sleep(0.01)
        except BaseException as error:
            troubles.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    try:
        yield acknowledged
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not troubles


def _rotate_under_kills(db: Database, settings: Settings, keyring: Keyring, *, accounts: int, kills: int) -> None:
    chance, killed, completed, day = random.Random(7), 0, 0, NOW
    folder = FUNCTIONS / "rotate_keys"
    with killer(dict(settings.environ), folder) as kill:

        def once(request: str, step: int | None) -> bool:
            with db.transaction() as connection:  # the lease of whoever was killed is over
                connection.execute(
                    text("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s'")
                )
            life = kill.run(request=request, step=step, now=rfc3339(day))
            assert life.killed or life.outcome in ("ok", "skipped"), life
            return life.killed

        def ask() -> str:
            with db.transaction() as connection:
                request = plans.request_run(connection, task="rotate_keys", actor="t", why="a test", now=day)
            return str(request)

        assert not once(ask(), None)
        _fill(db, keyring, accounts)
        with _writing(db, keyring, accounts) as acknowledged:
            while killed < kills:
                day += timedelta(days=1)
                if completed % 3 == 2:
                    keyring.rotate()
                request = ask()
                while killed < kills and once(request, chance.randrange(1, 90)):
                    killed += 1
                    assert _every_row_opens(db, keyring) == accounts * len(PROVIDERS)
                once(request, None)
                completed += 1
        day += timedelta(days=1)
        assert not once(ask(), None)
    mine = Credentials(keyring)
    with db.transaction(read_only=True) as connection:
        for account, value in acknowledged.items():
            assert mine.read(connection, account_id=account, provider="ga4") == value
        states = [key.state for key in keys(connection)]
        assert mine.read(connection, account_id=f"a{accounts}", provider="clarity") == b"first"
    assert acknowledged
    assert states == ["retired"] * (len(states) - 1) + ["active"]
    # each request made one key and no more, however often it was killed
    with db.transaction() as connection:
        requests = connection.execute(text("select count(*) from groundskeeper.run_request")).scalar_one()
    assert len(states) == requests


def test_a_few_kills_lose_no_credential(db: Database, settings: Settings, keyring: Keyring) -> None:
    _rotate_under_kills(db, settings, keyring, accounts=20, kills=4)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_two_hundred_kills_at_random_lose_no_credential(db: Database, settings: Settings, keyring: Keyring) -> None:
    _rotate_under_kills(db, settings, keyring, accounts=300, kills=200)
