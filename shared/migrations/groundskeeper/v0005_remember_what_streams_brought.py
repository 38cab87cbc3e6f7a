"""Remember what streams brought: handled events, dead letters, and how far each was read."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "event_id", name=op.f("pk_inbox")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_inbox_received_at"), "inbox", ["received_at"], schema="groundskeeper")
    op.create_table(
        "dead_letter",
        sa.Column("letter_id", sa.Uuid(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text()),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("letter_id", name=op.f("pk_dead_letter")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_dead_letter_received_at"), "dead_letter", ["received_at"], schema="groundskeeper")
    op.create_table(
        "stream_offset",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "topic", "partition", name=op.f("pk_stream_offset")),
        schema="groundskeeper",
    )


def downgrade() -> None:
    op.drop_table("stream_offset", schema="groundskeeper")
    op.drop_table("dead_letter", schema="groundskeeper")
    op.drop_table("inbox", schema="groundskeeper")
