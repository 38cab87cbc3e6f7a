"""rotate_keys: a new data key, every credential sealed anew, old keys kept as long as anything needs them."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from shared import holds, manifest
from shared.database import Database
from shared.errors import Outcome
from shared.keys.credentials import Credentials
from shared.keys.data_keys import keys
from shared.keys.keyring import Keyring
from shared.keys.kms import Unreadable
from shared.manifest import FUNCTIONS
from tests.conftest import ManualClock, RunTask
from tests.keys.conftest import Read, Write
from tests.keys.conftest import accounts as accounts
from tests.keys.conftest import credentials as credentials
from tests.keys.conftest import keyring as keyring
from tests.keys.conftest import read as read
from tests.keys.conftest import write as write

Rows = Callable[..., list[Any]]
DAY = timedelta(days=1)


def states(rows: Rows) -> list[str]:
    return [row.state for row in rows("select state from data_encryption_key order by id")]


@pytest.fixture
def filled(run_task: RunTask, write: Write) -> dict[tuple[str, str], bytes]:
    """A first key and six credentials."""
    assert run_task("rotate_keys").outcome is Outcome.OK
    values = {(a, p): f"{a} at {p}".encode() for a in ("a1", "a2", "a3") for p in ("ga4", "clarity")}
    for (account, provider), value in values.items():
        write(account, provider, value)
    return values


def test_the_first_run_makes_the_first_key(run_task: RunTask, rows: Rows) -> None:
    result = run_task("rotate_keys")
    assert (result.outcome, result.counts["keys_made"]) == (Outcome.OK, 1)
    assert states(rows) == ["active"]


def test_every_credential_is_sealed_with_the_new_key_and_reads_as_before(
    filled: dict[tuple[str, str], bytes], run_task: RunTask, read: Read, rows: Rows, clock: ManualClock
) -> None:
    clock.advance(DAY)
    result = run_task("rotate_keys")
    assert result.outcome is Outcome.OK, result.error
    assert {k: result.counts[k] for k in ("keys_made", "resealed", "verified", "keys_retired")} == {
        "keys_made": 1, "resealed": 6, "verified": 6, "keys_retired": 1,
    }  # fmt: skip
    assert states(rows) == ["retired", "active"]
    assert {row.dek_id for row in rows("select dek_id from integration_credential")} == {2}
    assert {key: read(*key) for key in filled} == filled
    assert [row.action for row in rows("select action from groundskeeper.operator_audit order by audit_id")] == [
        "make_key", "make_key", "retire_key",
    ]  # fmt: skip


def test_a_young_key_stays_when_only_due_ones_are_replaced(run_task: RunTask, rows: Rows, clock: ManualClock) -> None:
    run_task("rotate_keys")
    clock.advance(30 * DAY)  # exactly at the limit
    assert run_task("rotate_keys", params={"new_key": "if_due"}).counts["keys_made"] == 0
    clock.advance(timedelta(microseconds=1))
    assert run_task("rotate_keys", params={"new_key": "if_due"}).counts["keys_made"] == 1
    assert states(rows) == ["retired", "active"]


def test_a_plan_writes_nothing(filled: object, run_task: RunTask, rows: Rows, clock: ManualClock) -> None:
    clock.advance(DAY)
    before = rows("select * from data_encryption_key"), rows("select * from integration_credential order by id")
    result = run_task("rotate_keys", planning=True)
    assert result.outcome is Outcome.PLANNED
    assert (result.counts["planned.credentials"], result.counts["planned.new_keys"]) == (6, 1)
    assert (
        rows("select * from data_encryption_key"),
        rows("select * from integration_credential order by id"),
    ) == before


def test_a_ciphertext_moved_to_another_account_or_provider_never_opens(
    filled: object, read: Read, db: Database
) -> None:
    move = """update integration_credential as t set nonce = s.nonce, ciphertext = s.ciphertext
                from integration_credential as s
               where (s.account_id, s.provider) = ('a1', 'ga4')
                 and (t.account_id, t.provider) = (:account, :provider)"""
    for account, provider in (("a2", "ga4"), ("a1", "clarity")):
        with db.transaction() as connection:
            connection.execute(text(move), {"account": account, "provider": provider})
        with pytest.raises(Unreadable):
            read(account, provider)


def test_a_credential_that_does_not_open_is_named_left_alone_and_keeps_its_key(
    filled: dict[tuple[str, str], bytes], run_task: RunTask, read: Read, db: Database, rows: Rows, clock: ManualClock
) -> None:
    with db.transaction() as connection:
        connection.execute(
            text("update integration_credential set ciphertext = :b where (account_id, provider) = ('a2', 'ga4')"),
            {"b": b"x" * 40},
        )
    broken = rows("select id, ciphertext from integration_credential where (account_id, provider) = ('a2', 'ga4')")[0]
    clock.advance(DAY)
    result = run_task("rotate_keys")
    assert (result.outcome, result.counts["resealed"], result.counts["verified"]) == (Outcome.PARTIAL, 5, 5)
    assert f"integration_credential {broken.id} does not open" in (result.error or "")
    assert states(rows) == ["retiring", "active"]
    assert rows(f"select dek_id, ciphertext from integration_credential where id = {broken.id}") == [
        (1, broken.ciphertext)
    ]
    assert {key: read(*key) for key in filled if key != ("a2", "ga4")} == {
        key: value for key, value in filled.items() if key != ("a2", "ga4")
    }


def test_rows_written_while_they_are_sealed_anew_keep_what_was_written(
    filled: dict[tuple[str, str], bytes], run_task: RunTask, read: Read, db: Database, keyring: Keyring,
    clock: ManualClock,
) -> None:  # fmt: skip
    """Writers and readers go on through ten rotations; each read is the last write."""
    stop, troubles, written = threading.Event(), [], {}

    def work(account: str) -> None:
        mine = Credentials(keyring)
        number = 0
        try:
            while not stop.is_set():
                number += 1
                value = f"{account} {number}".encode()
                with db.transaction() as connection:
                    mine.write(connection, account_id=account, provider="ga4", value=value, now=clock.now())
                with db.transaction(read_only=True) as connection:
                    got = mine.read(connection, account_id=account, provider="ga4")
                if got != value:
                    troubles.append((account, value, got))
                written[account] = value
        except Exception as error:
            troubles.append(error)
            raise

    threads = [threading.Thread(target=work, args=(account,)) for account in ("a1", "a2")]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            clock.advance(DAY)
            assert run_task("rotate_keys").outcome is Outcome.OK
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not troubles
    assert {account: read(account, "ga4") for account in written} == written


def test_a_row_left_on_a_retired_key_is_sealed_anew_by_the_next_run(
    filled: dict[tuple[str, str], bytes], run_task: RunTask, read: Read, db: Database, rows: Rows, clock: ManualClock
) -> None:
    """As a restore brings it back."""
    with db.transaction() as connection:
        connection.execute(text("create table kept as select * from integration_credential where account_id = 'a1'"))
    clock.advance(DAY)
    run_task("rotate_keys")
    with db.transaction() as connection:
        connection.execute(text("delete from integration_credential where account_id = 'a1'"))
        connection.execute(text("insert into integration_credential select * from kept"))
    result = run_task("rotate_keys", params={"new_key": "if_due"})
    assert (result.counts["keys_made"], result.counts["resealed"]) == (0, 2)
    assert {key: read(*key) for key in filled} == filled


def test_a_retired_key_is_destroyed_when_no_backup_can_need_it_and_not_before(
    filled: object, run_task: RunTask, rows: Rows, clock: ManualClock
) -> None:
    clock.advance(DAY)
    run_task("rotate_keys")
    clock.advance(400 * DAY - timedelta(microseconds=1))
    assert run_task("rotate_keys", params={"new_key": "if_due"}).counts["keys_destroyed"] == 0
    clock.advance(timedelta(microseconds=1))
    assert run_task("rotate_keys", params={"new_key": "if_due"}).counts["keys_destroyed"] == 1
    assert rows("select state, wrapped_key is null as gone from data_encryption_key order by id")[0] == (
        "destroyed", True,
    )  # fmt: skip


def test_no_key_is_destroyed_under_a_hold(
    filled: object, run_task: RunTask, db: Database, rows: Rows, clock: ManualClock
) -> None:
    clock.advance(DAY)
    run_task("rotate_keys")
    clock.advance(500 * DAY)
    with db.transaction() as connection:
        holds.add(connection, reason="a case", by="counsel", now=clock.now(), account="a1")
    result = run_task("rotate_keys", params={"new_key": "if_due"})
    assert (result.outcome, result.counts["keys_destroyed"]) == (Outcome.OK, 0)
    assert states(rows)[0] == "retired"


def test_after_the_kek_rotates_every_data_key_is_wrapped_anew_and_stays_the_same_key(
    filled: dict[tuple[str, str], bytes], run_task: RunTask, keyring: Keyring, rows: Rows, db: Database,
    clock: ManualClock,
) -> None:  # fmt: skip
    assert keyring.rotate() == "local/2"
    result = run_task("rotate_keys", params={"new_key": "if_due"})
    assert (result.counts["keys_rewrapped"], result.counts["keys_made"], result.counts["resealed"]) == (1, 0, 0)
    assert [row.kek for row in rows("select kek from data_encryption_key")] == ["local/2"]
    (keyring._folder / "1").unlink()  # the old version may be destroyed now
    fresh = Credentials(keyring)
    with db.transaction(read_only=True) as connection:
        assert {k: fresh.read(connection, account_id=k[0], provider=k[1]) for k in filled} == filled


def test_without_a_key_encryption_key_the_run_is_unavailable_and_says_what_to_set(
    run_task: RunTask, database_url: str
) -> None:
    from tests.conftest import settings_for

    result = run_task("rotate_keys", using=settings_for(database_url))
    assert result.outcome is Outcome.UNAVAILABLE
    assert "KEEPER_KEY_KEK" in (result.error or "")


def test_no_credential_and_no_key_is_in_the_ledger_or_the_log(
    filled: dict[tuple[str, str], bytes], run_task: RunTask, db: Database, rows: Rows, keyring: Keyring,
    clock: ManualClock, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    clock.advance(DAY)
    result = run_task("rotate_keys")
    with db.transaction(read_only=True) as connection:
        plain = [keyring.unwrap(key.wrapped) for key in keys(connection) if key.wrapped]
    tables = rows("select table_name from information_schema.tables where table_schema = 'groundskeeper'")
    told = capfd.readouterr()
    everything = "".join(
        [told.out, told.err, str(result), *(str(rows(f"select * from groundskeeper.{t}")) for (t,) in tables)]
    )
    ring = [file.read_text() for file in keyring._folder.iterdir()]
    values = [*(value.decode() for value in filled.values()), *(p.hex() for p in plain), *map(str, plain), *ring]
    assert not [value for value in values if value in everything]


def test_a_retired_key_is_kept_longer_than_any_backup_or_archive() -> None:
    """A month's backup is there for so many months; what is deleted from its bucket can come back for a while."""
    keep = manifest.load(FUNCTIONS / "rotate_keys").params["keep_days"]["default"]
    months = manifest.load(FUNCTIONS / "backup_database").params["keep"]["monthly"]
    rules = manifest.load(FUNCTIONS / "db_cleanup").params["rules"]
    archives = [rule["archive"]["keep_days"] for rule in rules if "archive" in rule]
    buckets = yaml.safe_load((manifest.ROOT / "terraform" / "data" / "buckets.yaml").read_text())
    tail = max(buckets[name].get("soft_delete_days", 0) for name in ("backups", "archive"))
    assert keep > months * 31 + tail
    assert keep > max(archives) + tail
