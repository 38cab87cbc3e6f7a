"""The reference platform as the first release has it; partitions of endpoints are made by whoever fills it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "cookie_consent",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("visitor_id", sa.Text(), nullable=False),
        sa.Column("choices", postgresql.JSONB(), nullable=False),
        sa.Column("policy_version", sa.Text(), nullable=False),
        sa.Column("ip_address", postgresql.INET()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cookie_consent")),
    )
    op.create_index(op.f("ix_cookie_consent_created_at"), "cookie_consent", ["created_at"])
    op.create_table(
        "data_encryption_key",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary()),
        sa.Column("kek", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), server_default=sa.text("'AES-256-GCM'"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True)),
        sa.Column("destroyed_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "(state = 'destroyed') = (wrapped_key is null)", name=op.f("ck_data_encryption_key_destroyed")
        ),
        sa.CheckConstraint(
            "state in ('active', 'retiring', 'retired', 'destroyed')", name=op.f("ck_data_encryption_key_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_encryption_key")),
    )
    op.create_index(
        "uq_data_encryption_key_active",
        "data_encryption_key",
        ["state"],
        unique=True,
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_table(
        "idea",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idea")),
    )
    op.create_table(
        "ml_window",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("window_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("width_s", sa.Integer(), nullable=False),
        sa.Column("accounts", sa.Integer(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("error_ratio", sa.Double()),
        sa.Column("failure_ratio", sa.Double()),
        sa.Column("suspicious_ratio", sa.Double()),
        sa.Column("bot_ratio", sa.Double()),
        sa.Column("indicator_matches", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("asn_entropy", sa.Double()),
        sa.Column("path_entropy", sa.Double()),
        sa.Column("rate_change", sa.Double()),
        sa.Column("rate_limited", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("blocked", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("incidents", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("is_attack", sa.Boolean()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ml_window")),
        sa.UniqueConstraint("window_start", "width_s", name=op.f("uq_ml_window_window_start_width_s")),
    )
    op.create_table(
        "outbox_event",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("ordering_key", sa.Text()),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True)),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_event")),
    )
    op.create_index(
        "ix_outbox_event_pending",
        "outbox_event",
        ["created_at", "id"],
        postgresql_where=sa.text("published_at IS NULL"),
    )
    op.create_index(
        "ix_outbox_event_published",
        "outbox_event",
        ["published_at"],
        postgresql_where=sa.text("published_at IS NOT NULL"),
    )
    op.create_table(
        "threat_intelligence",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("canonical_key", sa.Text()),
        sa.Column("indicator_type", sa.Text(), nullable=False),
        sa.Column("indicator", sa.Text(), nullable=False),
        sa.Column("confidence", sa.SmallInteger()),
        sa.Column("severity", sa.Text()),
        sa.Column("description", sa.Text()),
        sa.Column("sources", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True)),
        sa.Column("last_seen", sa.DateTime(timezone=True)),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threat_intelligence")),
        sa.UniqueConstraint("canonical_key", name=op.f("uq_threat_intelligence_canonical_key")),
    )
    op.create_index(op.f("ix_threat_intelligence_expires_at"), "threat_intelligence", ["expires_at"])
    op.create_index(
        op.f("ix_threat_intelligence_indicator_type_indicator"), "threat_intelligence", ["indicator_type", "indicator"]
    )
    op.create_table(
        "training_run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("baselines", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("data_hash", sa.Text(), nullable=False),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("location", sa.Text()),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("decision in ('promoted', 'kept', 'refused')", name=op.f("ck_training_run_decision")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_run")),
    )
    op.create_index(op.f("ix_training_run_model"), "training_run", ["model"])
    op.create_table(
        "user_profile",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("firebase_uid", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text()),
        sa.Column("tier", sa.Text(), server_default=sa.text("'free'"), nullable=False),
        sa.Column("stripe_customer_id", sa.Text()),
        sa.Column("stripe_subscription_id", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("tier in ('free', 'pro')", name=op.f("ck_user_profile_tier")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_user_profile")),
        sa.UniqueConstraint("firebase_uid", name=op.f("uq_user_profile_firebase_uid")),
        sa.UniqueConstraint("stripe_customer_id", name=op.f("uq_user_profile_stripe_customer_id")),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("account_id", sa.Text()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_type", sa.Text()),
        sa.Column("object_id", sa.Text()),
        sa.Column("ip_address", postgresql.INET()),
        sa.Column("details", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["user_profile.account_id"], name=op.f("fk_audit_log_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_account_id"), "audit_log", ["account_id"])
    op.create_index(op.f("ix_audit_log_created_at"), "audit_log", ["created_at"])
    op.create_table(
        "bug_report",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("account_id", sa.Text()),
        sa.Column("reporter_email", sa.Text()),
        sa.Column("ip_address", postgresql.INET()),
        sa.Column("user_agent", sa.Text()),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("url", sa.Text()),
        sa.Column("status", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status in ('open', 'fixed', 'rejected')", name=op.f("ck_bug_report_status")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["user_profile.account_id"], name=op.f("fk_bug_report_account_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bug_report")),
    )
    op.create_index(op.f("ix_bug_report_account_id"), "bug_report", ["account_id"])
    op.create_table(
        "endpoints",
        sa.Column("last_tested", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("service_id", sa.BigInteger()),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("status_code", sa.SmallInteger()),
        sa.Column("response_time", sa.Double()),
        sa.Column("error", sa.Text()),
        sa.Column("ip_address", postgresql.INET()),
        sa.Column("location", sa.Text()),
        sa.Column("asn", sa.BigInteger()),
        sa.Column("isp", sa.Text()),
        sa.Column("device_type", sa.Text()),
        sa.Column("os_name", sa.Text()),
        sa.Column("browser_name", sa.Text()),
        sa.Column("is_bot", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_threat", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("telemetry_context", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["user_profile.account_id"], name=op.f("fk_endpoints_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("last_tested", "id", name=op.f("pk_endpoints")),
        postgresql_partition_by="RANGE (last_tested)",
    )
    op.create_index(op.f("ix_endpoints_account_id_last_tested"), "endpoints", ["account_id", "last_tested"])
    op.create_table(
        "integration_credential",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("dek_id", sa.BigInteger(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["user_profile.account_id"],
            name=op.f("fk_integration_credential_account_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["dek_id"], ["data_encryption_key.id"], name=op.f("fk_integration_credential_dek_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_integration_credential")),
        sa.UniqueConstraint("account_id", "provider", name=op.f("uq_integration_credential_account_id_provider")),
    )
    op.create_index(op.f("ix_integration_credential_dek_id"), "integration_credential", ["dek_id"])
    op.create_table(
        "mockup",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("idea_id", sa.BigInteger(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["idea_id"], ["idea.id"], name=op.f("fk_mockup_idea_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mockup")),
    )
    op.create_index(op.f("ix_mockup_created_at"), "mockup", ["created_at"])
    op.create_index(op.f("ix_mockup_idea_id"), "mockup", ["idea_id"])
    op.create_table(
        "signal",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("idea_id", sa.BigInteger()),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("strength", sa.Double()),
        sa.Column("content", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["idea_id"], ["idea.id"], name=op.f("fk_signal_idea_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signal")),
    )
    op.create_index(op.f("ix_signal_created_at"), "signal", ["created_at"])
    op.create_index(op.f("ix_signal_idea_id"), "signal", ["idea_id"])
    op.create_table(
        "status_page",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("is_public", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["user_profile.account_id"], name=op.f("fk_status_page_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_status_page")),
        sa.UniqueConstraint("slug", name=op.f("uq_status_page_slug")),
    )
    op.create_index(op.f("ix_status_page_account_id"), "status_page", ["account_id"])
    op.create_table(
        "threat_report",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("account_id", sa.Text()),
        sa.Column("reporter_email", sa.Text()),
        sa.Column("ip_address", postgresql.INET()),
        sa.Column("indicator_type", sa.Text(), nullable=False),
        sa.Column("indicator", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status in ('open', 'confirmed', 'rejected')", name=op.f("ck_threat_report_status")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["user_profile.account_id"], name=op.f("fk_threat_report_account_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threat_report")),
    )
    op.create_index(op.f("ix_threat_report_account_id"), "threat_report", ["account_id"])
    op.create_table(
        "lighthouse_scan",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("status_page_id", sa.BigInteger(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("performance", sa.SmallInteger()),
        sa.Column("accessibility", sa.SmallInteger()),
        sa.Column("best_practices", sa.SmallInteger()),
        sa.Column("seo", sa.SmallInteger()),
        sa.Column("lcp_ms", sa.Double()),
        sa.Column("tbt_ms", sa.Double()),
        sa.Column("cls", sa.Double()),
        sa.Column("report", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("scanned_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["user_profile.account_id"], name=op.f("fk_lighthouse_scan_account_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["status_page_id"], ["status_page.id"], name=op.f("fk_lighthouse_scan_status_page_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lighthouse_scan")),
    )
    op.create_index(op.f("ix_lighthouse_scan_account_id"), "lighthouse_scan", ["account_id"])
    op.create_index(op.f("ix_lighthouse_scan_scanned_at"), "lighthouse_scan", ["scanned_at"])
    op.create_index(op.f("ix_lighthouse_scan_status_page_id"), "lighthouse_scan", ["status_page_id"])
    op.create_table(
        "listing",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("mockup_id", sa.BigInteger(), nullable=False),
        sa.Column("marketplace", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text()),
        sa.Column("state", sa.Text(), server_default=sa.text("'draft'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state in ('draft', 'live', 'ended')", name=op.f("ck_listing_state")),
        sa.ForeignKeyConstraint(["mockup_id"], ["mockup.id"], name=op.f("fk_listing_mockup_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_listing")),
        sa.UniqueConstraint("marketplace", "external_id", name=op.f("uq_listing_marketplace_external_id")),
    )
    op.create_index(op.f("ix_listing_mockup_id"), "listing", ["mockup_id"])
    op.create_table(
        "monitored_service",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("status_page_id", sa.BigInteger()),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), server_default=sa.text("'http'"), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("sla_target", sa.Numeric(precision=6, scale=3), server_default=sa.text("99.9"), nullable=False),
        sa.Column("maintenance", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'unknown'"), nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True)),
        sa.Column("streak", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_checked_at", sa.DateTime(timezone=True)),
        sa.Column("tls_expires_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind in ('http', 'tcp', 'tls')", name=op.f("ck_monitored_service_kind")),
        sa.CheckConstraint(
            "state in ('unknown', 'up', 'down', 'maintenance')", name=op.f("ck_monitored_service_state")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["user_profile.account_id"],
            name=op.f("fk_monitored_service_account_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["status_page_id"],
            ["status_page.id"],
            name=op.f("fk_monitored_service_status_page_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_monitored_service")),
    )
    op.create_index(op.f("ix_monitored_service_account_id"), "monitored_service", ["account_id"])
    op.create_index(op.f("ix_monitored_service_status_page_id"), "monitored_service", ["status_page_id"])
    op.create_table(
        "aggregated_analytics",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("service_id", sa.BigInteger()),
        sa.Column("granularity", sa.Text(), nullable=False),
        sa.Column("bucket_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("average_ms", sa.Double()),
        sa.Column("p50_ms", sa.Double()),
        sa.Column("p95_ms", sa.Double()),
        sa.Column("p99_ms", sa.Double()),
        sa.Column("error_rate", sa.Double()),
        sa.Column("uptime", sa.Double()),
        sa.Column("sketch", sa.LargeBinary()),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("granularity in ('hour', 'day')", name=op.f("ck_aggregated_analytics_granularity")),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["user_profile.account_id"],
            name=op.f("fk_aggregated_analytics_account_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["service_id"],
            ["monitored_service.id"],
            name=op.f("fk_aggregated_analytics_service_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_aggregated_analytics")),
        sa.UniqueConstraint(
            "account_id",
            "service_id",
            "granularity",
            "bucket_start",
            name="uq_aggregated_analytics_bucket",
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index(op.f("ix_aggregated_analytics_bucket_start"), "aggregated_analytics", ["bucket_start"])
    op.create_index(op.f("ix_aggregated_analytics_service_id"), "aggregated_analytics", ["service_id"])
    op.create_table(
        "incident",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("service_id", sa.BigInteger(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("severity in ('minor', 'major', 'critical')", name=op.f("ck_incident_severity")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["user_profile.account_id"], name=op.f("fk_incident_account_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["service_id"], ["monitored_service.id"], name=op.f("fk_incident_service_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident")),
    )
    op.create_index(op.f("ix_incident_account_id"), "incident", ["account_id"])
    op.create_index(op.f("ix_incident_service_id"), "incident", ["service_id"])
    op.create_index(op.f("ix_incident_started_at"), "incident", ["started_at"])
    op.create_index(
        "uq_incident_open", "incident", ["service_id"], unique=True, postgresql_where=sa.text("resolved_at IS NULL")
    )


def downgrade() -> None:
    op.drop_table("incident")
    op.drop_table("aggregated_analytics")
    op.drop_table("monitored_service")
    op.drop_table("listing")
    op.drop_table("lighthouse_scan")
    op.drop_table("threat_report")
    op.drop_table("status_page")
    op.drop_table("signal")
    op.drop_table("mockup")
    op.drop_table("integration_credential")
    op.drop_table("endpoints")
    op.drop_table("bug_report")
    op.drop_table("audit_log")
    op.drop_table("user_profile")
    op.drop_table("training_run")
    op.drop_table("threat_intelligence")
    op.drop_table("outbox_event")
    op.drop_table("ml_window")
    op.drop_table("idea")
    op.drop_table("data_encryption_key")
    op.drop_table("cookie_consent")
