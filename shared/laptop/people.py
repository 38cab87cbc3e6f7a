"""Who can sign in on a laptop: Firebase Auth of our own, an operator and a customer of the demo, and the secret with
which erased accounts are remembered."""

import secrets
from pathlib import Path

from sqlalchemy import text

from shared import erasure
from shared.clock import Clock
from shared.database import Database
from shared.errors import Unavailable
from shared.laptop.firebase import FirebaseAuth
from shared.secrets import LocalSecrets
from shared.settings import Settings

# Where Google's own emulator listens; another port where that is taken.
_PORT = 9099


def start(settings: Settings, clock: Clock) -> FirebaseAuth:
    """Firebase Auth with the demo's operator, and its customer where the demo's accounts are there."""
    double = FirebaseAuth(settings.project, clock, port=_PORT)
    database = Database(settings, "keeper-up")
    try:
        with database.transaction(read_only=True) as connection:
            double.add_demo_users(connection.execute(_CUSTOMER).scalar_one_or_none())
    finally:
        database.close()
    return double


def remember_erasures(folder: Path) -> None:
    """Make the key of erased accounts, once: with another one nobody would know them again."""
    store = LocalSecrets(folder)
    try:
        store.get(erasure.KEY)
    except Unavailable:
        store.add(erasure.KEY, secrets.token_urlsafe(32))


# A paying one whom no legal hold keeps.
_CUSTOMER = text("""
    select p.firebase_uid from user_profile p
     where p.stripe_subscription_id is not null
       and not exists (
           select from groundskeeper.legal_hold h where h.account_id = p.account_id and h.released_at is null
       )
     order by p.account_id
     limit 1""")
