"""What models learn from, and what training decided about them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.platform.metadata import EMPTY_OBJECT, identity, metadata, of_account
from shared.schema import Moment

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

# What somebody or something says of a window, one row a source: the latest word counts, so that a flood of events
# changes rows and adds none. An operator's word goes before an incident's, and that before an indicator's.
window_label = Table(
    "window_label",
    metadata,
    Column("window_start", Moment, primary_key=True),
    Column("width_s", Integer, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("is_attack", Boolean, nullable=False),
    Column("said_at", Moment, nullable=False),  # when it happened there: an older word never replaces a newer one
    Column("received_at", Moment, nullable=False),
    CheckConstraint("source in ('operator', 'incident', 'indicator')", name="source"),
)

# The next 24 hours of a service, as the promoted model sees them: one row a service.
service_forecast = Table(
    "service_forecast",
    metadata,
    Column("service_id", ForeignKey("monitored_service.id", ondelete="CASCADE"), primary_key=True),
    of_account(),
    Column("version", Text, nullable=False),
    Column("made_at", Moment, nullable=False),
    Column("breach_probability", Double, nullable=False),  # 0 to 1: missing its target in the next 24 hours
    Column("p50_ms", Double),  # quantiles of the day's average response time; null where it had none lately
    Column("p90_ms", Double),
    Column("p95_ms", Double),
)

# What the promoted models say of a platform-wide window; null where no model is promoted.
platform_score = Table(
    "platform_score",
    metadata,
    Column("window_start", Moment, primary_key=True),
    Column("width_s", Integer, primary_key=True),
    Column("threat_version", Text),
    Column("attack_probability", Double),  # 0 to 1
    Column("ces_version", Text),
    Column("ces", Double),  # 0 to 100, the mean of the next 24 hours
    Column("made_at", Moment, nullable=False),
)
