"""Incidents that the watchdog opened, so that each is told once."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "watch_incident",
        sa.Column("incident_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("severity", sa.String(length=8), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("runbook", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True)),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.Column("told_closed_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("severity in ('warning', 'error')", name=op.f("ck_watch_incident_severity")),
        sa.PrimaryKeyConstraint("incident_id", name=op.f("pk_watch_incident")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_watch_incident_opened_at"), "watch_incident", ["opened_at"], schema="groundskeeper")
    op.create_index(
        "uq_watch_incident_open",
        "watch_incident",
        ["key"],
        unique=True,
        schema="groundskeeper",
        postgresql_where=sa.text("closed_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("watch_incident", schema="groundskeeper")
