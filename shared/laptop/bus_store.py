"""What the laptop's bus remembers, in PostgreSQL's schema `bus`: topics, subscriptions, messages, deliveries.

A delivery is one message still owed to one subscription. It is due at a moment; taking it leases it by moving that
moment past the acknowledgement deadline, so a taker that dies owes it again without anybody noticing.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa
from google.pubsub_v1.types import PubsubMessage, Subscription
from sqlalchemy.schema import CreateSchema

from shared.clock import rfc3339
from shared.laptop.bus_schema import (
    DELIVERY,
    FORGET,
    MESSAGE,
    METADATA,
    OWE,
    SUBSCRIPTION,
    TAKE,
    TAKE_EXHAUSTED,
    TOPIC,
)

# A subscription whose topic is gone keeps this name for it, as in the cloud.
DELETED_TOPIC = "_deleted-topic_"

_RETENTION = timedelta(days=7)


@dataclass(frozen=True)
class Taken:
    """A message handed to a taker: answer for it by its lease. `attempt` counts from 1."""

    lease: uuid.UUID
    attempt: int
    message: PubsubMessage


class UnknownError(LookupError):
    """No topic or subscription of that name."""


class ExistsError(ValueError):
    """A topic or subscription of that name is there already."""


class Store:
    """The bus's memory. Every method is one transaction; moments are the caller's."""

    def __init__(self, url: str, now: datetime) -> None:
        """Make the schema where it is missing; owe at once what a killed predecessor had in hand."""
        self._engine = sa.create_engine(url, pool_size=8, max_overflow=16, pool_pre_ping=True)
        with self._engine.begin() as connection:
            connection.execute(CreateSchema("bus", if_not_exists=True))
            METADATA.create_all(connection)
            connection.execute(sa.update(DELIVERY).where(DELIVERY.c.lease.isnot(None)).values(lease=None, due_at=now))
            connection.execute(sa.delete(MESSAGE).where(MESSAGE.c.published_at < now - _RETENTION))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # --- topics and subscriptions

    def add_topic(self, name: str) -> None:
        """Raises ExistsError."""
        self._add(sa.insert(TOPIC).values(name=name), name)

    def topics(self, project: str) -> list[str]:
        """The topics of `projects/P`, sorted."""
        with self._engine.begin() as connection:
            mine = TOPIC.c.name.startswith(f"{project}/", autoescape=True)
            return list(connection.scalars(sa.select(TOPIC.c.name).where(mine).order_by(TOPIC.c.name)))

    def require_topic(self, name: str) -> None:
        """Raises UnknownError."""
        with self._engine.begin() as connection:
            _require(connection.scalar(sa.select(TOPIC.c.name).where(TOPIC.c.name == name)), name)

    def remove_topic(self, name: str) -> None:
        """Its subscriptions stay, without a topic. Raises UnknownError."""
        with self._engine.begin() as connection:
            _require(
                connection.scalar(sa.delete(TOPIC).where(TOPIC.c.name == name).returning(TOPIC.c.name)),
                name,
            )
            left = connection.scalars(sa.select(SUBSCRIPTION.c.definition).where(SUBSCRIPTION.c.topic == name)).all()
            for definition in left:
                subscription = Subscription.deserialize(definition)
                subscription.topic = DELETED_TOPIC
                _replace(connection, subscription)

    def add_subscription(self, subscription: Subscription) -> None:
        """Raises UnknownError for its topic, ExistsError."""
        self.require_topic(subscription.topic)
        definition = Subscription.serialize(subscription)
        self._add(
            sa.insert(SUBSCRIPTION).values(name=subscription.name, topic=subscription.topic, definition=definition),
            subscription.name,
        )

    def subscription(self, name: str) -> Subscription:
        """Raises UnknownError."""
        with self._engine.begin() as connection:
            return _subscription_of(connection, name)

    def subscriptions(self, project: str | None = None) -> list[Subscription]:
        """The subscriptions of `projects/P`, or all; sorted by name."""
        found = sa.select(SUBSCRIPTION.c.definition).order_by(SUBSCRIPTION.c.name)
        if project is not None:
            found = found.where(SUBSCRIPTION.c.name.startswith(f"{project}/", autoescape=True))
        with self._engine.begin() as connection:
            return [Subscription.deserialize(definition) for definition in connection.scalars(found)]

    def modify_push(self, name: str, push: Any) -> None:
        """Raises UnknownError."""
        with self._engine.begin() as connection:
            subscription = _subscription_of(connection, name)
            subscription.push_config = push
            _replace(connection, subscription)

    def remove_subscription(self, name: str) -> None:
        """Raises UnknownError."""
        gone = sa.delete(SUBSCRIPTION).where(SUBSCRIPTION.c.name == name).returning(SUBSCRIPTION.c.name)
        with self._engine.begin() as connection:
            _require(connection.scalar(gone), name)

    def _add(self, insert: sa.Insert, name: str) -> None:
        try:
            with self._engine.begin() as connection:
                connection.execute(insert)
        except sa.exc.IntegrityError:
            raise ExistsError(name) from None

    # --- messages

    def publish(self, topic: str, messages: Sequence[PubsubMessage], now: datetime) -> list[str]:
        """The messages' ids, in their order. Raises UnknownError."""
        with self._engine.begin() as connection:
            return _publish(connection, topic, messages, now)

    def take(self, subscription: Subscription, most: int, now: datetime) -> list[Taken]:
        """Up to `most` messages that are due, leased for the acknowledgement deadline, oldest first."""
        values = {
            "subscription": subscription.name,
            "now": now,
            "ordered": subscription.enable_message_ordering,
            "most": most,
            "deadline": now + timedelta(seconds=subscription.ack_deadline_seconds),
        }
        with self._engine.begin() as connection:
            _bury(connection, subscription, now)
            rows = connection.execute(TAKE, values).all()
        return [Taken(row.lease, row.attempts, _message_of(row)) for row in sorted(rows, key=lambda row: row.id)]

    def acknowledge(self, leases: Sequence[uuid.UUID]) -> None:
        """Owe these no more. A lease that has passed to another taker is ignored."""
        done = sa.delete(DELIVERY).where(DELIVERY.c.lease.in_(leases)).returning(DELIVERY.c.message_id)
        with self._engine.begin() as connection:
            if ids := connection.scalars(done).all():
                connection.execute(FORGET, {"ids": ids})

    def owe_at(self, leases: Sequence[uuid.UUID], due_at: datetime, *, lease_ends: bool) -> None:
        """Owe these again at `due_at`; with `lease_ends` their taker has given up before."""
        changed = {"due_at": due_at} | ({"lease": None} if lease_ends else {})
        with self._engine.begin() as connection:
            connection.execute(sa.update(DELIVERY).where(DELIVERY.c.lease.in_(leases)).values(changed))

    def next_due(self, subscriptions: Sequence[str]) -> datetime | None:
        """When the first of what these subscriptions are owed is due."""
        with self._engine.begin() as connection:
            first = sa.select(sa.func.min(DELIVERY.c.due_at)).where(DELIVERY.c.subscription.in_(subscriptions))
            return cast(datetime | None, connection.scalar(first))


