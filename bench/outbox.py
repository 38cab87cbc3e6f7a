"""The outbox relay against txoutbox and faststream-outbox, on one PostgreSQL and Google's Pub/Sub emulator.

Each round is drained by a subscriber that counts, finds repeats and checks the order of each key; it runs after the
clock has stopped, alike for all. Latency is from just before the commit to the broker's acknowledgement.
"""

import json
import logging
import os
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from google.cloud import pubsub_v1
from sqlalchemy import text
from txoutbox import RelayConfig

from bench.measure import Ratio, Series, alternate, report
from bench.peers import outbox as peers
from shared import logs, plans
from shared import settings as settings_module
from shared.call import by_hand, of_slot
from shared.clock import SystemClock, rfc3339
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.bus import EmulatorBus, find_emulator
from shared.laptop.postgres import Postgres
from shared.laptop.processes import NotStartedError
from shared.manifest import FUNCTIONS, Every
from shared.migrations import run as migrations
from shared.result import Result
from shared.task import load

PROJECT = "demo-groundskeeper"
EVENTS, PEER_EVENTS, SLOW_EVENTS, KEYS = 20_000, 5_000, 2_000, 500
HISTORY, DRAIN = 300_000, 200_000
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "2"))
LISTENING_S = int(os.environ.get("BENCH_LISTENING_S", "30"))  # of the minute whose latencies are taken, at most 60
TUNED = RelayConfig(batch_size=500, concurrency=200)

_WRITE = text("""
    insert into outbox_event (id, topic, ordering_key, payload, created_at)
    select cast(p ->> 'id' as uuid), :topic, case when :keys > 0 then 'k' || mod(n - 1, :keys) end, p,
           cast(:at as timestamptz) + make_interval(secs => n / 1e6)
      from jsonb_array_elements(cast(:payloads as jsonb)) with ordinality as e (p, n)""")

_LATENCY = text("""
    select extract(epoch from published_at - created_at) * 1000
      from outbox_event
     where payload ->> 'type' = 'latency'""")


