"""What models learn from, and what training decided about them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.platform.metadata import EMPTY_OBJECT, Moment, identity, metadata

# Platform-wide windows of traffic, no account in them: they outlive the 30 days of raw telemetry.
ml_window = Table(
    "ml_window",
    metadata,
    identity(),
    Column("window_start", Moment, nullable=False),
    Column("width_s", Integer, nullable=False),
    Column("accounts", Integer, nullable=False),  # how many are in it: below k a window teaches nothing
    Column("requests", BigInteger, nullable=False),
    Column("error_ratio", Double),
    Column("failure_ratio", Double),
    Column("suspicious_ratio", Double),
    Column("bot_ratio", Double),
    Column("indicator_matches", BigInteger, nullable=False, server_default=text("0")),
    Column("asn_entropy", Double),  # bits
    Column("path_entropy", Double),  # bits
    Column("rate_change", Double),  # requests of this window to those of the one before
    Column("rate_limited", BigInteger, nullable=False, server_default=text("0")),
    Column("blocked", BigInteger, nullable=False, server_default=text("0")),
    Column("incidents", Integer, nullable=False, server_default=text("0")),
    Column("is_attack", Boolean),  # the label; null: not known yet
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("window_start", "width_s"),
)

# Kept for ever as the record of why a model is in use.
training_run = Table(
    "training_run",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("model", Text, nullable=False, index=True),
    Column("version", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("metrics", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("baselines", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("data_hash", Text, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("location", Text),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment, nullable=False),
    CheckConstraint("decision in ('promoted', 'kept', 'refused')", name="decision"),
)
