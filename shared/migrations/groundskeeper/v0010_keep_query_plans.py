"""The worst statements' plans, and the counters they were chosen by."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "query_analysis",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True)),
        sa.Column("stats_reset", sa.DateTime(timezone=True)),
        sa.Column("was_reset", sa.Boolean(), nullable=False),
        sa.Column("statements", sa.Integer(), nullable=False),
        sa.Column("explained", sa.Integer(), nullable=False),
        sa.Column("reasons", postgresql.JSONB(), nullable=False),
        sa.Column("findings", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_query_analysis")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_query_analysis_at"), "query_analysis", ["at"], schema="groundskeeper")
    op.create_table(
        "query_plan",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("query_id", sa.BigInteger(), nullable=False),
        sa.Column("sql", sa.Text()),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("total_ms", sa.Double(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("plan", postgresql.JSONB()),
        sa.Column("plan_hash", sa.Text()),
        sa.Column("before", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("findings", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["groundskeeper.query_analysis.run_id"],
            name=op.f("fk_query_plan_run_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_id", "rank", name=op.f("pk_query_plan")),
        schema="groundskeeper",
    )
    op.create_index(
        op.f("ix_query_plan_query_id_at"),
        "query_plan",
        ["query_id", sa.literal_column("at DESC")],
        schema="groundskeeper",
    )
    op.create_table(
        "query_total",
        sa.Column("query_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("total_ms", sa.Double(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("query_id", name=op.f("pk_query_total")),
        schema="groundskeeper",
    )


def downgrade() -> None:
    op.drop_table("query_total", schema="groundskeeper")
    op.drop_table("query_plan", schema="groundskeeper")
    op.drop_table("query_analysis", schema="groundskeeper")
