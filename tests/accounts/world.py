"""Accounts with rows in every table that can hold their data, and the parts a deletion talks to."""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from shared import erasure, schema
from shared.call import Call, Request, of_request
from shared.database import Database
from shared.laptop.firebase import FirebaseAuth
from shared.laptop.stripe_server import StripeServer
from shared.laptop.stripe_store import Store as StripeStore
from shared.manifest import Http, load_all
from shared.platform.tables import METADATA as PLATFORM
from shared.redaction import register
from shared.secrets import LocalSecrets
from tests.conftest import ManualClock

PROJECT = "demo-groundskeeper"
KEY = "the key of erased accounts in a test"
STRIPE_KEY = "sk_test_deletions"
PATH = "/api/v1/auth/delete-account"

TABLES = {t.fullname: t for m in (PLATFORM, schema.metadata) for t in m.tables.values()}


@dataclass
class World:
    """The parts; `account` makes one with everything."""

    db: Database
    clock: ManualClock
    firebase: FirebaseAuth
    stripe: StripeServer
    stripe_store: StripeStore
    objects: Path

    def account(self, name: str, *, rows: int = 2, customer: bool = True) -> str:
        """An account `name` (letters and digits): a user, `rows` rows everywhere, objects, a subscription; its id."""
        uid, now = f"uid-{name}", self.clock.now()
        self.firebase.users.add(f"{name}@example.com", "a password", uid=uid)
        stripe_id = None
        if customer:
            made = self.stripe_store.customer({"metadata": {}}, f"cus{name}")
            stripe_id = made["id"]
            price = self.stripe_store.price(
                {"currency": "eur", "unit_amount": "900", "recurring": {"interval": "month"}}
            )
            self.stripe_store.subscription(stripe_id, [price["id"]])
        with self.db.transaction() as connection:
            fill(connection, name, uid, stripe_id, rows, now)
        for bucket in ("general", "telemetry"):
            place = self.objects / bucket / "accounts" / name
            place.mkdir(parents=True)
            for n in range(rows):
                (place / f"{n}.bin").write_bytes(name.encode())
        for n in range(rows):
            report = self.objects / "telemetry" / "lighthouse" / f"{name}-{n}.json"
            report.parent.mkdir(exist_ok=True)
            report.write_bytes(name.encode())
        return name

    def call(self, method: str, path: str = PATH, *, token: str | None, **headers: str) -> Call:
        """The call of an HTTP request."""
        given = {"authorization": f"Bearer {token}"} if token is not None else {}
        endpoint = next(t for t in load_all()["delete_account"].triggers if isinstance(t, Http) and method in t.methods)
        return of_request(Request(method, path, {}, {**given, **headers}, b""), endpoint)

    def token(self, name: str, *, signed_in_ago: int = 0) -> str:
        return self.firebase.users.token(f"uid-{name}", signed_in_ago=signed_in_ago)

    def traces(self, name: str) -> dict[str, int]:
        """Rows of any table in which `name` stands anywhere, by table; the walk over every table there is."""
        each = (f"select '{table}', count(*) from {table} t where cast(t as text) like :mark" for table in TABLES)
        with self.db.transaction() as connection:
            found = connection.execute(text(" union all ".join(each)), {"mark": f"%{name}%"})
            return {table: count for table, count in found if count}

    def files(self, name: str) -> list[str]:
        """Objects of `name`, in any bucket."""
        return sorted(str(p) for p in self.objects.rglob("*") if p.is_file() and name.encode() in p.read_bytes())


