"""Notes of objects whose rows were archived and are gone, until the objects are deleted too."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "pending_object",
        sa.Column("archive_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("archive_id", "name", name=op.f("pk_pending_object")),
        schema="groundskeeper",
    )


def downgrade() -> None:
    op.drop_table("pending_object", schema="groundskeeper")
