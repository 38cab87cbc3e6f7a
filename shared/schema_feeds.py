"""What is known of feeds and scans from before."""

from sqlalchemy import Column, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from shared.schema import Moment, metadata

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
