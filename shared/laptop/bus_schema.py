"""The tables and statements of the laptop's bus, in PostgreSQL's schema `bus`."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

METADATA = sa.MetaData(schema="bus")

TOPIC = sa.Table("topic", METADATA, sa.Column("name", sa.Text, primary_key=True))
SUBSCRIPTION = sa.Table(
    "subscription",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("topic", sa.Text, nullable=False, index=True),
    sa.Column("definition", sa.LargeBinary, nullable=False),
)
MESSAGE = sa.Table(
    "message",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("attributes", JSONB, nullable=False),
    sa.Column("ordering_key", sa.Text, nullable=False),
    sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
)
DELIVERY = sa.Table(
    "delivery",
    METADATA,
    sa.Column("subscription", sa.ForeignKey(SUBSCRIPTION.c.name, ondelete="cascade"), primary_key=True),
    sa.Column("message_id", sa.ForeignKey(MESSAGE.c.id, ondelete="cascade"), primary_key=True),
    sa.Column("ordering_key", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("lease", sa.Uuid, unique=True),
    sa.Index("delivery_due", "subscription", "due_at"),
    sa.Index("delivery_key", "subscription", "ordering_key", "message_id"),
)

OWE = sa.text("""
    insert into bus.delivery (subscription, message_id, ordering_key, attempts, due_at)
    select s.name, m.id, m.ordering_key, 0, m.published_at
      from bus.message m
      join bus.subscription s on s.topic = m.topic
     where m.id = any(:ids)
""")

# An ordered subscription is owed only the oldest message of each key.
TAKE = sa.text("""
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

TAKE_EXHAUSTED = sa.text("""
    select d.message_id, d.attempts, m.data, m.attributes, m.ordering_key, m.published_at
      from bus.delivery d
      join bus.message m on m.id = d.message_id
     where d.subscription = :subscription
       and d.due_at <= :now
       and d.attempts >= :most
     order by d.message_id
       for update of d skip locked
""")

FORGET = sa.text("""
    delete from bus.message m
     where m.id = any(:ids)
       and not exists (select from bus.delivery d where d.message_id = m.id)
""")
