"""Labels of windows, forecasts of services, scores of the platform."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "window_label",
        sa.Column("window_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("width_s", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("is_attack", sa.Boolean(), nullable=False),
        sa.Column("said_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("source in ('operator', 'incident', 'indicator')", name=op.f("ck_window_label_source")),
        sa.PrimaryKeyConstraint("window_start", "width_s", "source", name=op.f("pk_window_label")),
    )
    op.create_table(
        "service_forecast",
        sa.Column("service_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("breach_probability", sa.Double(), nullable=False),
        sa.Column("p50_ms", sa.Double()),
        sa.Column("p90_ms", sa.Double()),
        sa.Column("p95_ms", sa.Double()),
        sa.ForeignKeyConstraint(
            ["service_id"], ["monitored_service.id"], name=op.f("fk_service_forecast_service_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["user_profile.account_id"], name=op.f("fk_service_forecast_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("service_id", name=op.f("pk_service_forecast")),
    )
    op.create_index(op.f("ix_service_forecast_account_id"), "service_forecast", ["account_id"])
    op.create_table(
        "platform_score",
        sa.Column("window_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("width_s", sa.Integer(), nullable=False),
        sa.Column("threat_version", sa.Text()),
        sa.Column("attack_probability", sa.Double()),
        sa.Column("ces_version", sa.Text()),
        sa.Column("ces", sa.Double()),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("window_start", "width_s", name=op.f("pk_platform_score")),
    )


def downgrade() -> None:
    op.drop_table("platform_score")
    op.drop_table("service_forecast")
    op.drop_table("window_label")
