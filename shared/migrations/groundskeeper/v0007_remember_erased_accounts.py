"""Remember erased accounts, as keyed hashes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "erasure",
        sa.Column("account_hash", sa.Text(), nullable=False),
        sa.Column("erasure_id", sa.Uuid(), nullable=False),
        sa.Column("person_hash", sa.Text()),
        sa.Column("account_id", sa.Text()),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True)),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("steps", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("receipt", postgresql.JSONB()),
        sa.CheckConstraint("completed_at is null or account_id is null", name=op.f("ck_erasure_forgotten")),
        sa.PrimaryKeyConstraint("account_hash", name=op.f("pk_erasure")),
        sa.UniqueConstraint("erasure_id", name=op.f("uq_erasure_erasure_id")),
        sa.UniqueConstraint("account_id", name=op.f("uq_erasure_account_id")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_erasure_person_hash"), "erasure", ["person_hash"], schema="groundskeeper")


def downgrade() -> None:
    op.drop_table("erasure", schema="groundskeeper")