class Bench:
    """The servers, and one topic with a subscription that keeps order."""

    def __init__(self, stack: ExitStack) -> None:
        found = find_emulator()
        if found is None:
            raise NotStartedError("the Pub/Sub emulator is not installed: this benchmark is about publishing to it")
        self.url = stack.enter_context(Postgres.temporary()).create_database("bench")
        bus = EmulatorBus(found, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.callback(bus.stop)
        os.environ["PUBSUB_EMULATOR_HOST"] = f"127.0.0.1:{bus.port}"
        variables = {"DATABASE_URL": self.url, "PUBSUB_EMULATOR_HOST": f"127.0.0.1:{bus.port}"}
        self.settings = settings_module.read({**variables, "GOOGLE_CLOUD_PROJECT": PROJECT, "KEEPER_MODE": "enforce"})
        self.db = Database(self.settings, "bench")
        stack.callback(self.db.close)
        for branch in ("groundskeeper", "platform"):
            migrations.upgrade(self.db.engine, branch)
        migrations.stamp_environment(self.db.engine, PROJECT, False, datetime.now(UTC))
        self.subscriber = pubsub_v1.SubscriberClient()
        stack.callback(self.subscriber.close)
        self._topics = peers.publisher(ordered=False)
        stack.callback(self._topics.stop)
        self.topic = self._topics.topic_path(PROJECT, "app-events")
        self.subscription = self.subscriber.subscription_path(PROJECT, "bench")
        self.open()

    def open(self) -> None:
        """Make the topic and its subscription."""
        self._topics.create_topic(name=self.topic)
        self.subscriber.create_subscription(
            request={
                "name": self.subscription,
                "topic": self.topic,
                "enable_message_ordering": True,
                "ack_deadline_seconds": 60,
            }
        )

    def reopen(self) -> None:
        """Both anew: the emulator remembers everything, and at two hundred thousand messages its heap is full."""
        self.subscriber.delete_subscription(subscription=self.subscription)
        self._topics.delete_topic(topic=self.topic)
        self.open()

    def payloads(self, number: int) -> list[dict[str, Any]]:
        """Events of about 300 bytes."""
        now = rfc3339(datetime.now(UTC))
        return [
            {
                "id": str(uuid.uuid4()),
                "type": "thing.happened",
                "occurred_at": now,
                "account_id": f"a{n % 97}",
                "data": {"n": n, "text": "x" * 120},
            }
            for n in range(number)
        ]

    def write(self, payloads: list[dict[str, Any]], *, keys: int = 0) -> None:
        """Write the events to outbox_event."""
        with self.db.transaction() as connection:
            binds = {"topic": "app-events", "keys": keys, "at": datetime.now(UTC), "payloads": json.dumps(payloads)}
            connection.execute(_WRITE, binds)
            connection.execute(text("analyze outbox_event"))

    def relay(self) -> float:
        """Seconds that one run of outbox_relay takes."""
        with self.db.transaction() as connection:
            request = plans.request_run(
                connection, task="outbox_relay", actor="bench", why="a benchmark", now=datetime.now(UTC)
            )
        runner = load(FUNCTIONS / "outbox_relay").runner(self.settings, SystemClock())
        began = time.perf_counter()
        result = runner.execute(by_hand(request))
        seconds = time.perf_counter() - began
        runner.close()
        if result.outcome is not Outcome.OK:
            raise RuntimeError(f"the relay ended {result.outcome.value}: {result.error}")
        return seconds

    def waiting(self) -> bool:
        """Whether an event waits: a run that fills its minute leaves the rest to the next."""
        with self.db.transaction() as connection:
            return bool(connection.scalar(text("select exists (select from outbox_event where published_at is null)")))

    def check(self, payloads: list[dict[str, Any]], *, keys: int = 0) -> None:
        """Take everything from the subscription: each event once, each key in order."""
        order = {payload["id"]: n for n, payload in enumerate(payloads)}
        seen: list[int] = []
        last: dict[str, int] = {}
        while len(seen) < len(payloads):
            pulled = self.subscriber.pull(subscription=self.subscription, max_messages=1000, timeout=30)
            if not pulled.received_messages:
                continue
            for received in pulled.received_messages:
                n = order[received.message.attributes["event_id"]]
                key = received.message.ordering_key
                if key and last.setdefault(key, -1) >= n:
                    raise RuntimeError(f"key {key} came out of order")
                last[key] = n
                seen.append(n)
            acks = [received.ack_id for received in pulled.received_messages]
            self.subscriber.acknowledge(subscription=self.subscription, ack_ids=acks)
        if sorted(seen) != list(range(len(payloads))):
            raise RuntimeError("events were lost or came twice")
        self.reopen()

    def ours(self, number: int, *, keys: int = 0) -> float:
        """Events a second of a whole run: lease, claims, publishing, marks, ledger."""
        payloads = self.payloads(number)
        self.write(payloads, keys=keys)
        rate = number / self.relay()
        self.check(payloads, keys=keys)
        return rate

    def theirs(self, number: int, way: Callable[[list[dict[str, Any]]], float], *, keys: int = 0) -> float:
        """Events a second of a peer."""
        payloads = self.payloads(number)
        rate = way(payloads)
        self.check(payloads, keys=keys)
        return rate


def _latencies(bench: Bench, mode: str, minute: int) -> list[float]:
    """Milliseconds from each of many commits to its acknowledgement, in the last part of a minute's run: of the next
    minute or one after it, so that no other mode had its slot."""
    settings = replace(bench.settings, environ={**bench.settings.environ, "OUTBOX_MODE": mode})
    clock = _BeforeTheFull(LISTENING_S, minute)
    runner = load(FUNCTIONS / "outbox_relay").runner(settings, clock)
    slot = of_slot(Every(5), clock.now())
    ended: list[Result] = []
    thread = threading.Thread(target=lambda: ended.append(runner.execute(slot)))
    thread.start()
    end = time.monotonic() + LISTENING_S - 6  # the last tick, five seconds before the full, finds the last event
    while time.monotonic() < end:
        with bench.db.transaction() as connection:
            values = {"id": uuid.uuid4(), "at": clock.now()}
            connection.execute(
                text("""
                insert into outbox_event (id, topic, payload, created_at)
                values (:id, 'app-events', '{"type": "latency"}', :at)"""),
                values,
            )
            connection.execute(text("select pg_notify('groundskeeper_outbox', '')"))
        time.sleep(0.1)
    thread.join()
    runner.close()
    with bench.db.transaction() as connection:
        found = connection.scalars(_LATENCY).all()
        connection.execute(text("delete from outbox_event"))
    if not ended or ended[0].outcome is not Outcome.OK or None in found:
        how = f"{ended[0].outcome}, {ended[0].error}" if ended else "in a defect"
        raise RuntimeError(f"{mode}: {found.count(None)} of {len(found)} events are unpublished; the run ended {how}")
    return [float(value) for value in found]


class _BeforeTheFull(SystemClock):
    """The machine's clock, moved to so many seconds before the end of the next minute or one after it."""

    def __init__(self, seconds: int, minute: int) -> None:
        now = datetime.now(UTC)
        full = 60 * (1 + minute) - now.second
        self._moved = timedelta(seconds=full - seconds, microseconds=50_000 - now.microsecond)

    def now(self) -> datetime:
        return super().now() + self._moved


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def run() -> dict[str, Any]:
    """Rates beside the peers', then history, a long drain and both modes' latency."""
    logs.configure("stderr", logging.WARNING)  # standard output belongs to the report
    with ExitStack() as stack:
        bench = Bench(stack)
        ways: dict[str, Callable[[], float]] = {
            "relay": lambda: bench.ours(EVENTS),
            "relay, 500 keys": lambda: bench.ours(EVENTS, keys=KEYS),
            "txoutbox 0.2.2, tuned": lambda: bench.theirs(
                PEER_EVENTS, lambda p: peers.txoutbox(bench.url, bench.topic, p, config=TUNED)
            ),
            "txoutbox 0.2.2, 500 keys": lambda: bench.theirs(
                SLOW_EVENTS, lambda p: peers.txoutbox(bench.url, bench.topic, p, keys=KEYS, config=TUNED), keys=KEYS
            ),
            "txoutbox 0.2.2, default": lambda: bench.theirs(
                SLOW_EVENTS, lambda p: peers.txoutbox(bench.url, bench.topic, p)
            ),
            "faststream-outbox 0.19.0": lambda: bench.theirs(
                SLOW_EVENTS, lambda p: peers.faststream(bench.url, bench.topic, p)
            ),
        }
        rates = alternate(ways, unit="events/s", rounds=ROUNDS)
        rest = _history(bench), _drain(bench)
        tick = Series("tick: commit to acknowledgement", "ms", tuple(_latencies(bench, "tick", 1)))
        bell = Series("doorbell: commit to acknowledgement", "ms", tuple(_latencies(bench, "doorbell", 2)))
    history, drain = rest
    median = {name: series.median for name, series in rates.items()}
    ratios = {
        "relay / txoutbox tuned": Ratio(median["relay"] / median["txoutbox 0.2.2, tuned"], 5, least=True),
        "relay / txoutbox, both with keys": Ratio(
            median["relay, 500 keys"] / median["txoutbox 0.2.2, 500 keys"], 10, least=True
        ),
        "relay / faststream-outbox": Ratio(median["relay"] / median["faststream-outbox 0.19.0"], 5, least=True),
        "with a published history / without": Ratio(
            history["with 300,000 published"].median / history["without history"].median, 1.2
        ),
        "tick: p99 in s": Ratio(_p99(list(tick.values)) / 1000, 5.5),
        "doorbell: p99 in s": Ratio(_p99(list(bell.values)) / 1000, 0.3),
    }
    return report("outbox", [*rates.values(), *history.values(), *drain, tick, bell], ratios)


def _history(bench: Bench) -> dict[str, Series]:
    """The seconds of a run of 5,000 events without and with published rows in the table."""

    def timed(published: int) -> float:
        with bench.db.transaction() as connection:
            connection.execute(text("truncate outbox_event"))
        if published:
            bench.write([{"id": str(uuid.uuid4())} for _ in range(published)])
            with bench.db.transaction() as connection:
                connection.execute(text("update outbox_event set published_at = created_at"))
        with bench.db.autocommit(statement_timeout_ms=600_000) as connection:
            connection.execute(text("vacuum outbox_event"))  # a history is of days ago
        payloads = bench.payloads(PEER_EVENTS)  # more, and the emulator's heap is full
        bench.write(payloads)
        seconds = bench.relay()
        bench.check(payloads)
        return seconds

    return alternate(
        {"without history": lambda: timed(0), "with 300,000 published": lambda: timed(HISTORY)}, unit="s", rounds=ROUNDS
    )


def _drain(bench: Bench) -> list[Series]:
    """A backlog of 200,000: seconds here, and the CPU seconds it takes, from which those of a smaller CPU follow."""
    with bench.db.transaction() as connection:
        connection.execute(text("truncate outbox_event"))
    for _ in range(DRAIN // EVENTS):
        bench.write(bench.payloads(EVENTS))
    bench.subscriber.delete_subscription(subscription=bench.subscription)  # the emulator's heap is too small for it
    cpu, seconds = time.process_time(), 0.0
    while bench.waiting():
        seconds += bench.relay()
    used = time.process_time() - cpu
    size = load(FUNCTIONS / "outbox_relay").task.run.cpu
    return [
        Series("drain of 200,000", "s", (seconds,)),
        Series("drain of 200,000: the relay's CPU", "s", (used,)),
        Series(f"drain of 200,000 at the deployed {size:g} vCPU, from the CPU", "s", (used / size,)),
    ]
