"""How far each secret's rotation has come."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "secret_rotation",
        sa.Column("rotation_id", sa.Uuid(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("rotator", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.String(length=11), nullable=False),
        sa.Column("old_version", sa.Text()),
        sa.Column("new_version", sa.Text()),
        sa.Column("details", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("promoted_at", sa.DateTime(timezone=True)),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("error", sa.Text()),
        sa.CheckConstraint(
            "step in ('started', 'promoted', 'disabled', 'destroyed', 'rolled_back')",
            name=op.f("ck_secret_rotation_step"),
        ),
        sa.PrimaryKeyConstraint("rotation_id", name=op.f("pk_secret_rotation")),
        schema="groundskeeper",
    )
    op.create_index(
        "uq_secret_rotation_open",
        "secret_rotation",
        ["secret"],
        unique=True,
        schema="groundskeeper",
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("secret_rotation", schema="groundskeeper")
