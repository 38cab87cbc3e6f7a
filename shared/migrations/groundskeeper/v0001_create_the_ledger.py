"""The schema groundskeeper as the first release has it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "approval",
        sa.Column("approval_id", sa.Uuid(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("plan_hash", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expired_at", sa.DateTime(timezone=True)),
        sa.Column("decided_at", sa.DateTime(timezone=True)),
        sa.Column("decided_by", sa.Text()),
        sa.Column("decision", sa.String(length=8)),
        sa.Column("why", sa.Text()),
        sa.Column("used_by_run", sa.Uuid()),
        sa.CheckConstraint("decision in ('approved', 'rejected')", name=op.f("ck_approval_decision")),
        sa.PrimaryKeyConstraint("approval_id", name=op.f("pk_approval")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_approval_requested_at"), "approval", ["requested_at"], schema="groundskeeper")
    op.create_index(
        "uq_approval_open_plan",
        "approval",
        ["plan_hash"],
        unique=True,
        schema="groundskeeper",
        postgresql_where=sa.text("decided_at IS NULL AND expired_at IS NULL"),
    )
    op.create_table(
        "archive_manifest",
        sa.Column("archive_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("cutoff", sa.DateTime(timezone=True), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("destroyed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("archive_id", name=op.f("pk_archive_manifest")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_archive_manifest_run_id"), "archive_manifest", ["run_id"], schema="groundskeeper")
    op.create_table(
        "environment",
        sa.Column("one", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("livemode", sa.Boolean(), nullable=False),
        sa.Column("stamped_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("one", name=op.f("ck_environment_one")),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_environment")),
        schema="groundskeeper",
    )
    op.create_table(
        "legal_hold",
        sa.Column("hold_id", sa.Uuid(), nullable=False),
        sa.Column("table_name", sa.Text()),
        sa.Column("account_id", sa.Text()),
        sa.Column("run_id", sa.Uuid()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("placed_by", sa.Text(), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("released_at", sa.DateTime(timezone=True)),
        sa.Column("released_by", sa.Text()),
        sa.PrimaryKeyConstraint("hold_id", name=op.f("pk_legal_hold")),
        schema="groundskeeper",
    )
    op.create_table(
        "operator_audit",
        sa.Column("audit_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("why", sa.Text()),
        sa.Column("details", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name=op.f("pk_operator_audit")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_operator_audit_at"), "operator_audit", ["at"], schema="groundskeeper")
    op.create_table(
        "outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("ordering_key", sa.Text()),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True)),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        schema="groundskeeper",
    )
    op.create_index(
        "ix_outbox_pending",
        "outbox",
        ["created_at", "id"],
        schema="groundskeeper",
        postgresql_where=sa.text("published_at IS NULL"),
    )
    op.create_index(
        "ix_outbox_published",
        "outbox",
        ["published_at"],
        schema="groundskeeper",
        postgresql_where=sa.text("published_at IS NOT NULL"),
    )
    op.create_table(
        "pause",
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("paused_by", sa.Text(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("task", name=op.f("pk_pause")),
        schema="groundskeeper",
    )
    op.create_table(
        "plan",
        sa.Column("plan_hash", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("params", postgresql.JSONB(), nullable=False),
        sa.Column("ceiling", postgresql.JSONB(), nullable=False),
        sa.Column("items", postgresql.JSONB(), nullable=False),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("plan_hash", name=op.f("pk_plan")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_plan_created_at"), "plan", ["created_at"], schema="groundskeeper")
    op.create_table(
        "run_request",
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("params", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("planning", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("plan_hash", sa.Text()),
        sa.Column("break_glass", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True)),
        sa.Column("cancelled_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_run_request")),
        schema="groundskeeper",
    )
    op.create_index(
        op.f("ix_run_request_task_requested_at"), "run_request", ["task", "requested_at"], schema="groundskeeper"
    )
    op.create_table(
        "task_run",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("run_key", sa.Text(), nullable=False),
        sa.Column("shard", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("trigger", sa.String(length=8), nullable=False),
        sa.Column("scheduled_for", sa.DateTime(timezone=True)),
        sa.Column("outcome", sa.String(length=12)),
        sa.Column("counts", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("plan_hash", sa.Text()),
        sa.Column("error_class", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("why", sa.Text()),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "outcome in ('ok', 'planned', 'skipped', 'busy', 'stopped', 'waiting', 'unavailable',"
            " 'refused', 'retry', 'partial', 'failed')",
            name=op.f("ck_task_run_outcome"),
        ),
        sa.CheckConstraint("trigger in ('cron', 'every', 'topic', 'http', 'hand')", name=op.f("ck_task_run_trigger")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_task_run")),
        sa.UniqueConstraint("task", "run_key", "shard", name=op.f("uq_task_run_task_run_key_shard")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_task_run_started_at"), "task_run", ["started_at"], schema="groundskeeper")
    op.create_index(
        op.f("ix_task_run_task_started_at"),
        "task_run",
        ["task", sa.literal_column("started_at DESC")],
        schema="groundskeeper",
    )
    op.create_table(
        "verified_backup",
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recovery_s", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("manifest", name=op.f("pk_verified_backup")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_verified_backup_verified_at"), "verified_backup", ["verified_at"], schema="groundskeeper")
    op.create_table(
        "task_attempt",
        sa.Column("fence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("lease_s", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("progress_done", sa.BigInteger()),
        sa.Column("progress_total", sa.BigInteger()),
        sa.ForeignKeyConstraint(
            ["run_id"], ["groundskeeper.task_run.run_id"], name=op.f("fk_task_attempt_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("fence", name=op.f("pk_task_attempt")),
        sa.UniqueConstraint("run_id", "attempt", name=op.f("uq_task_attempt_run_id_attempt")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_task_attempt_run_id"), "task_attempt", ["run_id"], schema="groundskeeper")
    op.create_index(
        "uq_task_attempt_live_scope",
        "task_attempt",
        ["scope"],
        unique=True,
        schema="groundskeeper",
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("task_attempt", schema="groundskeeper")
    op.drop_table("verified_backup", schema="groundskeeper")
    op.drop_table("task_run", schema="groundskeeper")
    op.drop_table("run_request", schema="groundskeeper")
    op.drop_table("plan", schema="groundskeeper")
    op.drop_table("pause", schema="groundskeeper")
    op.drop_table("outbox", schema="groundskeeper")
    op.drop_table("operator_audit", schema="groundskeeper")
    op.drop_table("legal_hold", schema="groundskeeper")
    op.drop_table("environment", schema="groundskeeper")
    op.drop_table("archive_manifest", schema="groundskeeper")
    op.drop_table("approval", schema="groundskeeper")
