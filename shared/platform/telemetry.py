"""Raw telemetry by day, its rollups, page scans and the platform's outbox."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import INET, JSONB

from shared.platform.metadata import EMPTY_OBJECT, identity, metadata, of_account
from shared.schema import Moment

# One row a ping or request. Range-partitioned by UTC day; shared/platform/partitions.py makes the partitions
# ahead. There is no default partition: it would forbid DETACH CONCURRENTLY, so a row of a day that has no
# partition is refused. The key begins with the time, so it serves retention and rollups too and new rows land
# at its right edge; `id` is the event's own id, so the same event again is a conflict and not a second row.
# service_id is plain: a foreign key would need an index of its own for every deletion of a service.
endpoints = Table(
    "endpoints",
    metadata,
    Column("last_tested", Moment, primary_key=True),
    Column("id", Uuid, primary_key=True),
    of_account(index=False),
    Column("service_id", BigInteger),  # null: a request the application reported, not a ping
    Column("url", Text, nullable=False),
    Column("status_code", SmallInteger),  # null: no answer, see error
    Column("response_time", Double),  # milliseconds
    Column("error", Text),
    Column("ip_address", INET),  # anonymised before it is stored: /24 or /64
    Column("location", Text),
    Column("asn", BigInteger),
    Column("isp", Text),
    Column("device_type", Text),
    Column("os_name", Text),
    Column("browser_name", Text),
    Column("is_bot", Boolean, nullable=False, server_default=text("false")),
    Column("is_threat", Boolean, nullable=False, server_default=text("false")),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("telemetry_context", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    postgresql_partition_by="RANGE (last_tested)",
)
Index(None, endpoints.c.account_id, endpoints.c.last_tested)

# Rollups by hour and day. `sketch` is mergeable state: days come from it, never from averages of hours.
# No requests in a bucket is no row; no data is null, never 100 %.
aggregated_analytics = Table(
    "aggregated_analytics",
    metadata,
    identity(),
    of_account(index=False),
    Column("service_id", ForeignKey("monitored_service.id", ondelete="CASCADE"), index=True),
    Column("granularity", Text, nullable=False),
    Column("bucket_start", Moment, nullable=False, index=True),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("average_ms", Double),
    Column("p50_ms", Double),
    Column("p95_ms", Double),
    Column("p99_ms", Double),
    Column("error_rate", Double),  # 0 to 1
    Column("uptime", Double),  # 0 to 1
    Column("sketch", LargeBinary),
    Column("updated_at", Moment, nullable=False),
    UniqueConstraint(
        "account_id",
        "service_id",
        "granularity",
        "bucket_start",
        name="uq_aggregated_analytics_bucket",
        postgresql_nulls_not_distinct=True,
    ),
    CheckConstraint("granularity in ('hour', 'day')", name="granularity"),
)

lighthouse_scan = Table(
    "lighthouse_scan",
    metadata,
    identity(),
    of_account(),
    Column("status_page_id", ForeignKey("status_page.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("performance", SmallInteger),  # scores 0 to 100; all null where the page was dead, see error
    Column("accessibility", SmallInteger),
    Column("best_practices", SmallInteger),
    Column("seo", SmallInteger),
    Column("lcp_ms", Double),
    Column("tbt_ms", Double),
    Column("cls", Double),
    Column("report", Text),  # location of the trimmed report
    Column("error", Text),
    Column("scanned_at", Moment, nullable=False, index=True),
)

# The same shape as groundskeeper.outbox. Five failed attempts make an event dead: published_at stays null.
outbox_event = Table(
    "outbox_event",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("ordering_key", Text),
    Column("payload", JSONB, nullable=False),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("last_error", Text),
    Column("created_at", Moment, nullable=False),
    Column("next_attempt_at", Moment),
    Column("published_at", Moment),
)
Index(
    "ix_outbox_event_pending",
    outbox_event.c.created_at,
    outbox_event.c.id,
    postgresql_where=outbox_event.c.published_at.is_(None),
)
Index(
    "ix_outbox_event_published",
    outbox_event.c.published_at,
    postgresql_where=outbox_event.c.published_at.is_not(None),
)
