"""The partitions of endpoints: made ahead, once, by UTC days, without stopping anybody."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared.database import Database
from shared.platform.partitions import create_ahead
from shared.redaction import sqlstate
from tests.conftest import NOW

NO_PARTITION = "23514"


def _account(connection: Connection) -> None:
    connection.execute(
        text("""
        insert into user_profile (account_id, firebase_uid, email, created_at, updated_at)
        values ('a', 'f', 'a@example.com', 'epoch', 'epoch')""")
    )


def _insert(connection: Connection, at: datetime) -> str:
    """Insert a row; the partition it fell into."""
    return str(
        connection.execute(
            text("""
            insert into endpoints (last_tested, id, account_id, url) values (:at, :id, 'a', 'https://example.com/')
            returning cast(tableoid as regclass)"""),
            {"at": at, "id": uuid.uuid4()},
        ).scalar_one()
    )


def test_today_and_the_days_ahead_are_made_once(db: Database) -> None:
    with db.transaction() as connection:
        made = create_ahead(connection, NOW, 2, since=NOW - timedelta(days=1))
        assert made == [f"endpoints_202606{day}" for day in (14, 15, 16, 17)]
        assert create_ahead(connection, NOW, 2) == []
        assert create_ahead(connection, NOW, 3) == ["endpoints_20260618"]


def test_a_day_is_a_day_of_utc_to_the_microsecond(db: Database) -> None:
    east = timezone(timedelta(hours=14))
    with db.transaction() as connection:
        create_ahead(connection, datetime(2026, 6, 16, 1, tzinfo=east), 0)  # still the 15th in UTC
        _account(connection)
        start = datetime(2026, 6, 15, tzinfo=UTC)
        assert _insert(connection, start) == "endpoints_20260615"
        assert _insert(connection, start + timedelta(days=1, microseconds=-1)) == "endpoints_20260615"


def test_a_row_of_a_day_without_partition_is_refused(db: Database) -> None:
    with db.transaction() as connection:
        _account(connection)
    with pytest.raises(DBAPIError) as refused, db.transaction() as connection:
        _insert(connection, NOW)
    assert sqlstate(refused.value) == NO_PARTITION


def test_the_zone_of_the_session_does_not_move_the_days(db: Database) -> None:
    with db.transaction() as connection:
        connection.execute(text("set local timezone = 'Pacific/Kiritimati'"))
        create_ahead(connection, NOW, 0)
        _account(connection)
        assert _insert(connection, datetime(2026, 6, 15, tzinfo=UTC)) == "endpoints_20260615"


def test_a_time_without_zone_is_refused(db: Database) -> None:
    with db.transaction() as connection, pytest.raises(ValueError, match="aware"):
        create_ahead(connection, NOW.replace(tzinfo=None), 1)


def test_readers_and_writers_of_endpoints_go_on(db: Database) -> None:
    with db.transaction() as connection:
        create_ahead(connection, NOW, 0)
        _account(connection)
    with db.transaction() as busy:
        _insert(busy, NOW)
        busy.execute(text("select count(*) from endpoints"))
        with db.transaction(lock_timeout_ms=500) as connection:
            assert create_ahead(connection, NOW, 1) == ["endpoints_20260616"]
            with db.transaction(lock_timeout_ms=500) as other:  # before the partition is committed
                _insert(other, NOW)


def test_several_at_once_make_each_day_once(db: Database) -> None:
    def make() -> list[str]:
        with db.transaction(lock_timeout_ms=20_000) as connection:
            return create_ahead(connection, NOW, 3)

    with ThreadPoolExecutor(4) as pool:
        made = [future.result() for future in [pool.submit(make) for _ in range(4)]]
    assert sorted(map(len, made)) == [0, 0, 0, 4]


def test_a_new_partition_has_the_keys_and_indexes_of_its_parent(db: Database) -> None:
    with db.transaction() as connection:
        create_ahead(connection, NOW, 0)
        contents = text("""
            select contype::text from pg_constraint
             where conrelid = cast('endpoints_20260615' as regclass) and contype in ('p', 'f')
            union all
            select indexdef from pg_indexes where tablename = 'endpoints_20260615' order by 1""")
        found = list(connection.execute(contents).scalars())
    assert [word for word in found if len(word) == 1] == ["f", "p"]
    assert sum("(account_id, last_tested)" in word for word in found) == 1
    assert sum("(last_tested, id)" in word for word in found) == 1
