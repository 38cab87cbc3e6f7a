"""Billing: the calls and the diff of a sweep, and webhooks under load, against the laptop's Stripe.

The double answers unchecked here, and shares the machine: a delivery's latency holds its own answer too.
"""

import logging
import os
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import text

from bench.measure import Ratio, Series, report
from shared import logs, manifest, plans
from shared import settings as settings_module
from shared.billing import sweep
from shared.billing.sweep import Listing
from shared.billing.tiers import Standing
from shared.call import by_hand
from shared.clock import SystemClock
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.functions import Functions, OneProcess
from shared.laptop.postgres import Postgres
from shared.laptop.stripe_hooks import signed
from shared.laptop.stripe_server import StripeServer
from shared.laptop.stripe_store import Store
from shared.manifest import FUNCTIONS
from shared.migrations import run as migrations
from shared.secrets import LocalSecrets
from shared.task import load

_KEY, _HOOK = "sk_test_bench0123456", "whsec_bench"
_SUBSCRIPTIONS = 2_000
_USERS = (20_000, 100_000, 300_000)
_CUSTOMERS, _AT_ONCE, _DELIVERIES, _BURST = 200, 50, 500, 1_000
_ROUNDS = 5


class _Bench:
    """A migrated platform, the double, and the webhook behind functions-framework."""

    def __init__(self, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Postgres.temporary())
        self.clock = SystemClock()
        self.store = Store(self.clock)
        self.stripe = StripeServer(self.store, key=_KEY, checked=False)
        stack.callback(self.stripe.stop)
        secrets = LocalSecrets(folder / "secrets")
        secrets.add("stripe-api-key", _KEY)
        secrets.add("stripe-webhook-secret", _HOOK)
        self.environ = {
            "DATABASE_URL": server.create_database("bench"),
            "KEEPER_MODE": "enforce",
            "KEEPER_BACKUP_GATE_HOURS": "0",
            "KEEPER_SECRETS": str(folder / "secrets"),
            "STRIPE_EMULATOR_HOST": self.stripe.url.removeprefix("http://"),
        }
        self.settings = settings_module.read(self.environ)
        self.database = Database(self.settings, "bench")
        stack.callback(self.database.close)
        for branch in ("groundskeeper", "platform"):
            migrations.upgrade(self.database.engine, branch)
        migrations.stamp_environment(self.database.engine, "demo-groundskeeper", False, self.clock.now())

    def execute(self, sql: str, **binds: Any) -> None:
        with self.database.transaction(statement_timeout_ms=600_000) as connection:
            connection.execute(text(sql), binds)

    def accounts(self, count: int) -> None:
        """`count` accounts, half of them subscribers; statistics as autovacuum would have them."""
        self.execute("truncate user_profile cascade")
        self.execute("truncate groundskeeper.billing_customer")
        self.execute(
            """insert into user_profile (account_id, firebase_uid, email, tier, stripe_customer_id,
                                         stripe_subscription_id, created_at, updated_at)
               select 'a' || n, 'f' || n, 'a' || n || '@example.com',
                      case when mod(n, 2) = 0 then 'pro' else 'free' end,
                      'cus_' || n, case when mod(n, 2) = 0 then 'sub_' || n end, :now, :now
                 from generate_series(1, :count) n""",
            count=count,
            now=self.clock.now(),
        )
        self.execute("analyze user_profile")

    def subscribe(self, count: int) -> None:
        """At Stripe, what `accounts(count)` says."""
        self.store.price({"unit_amount": "900", "lookup_key": "pro_monthly"}, "price_pro")
        for n in range(1, count + 1):
            self.store.customer({}, f"cus_{n}")
            status = "active" if n % 2 == 0 else "canceled"
            self.store.subscription(f"cus_{n}", ["price_pro"], status=status, wished=f"sub_{n}")

    def sweep(self) -> Any:
        with self.database.transaction() as connection:
            request_id = plans.request_run(
                connection, task="sync_subscriptions", actor="bench", why="bench", now=self.clock.now()
            )
        runner = load(FUNCTIONS / "sync_subscriptions").runner(self.settings, self.clock)
        try:
            return runner.execute(by_hand(request_id))
        finally:
            runner.close()


def _pages(count: int, *, different: int) -> Iterator[list[tuple[str, Standing]]]:
    """What Stripe would say of `accounts(count)`, 100 at a time, all but `different` of it as it is here."""
    for first in range(1, count + 1, 100):
        yield [_standing(n, pays=(n % 2 == 0) != (n <= different)) for n in range(first, min(first + 100, count + 1))]


def _standing(n: int, *, pays: bool) -> tuple[str, Standing]:
    subscription = f"sub_{n}"
    rank = f"{int(pays)}{2 if pays else 0:02d}{1_700_000_000 + n:011d}{subscription}"
    tier, given = ("pro", subscription) if pays else ("free", None)
    return f"cus_{n}", Standing(rank, tier, given, "active" if pays else "canceled")


@contextmanager
def _listed(bench: _Bench, count: int, *, different: int) -> Iterator[Listing]:
    """Those pages, taken in as the sweep takes them in."""
    with bench.database.autocommit() as connection:
        connection.exec_driver_sql(sweep.TABLES)
        listing = Listing(connection)
        for page in _pages(count, different=different):
            listing.add(page)
        yield listing


