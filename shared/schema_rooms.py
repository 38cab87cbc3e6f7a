"""The tables of single rooms: feeds and scans, secrets' rotations, query plans. shared/schema.py gathers them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.schema_base import Moment, metadata

# A feed's last good copy, and how it went since. `merged_at`: when all of a copy was last merged, changed or not.
feed_state = Table(
    "feed_state",
    metadata,
    Column("feed", Text, primary_key=True),
    Column("etag", Text),
    Column("last_modified", Text),
    Column("sha256", Text),
    Column("indicators", Integer, nullable=False, server_default=text("0")),
    Column("tried_at", Moment),
    Column("good_at", Moment),
    Column("merged_at", Moment),
    Column("shrunk_since", Moment),  # when it first came suspiciously small
    Column("failures", Integer, nullable=False, server_default=text("0")),  # in a row
    Column("error", Text),
)

# The rows of each feed's last good copy that were refused, the first of them, and why.
feed_reject = Table(
    "feed_reject",
    metadata,
    Column("feed", Text, primary_key=True),
    Column("number", Integer, primary_key=True),  # of the record in its copy
    Column("reason", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("rejected_at", Moment, nullable=False),
)

# How far a scan of somebody's service has come, and when it may be asked again.
scan_state = Table(
    "scan_state",
    metadata,
    Column("scan", Text, primary_key=True),
    Column("cursor", JSONB, nullable=False, server_default=text("'{}'")),
    Column("not_before", Moment),
    Column("finished_at", Moment),
    Column("updated_at", Moment, nullable=False),
)

# How far each secret's rotation has come; never a value. One that is open keeps the next from beginning.
secret_rotation = Table(
    "secret_rotation",
    metadata,
    Column("rotation_id", Uuid, primary_key=True),
    Column("secret", Text, nullable=False),
    Column("rotator", Text, nullable=False),
    Column("run_id", Uuid, nullable=False),  # the approved run that began it
    Column("step", String(11), nullable=False),
    Column("old_version", Text),
    Column("new_version", Text),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),  # names of logins and endpoints
    Column("started_at", Moment, nullable=False),
    Column("promoted_at", Moment),
    Column("disabled_at", Moment),
    Column("ended_at", Moment),
    Column("error", Text),
    CheckConstraint("step in ('started', 'promoted', 'disabled', 'destroyed', 'rolled_back')", name="step"),
)
Index(
    "uq_secret_rotation_open",
    secret_rotation.c.secret,
    unique=True,
    postgresql_where=secret_rotation.c.ended_at.is_(None),
)

# One look at the worst statements of pg_stat_statements; its run is the key.
query_analysis = Table(
    "query_analysis",
    metadata,
    Column("run_id", Uuid, primary_key=True),
    Column("at", Moment, nullable=False, index=True),
    Column("since", Moment),  # the look before: counters are from then; null: from their reset
    Column("stats_reset", Moment),
    Column("was_reset", Boolean, nullable=False),
    Column("statements", Integer, nullable=False),
    Column("explained", Integer, nullable=False),
    Column("reasons", JSONB, nullable=False),  # why not -> how many
    Column("findings", JSONB, nullable=False),  # of the catalogue
)

# The statements of a look, the worst first. No value of a statement is ever in `sql` or `plan`.
query_plan = Table(
    "query_plan",
    metadata,
    Column("run_id", Uuid, ForeignKey(query_analysis.c.run_id, ondelete="CASCADE"), primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("query_id", BigInteger, nullable=False),
    Column("sql", Text),
    Column("calls", BigInteger, nullable=False),
    Column("total_ms", Double, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("plan", JSONB),
    Column("plan_hash", Text),
    Column("before", Text),  # the hash of the plan before, where it was another
    Column("reason", Text),  # why there is no plan
    Column("findings", JSONB, nullable=False),
)
Index(None, query_plan.c.query_id, query_plan.c.at.desc())

# The counters as the last look saw them; written anew by each.
query_total = Table(
    "query_total",
    metadata,
    Column("query_id", BigInteger, primary_key=True, autoincrement=False),
    Column("calls", BigInteger, nullable=False),
    Column("total_ms", Double, nullable=False),
    Column("rows", BigInteger, nullable=False),
)
