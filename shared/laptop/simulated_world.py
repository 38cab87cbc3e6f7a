"""What lies outside while a month is simulated: a Stripe whose customers come and go unheard of, and a keyring whose
keys seal credentials; and what must be true of both in the end."""

import random
from collections.abc import Container, Iterator
from datetime import timedelta
from pathlib import Path

from sqlalchemy import text

from shared.clock import Clock
from shared.database import Database
from shared.keys import kms
from shared.keys.credentials import Credentials
from shared.laptop import billing, demo_credentials, people
from shared.laptop.billing import PRO_MONTHLY
from shared.laptop.ports import free_ports
from shared.laptop.simulated import Invariant
from shared.settings import Settings

# A key is due at 30 days, looked at daily.
_OLDEST_KEY = timedelta(days=31)


class World:
    """What is outside the plane. No event of it is delivered: the night's sweep has to find out."""

    def __init__(self, settings: Settings, database: Database, clock: Clock, folder: Path) -> None:
        """In `folder` the double keeps what it knows; `clock` is the simulation's."""
        self._database, self._clock = database, clock
        self._keyring = settings.environ.get("KEEPER_KEY_KEK")  # there where a simulated task declares the key
        if settings.secrets_folder is not None:
            people.remember_erasures(settings.secrets_folder)
        if self._keyring:
            demo_credentials.load(database.engine, clock.now(), self._keyring)
        double = billing.start(settings, clock, folder / "stripe.json", port=next(free_ports()))
        assert double is not None  # the folder is ours, so no key of anybody's is in it
        self._stripe = double

    @property
    def environment(self) -> dict[str, str]:
        """Where the tasks find it."""
        return {billing.VARIABLE: self._stripe.host}

    def day(self, chance: random.Random) -> None:
        """Somebody ends a subscription, and somebody who had none begins one."""
        store = self._stripe.store
        paying = [one for one in store.newest("subscription") if one["status"] == "active"]
        idle = sorted({one["id"] for one in store.newest("customer")} - {one["customer"] for one in paying})
        store.cancel(chance.choice(paying)["id"])
        store.subscription(chance.choice(idle), [PRO_MONTHLY])

    def invariants(self, tasks: Container[str]) -> Iterator[Invariant]:
        """What was promised, and what was found."""
        if "sync_subscriptions" in tasks:
            yield self._billing_converged()
        if "dek_compliance" in tasks:
            yield from self._keys_converged()

    def stop(self) -> None:
        """End it."""
        self._stripe.stop()

    def _billing_converged(self) -> Invariant:
        with self._database.transaction(read_only=True) as connection:
            rows = connection.execute(_TIERS).all()
        paying = {one["customer"] for one in self._stripe.store.newest("subscription") if one["status"] == "active"}
        wrong = sum((row.tier == "pro") != (row.stripe_customer_id in paying) for row in rows)
        return Invariant(
            "every customer has the tier that Stripe says", not wrong, f"{len(rows)} customers, {wrong} have another"
        )

    def _keys_converged(self) -> Iterator[Invariant]:
        with self._database.transaction(read_only=True) as connection:
            keys = connection.execute(_ACTIVE_KEYS).scalars().all()
            elsewhere = connection.execute(_ELSEWHERE).scalar_one()
            sealed = connection.execute(_SEALED).all()
            credentials = Credentials(kms.at(self._keyring or ""))
            opened = sum(
                credentials.read(connection, account_id=row.account_id, provider=row.provider)
                == demo_credentials.value_of(row.account_id, row.provider)
                for row in sealed
            )
        young = all(self._clock.now() - made <= _OLDEST_KEY for made in keys)
        yield Invariant(
            "one data key is active, and it is not overdue", len(keys) == 1 and young, f"{len(keys)} active"
        )
        yield Invariant(
            "every credential is sealed with it and opens",
            not elsewhere and opened == len(sealed) > 0,
            f"{len(sealed)} credentials, {opened} open, {elsewhere} under another key",
        )


# A tier given by hand is nobody's to take.
_TIERS = text("""
    select p.stripe_customer_id, p.tier
      from user_profile p
     where p.stripe_customer_id is not null
       and not exists (select 1 from groundskeeper.billing_grant g
                        where g.account_id = p.account_id and g.ended_at is null)""")

_ACTIVE_KEYS = text("select created_at from data_encryption_key where state = 'active'")

_ELSEWHERE = text("""
    select count(*)
      from integration_credential c join data_encryption_key k on k.id = c.dek_id
     where k.state <> 'active'""")

_SEALED = text("select account_id, provider from integration_credential order by account_id, provider")
