"""The rooms' fixtures."""

from tests.billing.fixtures import world as world
from tests.relay.fixtures import pubsub as pubsub
from tests.relay.fixtures import relay as relay
from tests.relay.fixtures import write as write
