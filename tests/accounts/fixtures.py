"""Fixtures of what deletes accounts: doubles of Firebase and Stripe, secrets, and a world to make accounts in."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.database import Database
from shared.laptop.firebase import VARIABLE, FirebaseAuth
from shared.laptop.stripe_server import StripeServer
from shared.laptop.stripe_store import Store as StripeStore
from shared.settings import Settings
from tests.accounts import world as worlds
from tests.accounts.world import World
from tests.conftest import ManualClock, RunTask

Answer = tuple[int, dict[str, Any]]


@pytest.fixture
def world(db: Database, settings: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """No account yet."""
    firebase = FirebaseAuth(worlds.PROJECT, clock)
    store = StripeStore(clock)
    stripe = StripeServer(store, key=worlds.STRIPE_KEY)
    monkeypatch.setenv(VARIABLE, firebase.host)
    assert settings.secrets_folder is not None
    worlds.secrets_of(settings.secrets_folder)
    with db.transaction() as connection:
        worlds.make_partition(connection, clock.now())
    yield World(db, clock, firebase, stripe, store, Path(settings.bucket("general")).parent)
    firebase.stop()
    stripe.stop()


@pytest.fixture
def using(world: World, settings: Settings) -> Settings:
    """The settings with the doubles' addresses."""
    hosts = {VARIABLE: world.firebase.host, "STRIPE_EMULATOR_HOST": world.stripe.url.removeprefix("http://")}
    return replace(settings, environ={**settings.environ, **hosts})


@pytest.fixture
def ask(world: World, using: Settings, run_task: RunTask) -> Callable[..., Answer]:
    """Call the endpoint with a token, and give its status and document."""

    def call(method: str = "DELETE", path: str = worlds.PATH, **given: Any) -> Answer:
        result = run_task("delete_account", world.call(method, path, **given), using=using)
        assert result.reply is not None, (result.outcome, result.error)
        return result.reply.status, json.loads(result.reply.body)

    return call
