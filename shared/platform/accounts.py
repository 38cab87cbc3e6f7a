"""Accounts and what goes with them: status pages, monitored services, incidents, audit trail, consents."""

from sqlalchemy import Boolean, CheckConstraint, Column, ForeignKey, Index, Integer, Numeric, Table, Text, text
from sqlalchemy.dialects.postgresql import INET, JSONB

from shared.platform.metadata import EMPTY_LIST, EMPTY_OBJECT, identity, metadata, of_account
from shared.schema import Moment

# tier `pro` without a stripe_customer_id is a manual grant: billing never touches it.
user_profile = Table(
    "user_profile",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("firebase_uid", Text, nullable=False, unique=True),
    Column("email", Text, nullable=False),  # never a key: people share and change addresses
    Column("display_name", Text),
    Column("tier", Text, nullable=False, server_default=text("'free'")),
    Column("stripe_customer_id", Text, unique=True),
    Column("stripe_subscription_id", Text),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    CheckConstraint("tier in ('free', 'pro')", name="tier"),
)

status_page = Table(
    "status_page",
    metadata,
    identity(),
    of_account(),
    Column("slug", Text, nullable=False, unique=True),
    Column("title", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("is_public", Boolean, nullable=False, server_default=text("true")),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
)

# `state` changes only after several equal results in a row (hysteresis): `streak` counts them.
# A maintenance window is {"start", "end", "zone", "repeat"}: local times of an IANA zone.
monitored_service = Table(
    "monitored_service",
    metadata,
    identity(),
    of_account(),
    Column("status_page_id", ForeignKey("status_page.id", ondelete="SET NULL"), index=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False, server_default=text("'http'")),
    Column("url", Text, nullable=False),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("sla_target", Numeric(6, 3), nullable=False, server_default=text("99.9")),  # per cent of uptime
    Column("maintenance", JSONB, nullable=False, server_default=EMPTY_LIST),
    Column("state", Text, nullable=False, server_default=text("'unknown'")),
    Column("state_since", Moment),
    Column("streak", Integer, nullable=False, server_default=text("0")),
    Column("last_checked_at", Moment),
    Column("tls_expires_at", Moment),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("kind in ('http', 'tcp', 'tls')", name="kind"),
    CheckConstraint("state in ('unknown', 'up', 'down', 'maintenance')", name="state"),
)

incident = Table(
    "incident",
    metadata,
    identity(),
    of_account(),
    Column("service_id", ForeignKey("monitored_service.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("severity", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("started_at", Moment, nullable=False, index=True),
    Column("resolved_at", Moment),
    CheckConstraint("severity in ('minor', 'major', 'critical')", name="severity"),
)
Index("uq_incident_open", incident.c.service_id, unique=True, postgresql_where=incident.c.resolved_at.is_(None))

# What users did; the platform's own trail (operators' doings are groundskeeper.operator_audit).
audit_log = Table(
    "audit_log",
    metadata,
    identity(),
    of_account(required=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object_type", Text),
    Column("object_id", Text),
    Column("ip_address", INET),
    Column("details", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("created_at", Moment, nullable=False, index=True),
)

# Visitors of the marketing site: no account, only the random id in the cookie.
cookie_consent = Table(
    "cookie_consent",
    metadata,
    identity(),
    Column("visitor_id", Text, nullable=False),
    Column("choices", JSONB, nullable=False),
    Column("policy_version", Text, nullable=False),
    Column("ip_address", INET),
    Column("created_at", Moment, nullable=False, index=True),
)
