"""All tables of the reference platform, parents before children."""

from sqlalchemy import MetaData

from shared.platform import accounts, learning, metadata, products, security, telemetry

_DECLARED_IN = (accounts, learning, products, security, telemetry)

METADATA: MetaData = metadata.metadata
TABLES = tuple(METADATA.sorted_tables)
