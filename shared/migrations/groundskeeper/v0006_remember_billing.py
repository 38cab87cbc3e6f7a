"""Remember which Stripe customer is whose, what Stripe told, and what was granted by hand."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "billing_customer",
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text()),
        sa.Column("generation", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("linked_at", sa.DateTime(timezone=True)),
        sa.Column("settled_at", sa.DateTime(timezone=True)),
        sa.Column("asked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("customer_id", name=op.f("pk_billing_customer")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_billing_customer_account_id"), "billing_customer", ["account_id"], schema="groundskeeper")
    op.create_table(
        "billing_event",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text()),
        sa.Column("account_id", sa.Text()),
        sa.Column("linked_at", sa.DateTime(timezone=True)),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(length=9), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "outcome in ('done', 'ignored', 'unmatched', 'failed')", name=op.f("ck_billing_event_outcome")
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_billing_event")),
        schema="groundskeeper",
    )
    op.create_index(op.f("ix_billing_event_received_at"), "billing_event", ["received_at"], schema="groundskeeper")
    op.create_index(
        "ix_billing_event_failed",
        "billing_event",
        ["received_at"],
        schema="groundskeeper",
        postgresql_where=sa.text("outcome = 'failed'"),
    )
    op.create_table(
        "billing_grant",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_billing_grant")),
        schema="groundskeeper",
    )


def downgrade() -> None:
    for table in ("billing_grant", "billing_event", "billing_customer"):
        op.drop_table(table, schema="groundskeeper")