def fill(connection: Connection, name: str, uid: str, customer: str | None, rows: int, now: datetime) -> None:
    """Rows of `name` in every table that can hold an account's data."""

    def add(sql: str, **binds: Any) -> int:
        found = connection.execute(text(sql), {"a": name, "now": now, **binds})
        return found.scalar_one() if found.returns_rows else 0

    add(
        "insert into user_profile (account_id, firebase_uid, email, display_name, tier, stripe_customer_id, created_at,"
        " updated_at) values (:a, :uid, :email, :a, 'pro', :customer, :now, :now)",
        uid=uid, email=f"{name}@example.com", customer=customer,
    )  # fmt: skip
    key = add(
        "insert into data_encryption_key (wrapped_key, kek, created_at, state) values ('x', 'kek/1', :now, 'retired')"
        " returning id"
    )
    for n in range(rows):
        mark = f"{name}-{n}"
        page = add(
            "insert into status_page (account_id, slug, title, url, created_at, updated_at)"
            " values (:a, :mark, :a, :mark, :now, :now) returning id", mark=mark,
        )  # fmt: skip
        service = add(
            "insert into monitored_service (account_id, status_page_id, name, url, created_at)"
            " values (:a, :page, :a, :mark, :now) returning id", page=page, mark=mark,
        )  # fmt: skip
        add(
            "insert into incident (account_id, service_id, severity, cause, started_at)"
            " values (:a, :service, 'minor', :a, :now)", service=service,
        )  # fmt: skip
        add(
            "insert into endpoints (last_tested, id, account_id, service_id, url) values (:now, :id, :a, :service, :a)",
            id=uuid.uuid4(), service=service,
        )  # fmt: skip
        add(
            "insert into aggregated_analytics (account_id, service_id, granularity, bucket_start, requests, errors,"
            " updated_at) values (:a, :service, 'hour', :now, 1, 0, :now)", service=service,
        )  # fmt: skip
        add(
            "insert into service_forecast (service_id, account_id, version, made_at, breach_probability)"
            " values (:service, :a, 'v', :now, 0.5)", service=service,
        )  # fmt: skip
        add(
            "insert into lighthouse_scan (account_id, status_page_id, url, report, scanned_at)"
            " values (:a, :page, :a, :report, :now)", page=page, report=f"lighthouse/{mark}.json",
        )  # fmt: skip
        add("insert into audit_log (account_id, actor, action, created_at) values (:a, :a, 'login', :now)")
        add(
            "insert into integration_credential (account_id, provider, dek_id, nonce, ciphertext, created_at,"
            " updated_at) values (:a, :mark, :key, 'n', 'c', :now, :now)", mark=mark, key=key,
        )  # fmt: skip
        for table in ("outbox_event", "groundskeeper.outbox"):
            add(
                f"insert into {table} (id, topic, payload, created_at) values (:id, 'app-events', :payload, :now)",
                id=uuid.uuid4(), payload=json.dumps({"account_id": name}),
            )  # fmt: skip
        add(
            "insert into bug_report (account_id, reporter_email, ip_address, user_agent, title, body, created_at)"
            " values (:a, :email, '192.0.2.1', :a, 'It breaks', 'when I press it', :now)", email=f"{name}@example.com",
        )  # fmt: skip
        add(
            "insert into threat_report (account_id, reporter_email, ip_address, indicator_type, indicator, description,"
            " created_at) values (:a, :email, '192.0.2.1', 'domain', 'evil.example', 'it phishes', :now)",
            email=f"{name}@example.com",
        )  # fmt: skip
        add(
            "insert into groundskeeper.billing_event (event_id, type, customer_id, account_id, occurred_at,"
            " received_at, outcome, attempts)"
            " values (:id, 'customer.subscription.updated', :customer, :account, :now, :now, 'done', 1)",
            id=f"evt_{uuid.uuid4().hex}", customer=customer, account=None if customer and n else name,
        )  # fmt: skip
    add("insert into groundskeeper.billing_grant (account_id, tier, recorded_at) values (:a, 'pro', :now)")
    if customer:
        add(
            "insert into groundskeeper.billing_customer (customer_id, account_id) values (:customer, :a)",
            customer=customer,
        )


def secrets_of(folder: Path, *, stripe: bool = True) -> None:
    """The secrets a deletion reads."""
    store = LocalSecrets(folder)
    store.add(erasure.KEY, KEY)
    if stripe:
        store.add("stripe-api-key", STRIPE_KEY)
    register(KEY)


def make_partition(connection: Connection, now: datetime) -> None:
    """A place for the telemetry of these tests, owned as the table is."""
    owner = connection.execute(text("select tableowner from pg_tables where tablename = 'endpoints'")).scalar_one()
    first, last = (
        moment.strftime("%Y-%m-%d 00:00+00") for moment in (now - timedelta(days=9), now + timedelta(days=9))
    )
    connection.execute(
        text(f"create table endpoints_now partition of endpoints for values from ('{first}') to ('{last}')")
    )
    connection.execute(text(f'alter table endpoints_now owner to "{owner}"'))


Snapshot = Mapping[str, list[str]]


def snapshot(db: Database, *, without: str) -> Snapshot:
    """Every row of every table of the platform and of billing in which `without` does not stand."""
    read: Callable[[str], bool] = lambda table: not table.startswith("groundskeeper.") or "billing" in table  # noqa: E731
    with db.transaction() as connection:
        return {
            table: sorted(
                connection.execute(
                    text(f"select cast(t as text) from {table} t where cast(t as text) not like :mark"),
                    {"mark": f"%{without}%"},
                ).scalars()
            )
            for table in TABLES
            if read(table)
        }
