"""Notes of partitions being dropped, and of the rows a restore brought back."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "detached_partition",
        sa.Column("note_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=False),
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("partition_oid", sa.BigInteger(), nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("note_id", name=op.f("pk_detached_partition")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_detached_partition_noted_at"), "detached_partition", ["noted_at"], schema="groundskeeper")
    op.create_index(
        "uq_detached_partition_open",
        "detached_partition",
        ["partition_oid"],
        unique=True,
        schema="groundskeeper",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "restored_row",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "key", "run_id", name=op.f("pk_restored_row")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_restored_row_until"), "restored_row", ["until"], schema="groundskeeper")


def downgrade() -> None:
    op.drop_table("restored_row", schema="groundskeeper")
    op.drop_table("detached_partition", schema="groundskeeper")
