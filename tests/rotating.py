"""What tests of rotations need: a store with each kind of secret, Slack and a consumer, and approved runs."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from shared import plans, secrets
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.ports import free_ports
from shared.laptop.stripe_server import StripeServer
from shared.laptop.stripe_store import Store
from shared.result import Result
from shared.rotation.postgres import verifier
from shared.secrets import LocalSecrets
from shared.settings import Settings
from tests.conftest import ManualClock, RunTask

Rows = Callable[..., list[Any]]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FIRST = datetime(2026, 7, 1, tzinfo=UTC)
URL = "https://app.example.com/api/v1/stripe/webhook"
KEY = "sk_test_rotation"
OWNER, LOGINS = "rot_owner", ("rot_a", "rot_b")
DATABASE = {
    "secret": "app-database-url", "rotator": "postgres", "owner": OWNER, "logins": list(LOGINS), "consumers": "Restart."
}  # fmt: skip
TOKEN = {"secret": "internal-api-token", "rotator": "generated", "consumers": "Both are taken."}
WEBHOOK = {"secret": "stripe-webhook-secret", "rotator": "stripe_webhook", "consumers": "Both."}
MANUAL = {"secret": "stripe-api-key", "rotator": "manual", "consumers": "Roll it in the dashboard."}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(FIRST)


@pytest.fixture
def store(settings: Settings) -> LocalSecrets:
    found = secrets.store(settings)
    assert isinstance(found, LocalSecrets)
    return found


def states(store: LocalSecrets, name: str) -> list[str]:
    return [version.state for version in store.versions(name)]


class Web:
    """Slack, and a consumer's check address: what was posted, and what each answers."""

    def __init__(self) -> None:
        self.posted: list[str] = []
        self.bearers: list[str] = []
        self.slack_status, self.check_status = 200, 200
        self.url = self.check = ""


@pytest.fixture
def web() -> Iterator[Web]:
    with _served(Web()) as served:
        yield served


@contextmanager
def _served(web: Web) -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            web.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self._answer(web.slack_status)

        def do_GET(self) -> None:
            web.bearers.append(self.headers["Authorization"].removeprefix("Bearer "))
            self._answer(web.check_status)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", next(free_ports())), Handler)
    web.check = f"http://127.0.0.1:{server.server_port}/check"
    web.url = f"http://127.0.0.1:{server.server_port}/services/T0/B0/slackpath"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def database_login(db: Database, settings: Settings, store: LocalSecrets) -> Iterator[str]:
    """An application's owner and first login; our role may manage them. The URL in the secret."""
    with db.transaction() as connection:
        connection.exec_driver_sql(f"create role {OWNER} nologin")
        connection.exec_driver_sql('alter role "rotate-secrets" createrole')
        connection.exec_driver_sql(f'grant {OWNER} to "rotate-secrets" with admin option')
        connection.exec_driver_sql(
            f"create role {LOGINS[0]} login password '{verifier('first', b'salt of sixteen')}' role \"rotate-secrets\""
        )
        connection.exec_driver_sql(f'grant {LOGINS[0]} to "rotate-secrets" with admin option')
        connection.exec_driver_sql(f"grant {OWNER} to {LOGINS[0]}")
        connection.exec_driver_sql(f"grant create on schema public to {OWNER}")
    url = make_url(settings.database()).set(username=LOGINS[0], password="first").render_as_string(hide_password=False)
    store.add("app-database-url", url)
    yield url
    with db.transaction() as connection:
        for role in (*LOGINS, OWNER):
            if connection.execute(text("select 1 from pg_roles where rolname = :r"), {"r": role}).first():
                connection.exec_driver_sql(f"drop owned by {role} cascade")
                connection.exec_driver_sql(f"drop role {role}")
        connection.exec_driver_sql('alter role "rotate-secrets" nocreaterole')


@pytest.fixture
def stripe(clock: ManualClock, store: LocalSecrets) -> Iterator[StripeServer]:
    made = Store(clock)
    server = StripeServer(made, key=KEY)
    first = made.endpoint(URL, ["customer.subscription.updated"], secret="whsec_the_first_one")
    assert first["url"] == URL
    made.endpoint("https://elsewhere.example.com/", ["*"])
    store.add("stripe-webhook-secret", "whsec_the_first_one")
    store.add("stripe-api-key", KEY)
    yield server
    server.stop()


class Rotate:
    """Runs of rotate_secrets with these targets."""

    def __init__(self, run_task: RunTask, db: Database, clock: ManualClock, params: dict[str, Any]) -> None:
        self._run_task, self._db, self._clock, self.params = run_task, db, clock, params

    def run(self, **params: Any) -> Result:
        return self._run_task("rotate_secrets", params={**self.params, **params})

    def decide(self, *, approve: bool = True) -> plans.Approval:
        with self._db.transaction() as connection:
            (waiting,) = plans.pending(connection, self._clock.now())
            return plans.decide(
                connection,
                waiting.approval_id,
                approve=approve,
                by="ann",
                why="seen",
                now=self._clock.now(),
                operators=(),
            )

    def approved(self) -> Result:
        with self._db.transaction() as connection:
            plan_hash = connection.execute(
                text("select plan_hash from groundskeeper.approval where used_by_run is null")
            ).scalar_one()
            params = plans.stored(connection, plan_hash).params
        return self._run_task("rotate_secrets", plan_hash=plan_hash, params=params)

    def through(self, **params: Any) -> Result:
        """Ask, decide, run what was approved."""
        assert self.run(**params).outcome is Outcome.WAITING
        self.decide()
        return self.approved()


@pytest.fixture
def rotate(run_task: RunTask, db: Database, clock: ManualClock, web: Web, store: LocalSecrets) -> Callable[..., Rotate]:
    store.add("alert-slack-url", web.url)

    def of(*targets: dict[str, Any], **params: Any) -> Rotate:
        return Rotate(run_task, db, clock, {"targets": list(targets), **params})

    return of


def connects(url: str, settings: Settings) -> str | None:
    """As whom one acts who logs in with `url`; None: one cannot."""
    database = Database(replace(settings, database_url=url), "test", pool_size=1)
    try:
        with database.transaction() as connection:
            return str(connection.execute(text("select cast(current_user as text)")).scalar_one())
    except DBAPIError:
        return None
    finally:
        database.close()
