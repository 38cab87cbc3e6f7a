"""Billing's fixtures."""

from tests.billing.fixtures import world as world
