"""Ideas found in signals, drawn as mockups, sold as listings."""

from sqlalchemy import CheckConstraint, Column, Double, ForeignKey, Table, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB

from shared.platform.metadata import EMPTY_OBJECT, identity, metadata
from shared.schema import Moment

idea = Table(
    "idea",
    metadata,
    identity(),
    Column("title", Text, nullable=False),
    Column("description", Text),
    Column("created_at", Moment, nullable=False),
)

signal = Table(
    "signal",
    metadata,
    identity(),
    Column("idea_id", ForeignKey("idea.id", ondelete="CASCADE"), index=True),
    Column("source", Text, nullable=False),
    Column("strength", Double),
    Column("content", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("created_at", Moment, nullable=False, index=True),
)

# `image` is the object's name below the mockups' location.
mockup = Table(
    "mockup",
    metadata,
    identity(),
    Column("idea_id", ForeignKey("idea.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("title", Text, nullable=False),
    Column("image", Text, nullable=False, index=True),
    Column("created_at", Moment, nullable=False, index=True),
)

# A listing holds on to its mockup: whoever deletes the mockup decides about it first.
listing = Table(
    "listing",
    metadata,
    identity(),
    Column("mockup_id", ForeignKey("mockup.id"), nullable=False, index=True),
    Column("marketplace", Text, nullable=False),
    Column("external_id", Text),
    Column("state", Text, nullable=False, server_default=text("'draft'")),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("marketplace", "external_id"),
    CheckConstraint("state in ('draft', 'live', 'ended')", name="state"),
)
