"""Mockups by image: whether a row names an object is asked for each page of a sweep and each image of an archive."""

from alembic import op

revision = "0004"
down_revision = "0003"

concurrently = {"ix_mockup_image": "mockup (image)"}


def upgrade() -> None:
    """Nothing but the index."""


def downgrade() -> None:
    op.drop_index(op.f("ix_mockup_image"), "mockup")
