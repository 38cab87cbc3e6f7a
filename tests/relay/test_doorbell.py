"""The doorbell: what is rung for goes out at once, not with the next tick."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared import pauses
from shared.call import of_slot
from shared.clock import SystemClock
from shared.database import Database
from shared.errors import Outcome
from shared.manifest import FUNCTIONS, Every
from shared.outbox import publish
from shared.result import Result
from shared.settings import Settings
from shared.task import load
from tests.conftest import NOW, as_role
from tests.relay.fixtures import Write
from tests.relay.pubsub_server import PubSubServer

# A tick is every 5 s. What takes longer than this waited for one.
AT_ONCE_S = 1.5


class Moved(SystemClock):
    """The machine's clock, moved so that at first it is `seconds` after `NOW`, which is a full minute."""

    def __init__(self, seconds: float) -> None:
        self._ahead = seconds - time.monotonic()

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self._ahead + time.monotonic())


@pytest.fixture
def awake(
    request: pytest.FixtureRequest, settings: Settings, db: Database, pubsub: PubSubServer
) -> Iterator[list[Result]]:
    """A run in doorbell mode, at work until the end of the test; then its result is in the list. It begins with the
    minute, no tick and no minute's end in the next seconds, or so many seconds later as the parameter says.
    """
    clock = Moved(getattr(request, "param", 0.1))
    environ = {**settings.environ, "PUBSUB_EMULATOR_HOST": pubsub.host, "OUTBOX_MODE": "doorbell"}
    entry = load(FUNCTIONS / "outbox_relay")
    runner = entry.runner(as_role(replace(settings, environ=environ), entry.task.slug), clock)
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(runner.execute(of_slot(Every(5), NOW))))
    thread.start()
    try:
        yield results
    finally:
        with db.transaction() as connection:
            pauses.pause(connection, "outbox_relay", reason="the test is over", by="tester", now=NOW, until=None)
            ring(connection)
        thread.join(20)
        runner.close()
    assert [result.outcome for result in results] == [Outcome.STOPPED]


def ring(connection: Any) -> None:
    connection.execute(text("select pg_notify('groundskeeper_outbox', '')"))


def wait_until(done: Callable[[], bool], seconds: float = 10.0) -> float:
    began = time.monotonic()
    while not done() and time.monotonic() - began < seconds:
        time.sleep(0.01)
    assert done()
    return time.monotonic() - began


def test_an_event_that_is_rung_for_goes_out_at_once_and_one_that_is_not_with_the_next_tick(
    awake: list[Result], write: Write, db: Database, pubsub: PubSubServer
) -> None:
    write(1)
    wait_until(lambda: len(pubsub.taken) == 1)  # by the first sweep or the tick after it: the run is awake
    quiet = write(1)
    time.sleep(0.4)
    assert quiet[0] not in pubsub.ids
    for expected in (3, 4):
        (event,) = write(1)
        with db.transaction() as connection:
            ring(connection)
        assert wait_until(lambda n=expected: len(pubsub.taken) >= n) < AT_ONCE_S
        assert event in pubsub.ids
    assert quiet[0] in pubsub.ids, "a ring sends everything that is due"


@pytest.mark.parametrize("awake", [3.5, 55.5], indirect=True, ids=["beyond the first tick", "after the last tick"])
def test_a_ring_is_heard_in_every_part_of_the_minute(
    awake: list[Result], write: Write, db: Database, pubsub: PubSubServer
) -> None:
    write(1)
    wait_until(lambda: len(pubsub.taken) == 1)
    time.sleep(2)  # over the tick five seconds after the full; or into the last seconds, which have none
    (event,) = write(1)
    with db.transaction() as connection:
        ring(connection)
    assert wait_until(lambda: event in pubsub.ids) < AT_ONCE_S


def test_a_ring_is_heard_at_the_commit_and_not_before(
    awake: list[Result], write: Write, db: Database, pubsub: PubSubServer
) -> None:
    write(1)
    wait_until(lambda: len(pubsub.taken) == 1)
    with db.transaction() as connection:
        ring(connection)
        (event,) = write(1)
        time.sleep(0.4)
        assert event not in pubsub.ids
    assert wait_until(lambda: event in pubsub.ids) < AT_ONCE_S


def test_an_event_of_our_own_rings_by_itself(
    awake: list[Result], write: Write, db: Database, pubsub: PubSubServer
) -> None:
    write(1)
    wait_until(lambda: len(pubsub.taken) == 1)
    with db.transaction() as connection:
        event = publish(connection, topic="service-events", kind="t", data={}, now=NOW)
    assert wait_until(lambda: str(event) in pubsub.ids) < AT_ONCE_S
