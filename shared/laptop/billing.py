"""The laptop's Stripe: the double with the demo's customers, its key and webhook secret where the tasks look for them.

It is started where nobody stored a key of their own. What it knows outlives the plane, in a file beside the database.
"""

from pathlib import Path

from sqlalchemy import Connection, text

from shared.billing.client import DOUBLES_KEY
from shared.clock import Clock
from shared.database import Database
from shared.errors import Unavailable
from shared.laptop.processes import Part
from shared.laptop.stripe_hooks import Deliveries
from shared.laptop.stripe_server import StripeServer
from shared.laptop.stripe_store import Store
from shared.secrets import LocalSecrets
from shared.settings import Settings

VARIABLE = "STRIPE_EMULATOR_HOST"
_API_KEY, _HOOK = "stripe-api-key", "stripe-webhook-secret"  # the secrets' names
_PORT = 12111
_PATH = "/api/v1/stripe/webhook"
_KINDS = (
    "checkout.session.completed",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
)
PRO_MONTHLY, PRO_YEARLY = "price_pro_monthly", "price_pro_yearly"


class Double:
    """The running double."""

    def __init__(self, store: Store, secret: str, port: int) -> None:
        self.store, self._secret = store, secret
        self._server = StripeServer(store, key=DOUBLES_KEY, per_second=100, port=port)
        self._deliveries: Deliveries | None = None
        self.host = self._server.url.removeprefix("http://")

    @property
    def part(self) -> Part:
        return Part("billing", "a double of Stripe: its page shows and ends subscriptions", self._server.url)

    def deliver_to(self, functions: str) -> None:
        """Send what happens to the webhook at the address `functions`, signed, until it is taken."""
        for endpoint in self.store.newest("webhook_endpoint"):
            if endpoint["url"].endswith(_PATH):  # of an earlier plane, maybe at another port
                self.store.delete_endpoint(endpoint["id"])
        self.store.endpoint(functions + _PATH, _KINDS, secret=self._secret)
        self._deliveries = Deliveries(self.store, self.store.clock)

    def stop(self) -> None:
        """End it; what it knows stays."""
        if self._deliveries is not None:
            self._deliveries.stop()
        self._server.stop()
        self.store.save()


def start(settings: Settings, clock: Clock, file: Path, port: int = _PORT) -> Double | None:
    """The double, filled from the accounts there are; None where a key of somebody's own is stored, or in live mode."""
    if settings.secrets_folder is None or settings.livemode:
        return None
    secrets = LocalSecrets(settings.secrets_folder)
    if _stored(secrets, _API_KEY) not in (None, DOUBLES_KEY):
        return None
    if _stored(secrets, _API_KEY) is None:
        secrets.add(_API_KEY, DOUBLES_KEY)
    store = Store(clock, file=file)
    secret = _stored(secrets, _HOOK)
    if secret is None:
        secret = "whsec_ofthelaptopsdouble"  # noqa: S105 - signs nothing but the double's events
        secrets.add(_HOOK, secret)
    database = Database(settings, "keeper-up")
    try:
        with database.transaction(read_only=True) as connection:
            fill(store, connection)
    finally:
        database.close()
    store.save()
    return Double(store, secret.split()[0], port)


def _stored(secrets: LocalSecrets, name: str) -> str | None:
    try:
        return secrets.get(name)
    except Unavailable:
        return None


_CUSTOMERS = text("""
    select stripe_customer_id, stripe_subscription_id, created_at
      from user_profile
     where stripe_customer_id is not null
     order by account_id""")


def fill(store: Store, connection: Connection) -> None:
    """Give the double the customers that accounts have and it does not know, with what they subscribe to.

    A new double gets two things wrong on purpose, for the night's sweep to find: a subscriber has left, and a former
    one is back, and nobody was told.
    """
    new = not store.newest("price")
    if new:
        store.price({"unit_amount": "900", "lookup_key": "pro_monthly", "product_data": {"name": "Pro"}}, PRO_MONTHLY)
        store.price({"unit_amount": "9000", "lookup_key": "pro_yearly", "recurring": {"interval": "year"}}, PRO_YEARLY)
    known = {one["id"] for one in store.newest("customer")}
    rows = [row for row in connection.execute(_CUSTOMERS) if row.stripe_customer_id not in known]
    for row in rows:
        store.customer({}, row.stripe_customer_id)
        since = int(row.created_at.timestamp())
        status = "active" if row.stripe_subscription_id else "canceled"
        wished = row.stripe_subscription_id
        store.subscription(row.stripe_customer_id, [PRO_MONTHLY], status=status, wished=wished, since=since)
    subscribers = [row for row in rows if row.stripe_subscription_id]
    former = [row for row in rows if not row.stripe_subscription_id]
    if new and subscribers and former:
        store.cancel(subscribers[-1].stripe_subscription_id)
        store.subscription(former[0].stripe_customer_id, [PRO_YEARLY])
