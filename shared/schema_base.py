"""What all of Groundskeeper's own tables share: one schema, one naming of constraints, one type for moments."""

from sqlalchemy import DateTime, MetaData

SCHEMA = "groundskeeper"

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    },
)

Moment = DateTime(timezone=True)
