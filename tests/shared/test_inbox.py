"""A consumer's inbox: an event is handled once, however often it comes."""

import threading
import uuid

from shared import inbox
from shared.database import Database
from tests.conftest import NOW

ONE, TWO = uuid.uuid4(), uuid.uuid4()


def test_an_event_is_new_once_a_consumer(db: Database) -> None:
    for consumer in ("mail", "search"):
        with db.transaction() as connection:
            assert inbox.first_time(connection, consumer, ONE, NOW)
        with db.transaction() as connection:
            assert not inbox.first_time(connection, consumer, ONE, NOW)


def test_work_that_is_rolled_back_is_not_remembered(db: Database) -> None:
    with db.transaction() as connection:
        assert inbox.first_time(connection, "mail", ONE, NOW)
        connection.rollback()
    with db.transaction() as connection:
        assert inbox.first_time(connection, "mail", ONE, NOW)


def test_of_a_batch_only_what_is_new_is_handled(db: Database) -> None:
    with db.transaction() as connection:
        assert inbox.fresh(connection, "mail", [], NOW) == set()
        assert inbox.fresh(connection, "mail", [ONE, ONE], NOW) == {ONE}
        assert inbox.fresh(connection, "mail", [ONE, TWO], NOW) == {TWO}


def test_of_two_at_once_the_second_waits_and_handles_nothing(db: Database) -> None:
    answers: list[bool] = []

    def second() -> None:
        with db.transaction(lock_timeout_ms=10_000) as connection:
            answers.append(inbox.first_time(connection, "mail", ONE, NOW))

    with db.transaction() as connection:
        assert inbox.first_time(connection, "mail", ONE, NOW)
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        assert answers == []
    thread.join()
    assert answers == [False]