def _require(found: object, name: str) -> None:
    if found is None:
        raise UnknownError(name)


def _subscription_of(connection: sa.Connection, name: str) -> Subscription:
    definition = connection.scalar(sa.select(SUBSCRIPTION.c.definition).where(SUBSCRIPTION.c.name == name))
    _require(definition, name)
    return cast(Subscription, Subscription.deserialize(definition))


def _replace(connection: sa.Connection, subscription: Subscription) -> None:
    connection.execute(
        sa.update(SUBSCRIPTION)
        .where(SUBSCRIPTION.c.name == subscription.name)
        .values(topic=subscription.topic, definition=Subscription.serialize(subscription))
    )


def _publish(connection: sa.Connection, topic: str, messages: Sequence[PubsubMessage], now: datetime) -> list[str]:
    # one publisher at a time for a topic: ids then ascend in the order of commits, and ordering keys with them
    locked = sa.select(TOPIC.c.name).where(TOPIC.c.name == topic).with_for_update()
    _require(connection.scalar(locked), topic)
    rows = [
        {
            "topic": topic,
            "data": message.data,
            "attributes": dict(message.attributes),
            "ordering_key": message.ordering_key,
            "published_at": now,
        }
        for message in messages
    ]
    inserted = sa.insert(MESSAGE).returning(MESSAGE.c.id, sort_by_parameter_order=True)
    ids = connection.scalars(inserted, rows).all()
    connection.execute(OWE, {"ids": ids})
    return [str(id_) for id_ in ids]


def _bury(connection: sa.Connection, subscription: Subscription, now: datetime) -> None:
    """Move what has had all its attempts to the dead-letter topic, with the attributes the cloud adds."""
    policy = subscription.dead_letter_policy
    if not policy.dead_letter_topic:
        return
    # ack deadline not over yet: due_at lies ahead, so a taker still at work on its last attempt is not robbed
    values = {"subscription": subscription.name, "now": now, "most": policy.max_delivery_attempts}
    for row in connection.execute(TAKE_EXHAUSTED, values).all():
        source = subscription.name.split("/")
        added = {
            "CloudPubSubDeadLetterSourceDeliveryCount": str(row.attempts),
            "CloudPubSubDeadLetterSourceSubscription": source[3],
            "CloudPubSubDeadLetterSourceSubscriptionProject": source[1],
            "CloudPubSubDeadLetterSourceTopicPublishTime": rfc3339(row.published_at),
        }
        dead = PubsubMessage(data=row.data, attributes={**row.attributes, **added}, ordering_key=row.ordering_key)
        try:
            _publish(connection, policy.dead_letter_topic, [dead], now)
        except UnknownError:
            return  # the topic was deleted: it stays owed, as in the cloud
        connection.execute(
            sa.delete(DELIVERY).where(
                DELIVERY.c.subscription == subscription.name, DELIVERY.c.message_id == row.message_id
            )
        )
        connection.execute(FORGET, {"ids": [row.message_id]})


def _message_of(row: sa.Row[Any]) -> PubsubMessage:
    return PubsubMessage(
        data=row.data,
        attributes=row.attributes,
        ordering_key=row.ordering_key,
        message_id=str(row.id),
        publish_time=row.published_at,
    )
