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
from sqlalchemy.dialects.postgresql import JSONB

from shared.clock import rfc3339

_metadata = sa.MetaData(schema="bus")

_topic = sa.Table("topic", _metadata, sa.Column("name", sa.Text, primary_key=True))
_subscription = sa.Table(
    "subscription",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("topic", sa.Text, nullable=False, index=True),
    sa.Column("definition", sa.LargeBinary, nullable=False),
)
_message = sa.Table(
    "message",
    _metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("attributes", JSONB, nullable=False),
    sa.Column("ordering_key", sa.Text, nullable=False),
    sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
)
_delivery = sa.Table(
    "delivery",
    _metadata,
    sa.Column("subscription", sa.ForeignKey(_subscription.c.name, ondelete="cascade"), primary_key=True),
    sa.Column("message_id", sa.ForeignKey(_message.c.id, ondelete="cascade"), primary_key=True),
    sa.Column("ordering_key", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("lease", sa.Uuid, unique=True),
    sa.Index("delivery_due", "subscription", "due_at"),
    sa.Index("delivery_key", "subscription", "ordering_key", "message_id"),
)

# A subscription whose topic is gone keeps this name for it, as in the cloud.
DELETED_TOPIC = "_deleted-topic_"

_RETENTION = timedelta(days=7)

_OWE = sa.text("""
    insert into bus.delivery (subscription, message_id, ordering_key, attempts, due_at)
    select s.name, m.id, m.ordering_key, 0, m.published_at
      from bus.message m
      join bus.subscription s on s.topic = m.topic
     where m.id = any(:ids)
""")

# An ordered subscription is owed only the oldest message of each key.
_TAKE = sa.text("""
    with due as (
      select d.message_id
        from bus.delivery d
       where d.subscription = :subscription
         and d.due_at <= :now
         and (not :ordered or d.ordering_key = '' or not exists (
              select from bus.delivery e
               where e.subscription = d.subscription
                 and e.ordering_key = d.ordering_key
                 and e.message_id < d.message_id))
       order by d.message_id
       limit :most
         for update skip locked)
    update bus.delivery d
       set attempts = d.attempts + 1,
           lease = gen_random_uuid(),
           due_at = :deadline
      from due
      join bus.message m on m.id = due.message_id
     where d.subscription = :subscription
       and d.message_id = due.message_id
    returning d.lease, d.attempts, m.id, m.data, m.attributes, m.ordering_key, m.published_at
""")

_TAKE_EXHAUSTED = sa.text("""
    select d.message_id, d.attempts, m.data, m.attributes, m.ordering_key, m.published_at
      from bus.delivery d
      join bus.message m on m.id = d.message_id
     where d.subscription = :subscription
       and d.due_at <= :now
       and d.attempts >= :most
     order by d.message_id
       for update of d skip locked
""")

_FORGET = sa.text("""
    delete from bus.message m
     where m.id = any(:ids)
       and not exists (select from bus.delivery d where d.message_id = m.id)
""")


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
            connection.execute(sa.schema.CreateSchema("bus", if_not_exists=True))
            _metadata.create_all(connection)
            connection.execute(sa.update(_delivery).where(_delivery.c.lease.isnot(None)).values(lease=None, due_at=now))
            connection.execute(sa.delete(_message).where(_message.c.published_at < now - _RETENTION))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # --- topics and subscriptions

    def add_topic(self, name: str) -> None:
        """Raises ExistsError."""
        self._add(sa.insert(_topic).values(name=name), name)

    def topics(self, project: str) -> list[str]:
        """The topics of `projects/P`, sorted."""
        with self._engine.begin() as connection:
            mine = _topic.c.name.startswith(f"{project}/", autoescape=True)
            return list(connection.scalars(sa.select(_topic.c.name).where(mine).order_by(_topic.c.name)))

    def require_topic(self, name: str) -> None:
        """Raises UnknownError."""
        with self._engine.begin() as connection:
            _require(connection.scalar(sa.select(_topic.c.name).where(_topic.c.name == name)), name)

    def remove_topic(self, name: str) -> None:
        """Its subscriptions stay, without a topic. Raises UnknownError."""
        with self._engine.begin() as connection:
            _require(connection.scalar(sa.delete(_topic).where(_topic.c.name == name).returning(_topic.c.name)), name)
            left = connection.scalars(sa.select(_subscription.c.definition).where(_subscription.c.topic == name)).all()
            for definition in left:
                subscription = Subscription.deserialize(definition)
                subscription.topic = DELETED_TOPIC
                _replace(connection, subscription)

    def add_subscription(self, subscription: Subscription) -> None:
        """Raises UnknownError for its topic, ExistsError."""
        self.require_topic(subscription.topic)
        definition = Subscription.serialize(subscription)
        self._add(
            sa.insert(_subscription).values(name=subscription.name, topic=subscription.topic, definition=definition),
            subscription.name,
        )

    def subscription(self, name: str) -> Subscription:
        """Raises UnknownError."""
        with self._engine.begin() as connection:
            return _subscription_of(connection, name)

    def subscriptions(self, project: str | None = None) -> list[Subscription]:
        """The subscriptions of `projects/P`, or all; sorted by name."""
        found = sa.select(_subscription.c.definition).order_by(_subscription.c.name)
        if project is not None:
            found = found.where(_subscription.c.name.startswith(f"{project}/", autoescape=True))
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
        gone = sa.delete(_subscription).where(_subscription.c.name == name).returning(_subscription.c.name)
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
            rows = connection.execute(_TAKE, values).all()
        return [Taken(row.lease, row.attempts, _message_of(row)) for row in sorted(rows, key=lambda row: row.id)]

    def acknowledge(self, leases: Sequence[uuid.UUID]) -> None:
        """Owe these no more. A lease that has passed to another taker is ignored."""
        done = sa.delete(_delivery).where(_delivery.c.lease.in_(leases)).returning(_delivery.c.message_id)
        with self._engine.begin() as connection:
            if ids := connection.scalars(done).all():
                connection.execute(_FORGET, {"ids": ids})

    def owe_at(self, leases: Sequence[uuid.UUID], due_at: datetime, *, lease_ends: bool) -> None:
        """Owe these again at `due_at`; with `lease_ends` their taker has given up before."""
        changed = {"due_at": due_at} | ({"lease": None} if lease_ends else {})
        with self._engine.begin() as connection:
            connection.execute(sa.update(_delivery).where(_delivery.c.lease.in_(leases)).values(changed))

    def next_due(self, subscriptions: Sequence[str]) -> datetime | None:
        """When the first of what these subscriptions are owed is due."""
        with self._engine.begin() as connection:
            first = sa.select(sa.func.min(_delivery.c.due_at)).where(_delivery.c.subscription.in_(subscriptions))
            return cast(datetime | None, connection.scalar(first))


def _require(found: object, name: str) -> None:
    if found is None:
        raise UnknownError(name)


def _subscription_of(connection: sa.Connection, name: str) -> Subscription:
    definition = connection.scalar(sa.select(_subscription.c.definition).where(_subscription.c.name == name))
    _require(definition, name)
    return cast(Subscription, Subscription.deserialize(definition))


def _replace(connection: sa.Connection, subscription: Subscription) -> None:
    connection.execute(
        sa.update(_subscription)
        .where(_subscription.c.name == subscription.name)
        .values(topic=subscription.topic, definition=Subscription.serialize(subscription))
    )


def _publish(connection: sa.Connection, topic: str, messages: Sequence[PubsubMessage], now: datetime) -> list[str]:
    # one publisher at a time for a topic: ids then ascend in the order of commits, and ordering keys with them
    locked = sa.select(_topic.c.name).where(_topic.c.name == topic).with_for_update()
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
    inserted = sa.insert(_message).returning(_message.c.id, sort_by_parameter_order=True)
    ids = connection.scalars(inserted, rows).all()
    connection.execute(_OWE, {"ids": ids})
    return [str(id_) for id_ in ids]


def _bury(connection: sa.Connection, subscription: Subscription, now: datetime) -> None:
    """Move what has had all its attempts to the dead-letter topic, with the attributes the cloud adds."""
    policy = subscription.dead_letter_policy
    if not policy.dead_letter_topic:
        return
    # ack deadline not over yet: due_at lies ahead, so a taker still at work on its last attempt is not robbed
    values = {"subscription": subscription.name, "now": now, "most": policy.max_delivery_attempts}
    for row in connection.execute(_TAKE_EXHAUSTED, values).all():
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
            sa.delete(_delivery).where(
                _delivery.c.subscription == subscription.name, _delivery.c.message_id == row.message_id
            )
        )
        connection.execute(_FORGET, {"ids": [row.message_id]})


def _message_of(row: sa.Row[Any]) -> PubsubMessage:
    return PubsubMessage(
        data=row.data,
        attributes=row.attributes,
        ordering_key=row.ordering_key,
        message_id=str(row.id),
        publish_time=row.published_at,
    )
