"""What consumers of events remember: what they have handled, what never can be, and how far they have read."""

from sqlalchemy import BigInteger, Column, Integer, Table, Text, Uuid

from shared.schema import Moment, metadata

# The ids of events already handled, one row a consumer: what is delivered at least once is handled once.
inbox = Table(
    "inbox",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("event_id", Uuid, primary_key=True),
    Column("received_at", Moment, nullable=False, index=True),
)

# Events that can never be handled, and why. The payload is what is left of it without addresses and secrets, cut.
dead_letter = Table(
    "dead_letter",
    metadata,
    Column("letter_id", Uuid, primary_key=True),  # of where it came from: the same letter again is the same row
    Column("consumer", Text, nullable=False),
    Column("source", Text, nullable=False),  # topic/message id, or topic/partition/offset
    Column("event_id", Uuid),
    Column("reason", Text, nullable=False),
    Column("payload", Text),
    Column("bytes", BigInteger, nullable=False),
    Column("received_at", Moment, nullable=False, index=True),
)

# How far a consumer has read a stream of Kafka: written with the work, so that the two cannot disagree.
stream_offset = Table(
    "stream_offset",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("updated_at", Moment, nullable=False),
)
