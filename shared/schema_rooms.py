"""The tables that only some tasks need, by room; `metadata` holds these and all others."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared import schema_events as schema_events
from shared import schema_feeds as schema_feeds
from shared import schema_retention as schema_retention
from shared.schema import Moment
from shared.schema import metadata as metadata

# How far each secret's rotation has come; never a value. One that is open keeps the next from beginning.
secret_rotation = Table(
    "secret_rotation",
    metadata,
    Column("rotation_id", Uuid, primary_key=True),
    Column("secret", Text, nullable=False),
    Column("rotator", Text, nullable=False),
    Column("run_id", Uuid, nullable=False),  # the approved run that began it
    Column("step", String(11), nullable=False),
    Column("old_version", Text),
    Column("new_version", Text),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),  # names of logins and endpoints
    Column("started_at", Moment, nullable=False),
    Column("promoted_at", Moment),
    Column("disabled_at", Moment),
    Column("ended_at", Moment),
    Column("error", Text),
    CheckConstraint("step in ('started', 'promoted', 'disabled', 'destroyed', 'rolled_back')", name="step"),
)
Index(
    "uq_secret_rotation_open",
    secret_rotation.c.secret,
    unique=True,
    postgresql_where=secret_rotation.c.ended_at.is_(None),
)

# One look at the worst statements of pg_stat_statements; its run is the key.
query_analysis = Table(
    "query_analysis",
    metadata,
    Column("run_id", Uuid, primary_key=True),
    Column("at", Moment, nullable=False, index=True),
    Column("since", Moment),  # the look before: counters are from then; null: from their reset
    Column("stats_reset", Moment),
    Column("was_reset", Boolean, nullable=False),
    Column("statements", Integer, nullable=False),
    Column("explained", Integer, nullable=False),
    Column("reasons", JSONB, nullable=False),  # why not -> how many
    Column("findings", JSONB, nullable=False),  # of the catalogue
)

# The statements of a look, the worst first. No value of a statement is ever in `sql` or `plan`.
query_plan = Table(
    "query_plan",
    metadata,
    Column("run_id", Uuid, ForeignKey(query_analysis.c.run_id, ondelete="CASCADE"), primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("query_id", BigInteger, nullable=False),
    Column("sql", Text),
    Column("calls", BigInteger, nullable=False),
    Column("total_ms", Double, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("plan", JSONB),
    Column("plan_hash", Text),
    Column("before", Text),  # the hash of the plan before, where it was another
    Column("reason", Text),  # why there is no plan
    Column("findings", JSONB, nullable=False),
)
Index(None, query_plan.c.query_id, query_plan.c.at.desc())

# The counters as the last look saw them; written anew by each.
query_total = Table(
    "query_total",
    metadata,
    Column("query_id", BigInteger, primary_key=True, autoincrement=False),
    Column("calls", BigInteger, nullable=False),
    Column("total_ms", Double, nullable=False),
    Column("rows", BigInteger, nullable=False),
)

# What the watchdog saw going wrong: told once when it begins and once when it is over.
watch_incident = Table(
    "watch_incident",
    metadata,
    Column("incident_id", Uuid, primary_key=True),
    Column("key", Text, nullable=False),  # late/db_cleanup, schedule/db-cleanup, age/outbox, ...
    Column("severity", String(8), nullable=False),
    Column("summary", Text, nullable=False),  # as it was when last looked at
    Column("runbook", Text, nullable=False),
    Column("opened_at", Moment, nullable=False, index=True),
    Column("seen_at", Moment, nullable=False),
    Column("told_at", Moment),  # null while nobody could be told
    Column("closed_at", Moment),
    Column("told_closed_at", Moment),
    CheckConstraint("severity in ('warning', 'error')", name="severity"),
)
Index(
    "uq_watch_incident_open",
    watch_incident.c.key,
    unique=True,
    postgresql_where=watch_incident.c.closed_at.is_(None),
)

# Whose a Stripe customer is (null: nobody's that we know), and when its state was last written. A generation is taken
# from one sequence at each write: whoever fetched state before it must fetch again.
billing_customer = Table(
    "billing_customer",
    metadata,
    Column("customer_id", Text, primary_key=True),
    Column("account_id", Text, index=True),
    Column("generation", BigInteger, Identity(always=False), nullable=False),
    Column("linked_at", Moment),  # the Checkout session's time; null where the platform itself stored the customer
    Column("settled_at", Moment),
    Column("asked_at", Moment),  # by its owner, for the rate limit; of nobody's: when its session was looked for
)

# Every event of Stripe's that was taken, under its own id; never its contents.
billing_event = Table(
    "billing_event",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("customer_id", Text),
    Column("account_id", Text),  # the session's client_reference_id
    Column("linked_at", Moment),  # the session's time
    Column("occurred_at", Moment, nullable=False),
    Column("received_at", Moment, nullable=False, index=True),
    Column("outcome", String(9), nullable=False),
    Column("reason", Text),
    Column("attempts", Integer, nullable=False),
    CheckConstraint("outcome in ('done', 'ignored', 'unmatched', 'failed')", name="outcome"),
)
Index("ix_billing_event_failed", billing_event.c.received_at, postgresql_where=billing_event.c.outcome == "failed")

# What an account had by hand when it first subscribed: the lapse of the subscription does not end it.
billing_grant = Table(
    "billing_grant",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("tier", Text, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    Column("ended_at", Moment),
)
