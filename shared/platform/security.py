"""Threats, reports, and the sealed credentials of integrations."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import INET, JSONB

from shared.platform.metadata import EMPTY_LIST, from_account, identity, metadata, of_account
from shared.schema import Moment

# Legacy rows have no canonical_key and may be there many times over (indicator_type, indicator); db_cleanup
# removes the surplus. New rows are merged by canonical_key, which is unique where it is given: legacy rows
# can be keyed one by one, and the column becomes NOT NULL once none is left without.
threat_intelligence = Table(
    "threat_intelligence",
    metadata,
    identity(),
    Column("canonical_key", Text, unique=True),
    Column("indicator_type", Text, nullable=False),  # ipv4, ipv6, cidr, domain, url, sha256, cve, mention, ...
    Column("indicator", Text, nullable=False),
    Column("confidence", SmallInteger),  # 0 to 100, lower as it ages
    Column("severity", Text),
    Column("description", Text),
    Column("sources", JSONB, nullable=False, server_default=EMPTY_LIST),  # [{source, reference, seen_at}]: why listed
    Column("first_seen", Moment),
    Column("last_seen", Moment),
    Column("expires_at", Moment, index=True),
    Column("created_at", Moment, nullable=False),
    Column("base_confidence", SmallInteger),  # when last seen
)
Index(None, threat_intelligence.c.indicator_type, threat_intelligence.c.indicator)

# Both kinds of report are kept for ever; when the account goes, the link and the personal columns are emptied.
bug_report = Table(
    "bug_report",
    metadata,
    identity(),
    from_account(),
    Column("reporter_email", Text),
    Column("ip_address", INET),
    Column("user_agent", Text),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("url", Text),
    Column("status", Text, nullable=False, server_default=text("'open'")),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("status in ('open', 'fixed', 'rejected')", name="status"),
)

threat_report = Table(
    "threat_report",
    metadata,
    identity(),
    from_account(),
    Column("reporter_email", Text),
    Column("ip_address", INET),
    Column("indicator_type", Text, nullable=False),
    Column("indicator", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'open'")),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("status in ('open', 'confirmed', 'rejected')", name="status"),
)

# Only wrapped keys: the key that wraps them stays in KMS. The id is the version named in each sealed row.
data_encryption_key = Table(
    "data_encryption_key",
    metadata,
    identity(),
    Column("wrapped_key", LargeBinary),  # null once destroyed
    Column("kek", Text, nullable=False),  # resource name of the key version that wrapped it
    Column("algorithm", Text, nullable=False, server_default=text("'AES-256-GCM'")),
    Column("state", Text, nullable=False, server_default=text("'active'")),
    Column("created_at", Moment, nullable=False),
    Column("retired_at", Moment),
    Column("destroyed_at", Moment),
    CheckConstraint("state in ('active', 'retiring', 'retired', 'destroyed')", name="state"),
    CheckConstraint("(state = 'destroyed') = (wrapped_key is null)", name="destroyed"),
)
Index(
    "uq_data_encryption_key_active",
    data_encryption_key.c.state,
    unique=True,
    postgresql_where=text("state = 'active'"),
)

# `generation` counts writes: re-encryption swaps a row only while it is unchanged.
integration_credential = Table(
    "integration_credential",
    metadata,
    identity(),
    of_account(index=False),
    Column("provider", Text, nullable=False),  # ga4, clarity, ...
    Column("dek_id", ForeignKey("data_encryption_key.id"), nullable=False, index=True),
    Column("nonce", LargeBinary, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("generation", Integer, nullable=False, server_default=text("1")),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    UniqueConstraint("account_id", "provider"),
)