def _timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _diff(bench: _Bench, series: list[Series], ratios: dict[str, Ratio]) -> None:
    for count in _USERS:
        bench.accounts(count)
        begun = time.perf_counter()
        with _listed(bench, count, different=50) as listing:
            took = time.perf_counter() - begun
            series.append(Series(f"listing of {count:,} customers, without Stripe", "customers/s", (count / took,)))
            seconds = []
            for _ in range(_ROUNDS + 1):
                listing.connection.exec_driver_sql("truncate swept")
                begun = time.perf_counter()
                listing.finish()
                found = sweep.drift(listing)
                seconds.append(time.perf_counter() - begun)
                assert len(found.changes) == 50
        rates = tuple(count / s for s in seconds[1:])
        series.append(Series(f"diff of {count:,} accounts, 50 differ", "users/s", rates))
        if count == 100_000:
            ratios["diff: users a second, in millions"] = Ratio(series[-1].median / 1e6, 0.5, least=True)
    peaks = [_peak(bench, count) for count in _USERS[:2]]
    for count, peak in zip(_USERS[:2], peaks, strict=True):
        series.append(Series(f"memory of a listing and diff of {count:,} customers", "MiB", (peak,)))
    ratios[f"memory: {_USERS[1]:,} customers over {_USERS[0]:,}"] = Ratio(peaks[1] / peaks[0], 1.2)


def _peak(bench: _Bench, count: int) -> float:
    """The most memory in use at once, in MiB; nothing differs."""
    bench.accounts(count)
    tracemalloc.start()
    with _listed(bench, count, different=0) as listing:
        listing.finish()
        assert not sweep.drift(listing).changes
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return peak


def _calls(bench: _Bench, series: list[Series], ratios: dict[str, Ratio]) -> None:
    bench.stripe.reset(Store(bench.clock))
    bench.store = bench.stripe.store
    bench.accounts(_SUBSCRIPTIONS)
    bench.subscribe(_SUBSCRIPTIONS)
    bench.stripe.calls.clear()
    seconds = []
    for _ in range(3):
        result: Any = None

        def run() -> None:
            nonlocal result
            result = bench.sweep()

        seconds.append(_timed(run))
        assert result.outcome is Outcome.OK, result.error
        assert result.counts["drift"] == 0
    calls = len(bench.stripe.calls) / 3
    series.append(Series(f"sweep of {_SUBSCRIPTIONS:,} subscriptions, nothing differs", "s", tuple(seconds)))
    ratios["sweep: calls over ceil(N/100)+2"] = Ratio(calls / (ceil(_SUBSCRIPTIONS / 100) + 2), 1.0)


def _webhooks(bench: _Bench, stack: ExitStack, series: list[Series], ratios: dict[str, Ratio]) -> None:
    os.environ.update(bench.environ)
    functions = Functions()
    stack.callback(functions.stop)
    logging.getLogger("groundskeeper").setLevel(logging.ERROR)
    bench.accounts(_CUSTOMERS)
    bench.subscribe(_CUSTOMERS)
    functions.serve({"stripe_webhook": manifest.load(FUNCTIONS / "stripe_webhook")}, OneProcess())
    url = f"{functions.base}/api/v1/stripe/webhook"
    events = [
        bench.store.change(f"sub_{n % _CUSTOMERS + 1}", metadata={"n": str(n)}) and bench.store.newest("event")[0]
        for n in range(_DELIVERIES + _BURST)
    ]
    web = threading.local()

    def post(event: Any) -> tuple[int, float]:
        if not hasattr(web, "session"):
            web.session = requests.Session()
        body, headers = signed(event, [_HOOK], int(time.time()))
        begun = time.perf_counter()
        answer = web.session.post(url, data=body, headers=headers, timeout=60)
        return answer.status_code, time.perf_counter() - begun

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        begun = time.perf_counter()
        answers = list(pool.map(post, events[:_DELIVERIES]))
        rate = _DELIVERIES / (time.perf_counter() - begun)
    assert {status for status, _ in answers} == {200}
    took = sorted(seconds * 1000 for _, seconds in answers)
    series.append(Series(f"webhook, {_AT_ONCE} at once: median", "ms", (took[len(took) // 2],)))
    series.append(Series(f"webhook, {_AT_ONCE} at once: 95th of a hundred", "ms", (took[int(len(took) * 0.95)],)))
    series.append(Series(f"webhook, {_AT_ONCE} at once", "events/s", (rate,)))
    waiting, rounds, again = events[_DELIVERIES:], 0, 0
    with ThreadPoolExecutor(200) as pool:
        begun = time.perf_counter()
        while waiting and rounds < 20:
            answers = list(pool.map(post, waiting))
            waiting = [event for event, (status, _) in zip(waiting, answers, strict=True) if status != 200]
            again += len(waiting)
            rounds += 1
        seconds = time.perf_counter() - begun
    with bench.database.transaction(read_only=True) as connection:
        kept = connection.execute(
            text("select count(*) from groundskeeper.billing_event where outcome = 'done'")
        ).scalar_one()
    series.append(Series(f"burst of {_BURST:,}: until all are taken", "s", (seconds,)))
    series.append(Series(f"burst of {_BURST:,}: told to come again", "events", (float(again),)))
    ratios["burst: events lost"] = Ratio(float(_DELIVERIES + _BURST - kept), 0.0)


def run() -> dict[str, Any]:
    """The sweep's calls, the diff's speed and memory, and webhooks at once and in a burst."""
    series: list[Series] = []
    ratios: dict[str, Ratio] = {}
    logs.configure("stderr", logging.ERROR)  # standard output belongs to the report
    with ExitStack() as stack:
        bench = _Bench(stack)
        _webhooks(bench, stack, series, ratios)
        _diff(bench, series, ratios)
        _calls(bench, series, ratios)
    return report("stripe", series, ratios)
