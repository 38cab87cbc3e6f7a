"""The confidence of threats before age lowers it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("threat_intelligence", sa.Column("base_confidence", sa.SmallInteger()))


def downgrade() -> None:
    op.drop_column("threat_intelligence", "base_confidence")
