"""What retention leaves behind: copies to restore from, and what was begun and is not to be forgotten."""

from sqlalchemy import BigInteger, Column, Identity, Index, Table, Text, Uuid

from shared.schema import Moment, metadata

# The verified copies from which runs can be restored. What has no row and no manifest does not exist.
archive_manifest = Table(
    "archive_manifest",
    metadata,
    Column("archive_id", Uuid, primary_key=True),
    Column("run_id", Uuid, nullable=False, index=True),
    Column("source", Text, nullable=False),  # a table's or a bucket prefix's name
    Column("location", Text, nullable=False),  # of the manifest file
    Column("items", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),  # of the manifest file
    Column("cutoff", Moment, nullable=False),
    Column("written_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("destroyed_at", Moment),
)

# A partition some run is about to detach and drop. Written before it is detached, so that a run killed in between
# leaves no table that nobody knows of; ended when it is dropped, or found attached or gone.
detached_partition = Table(
    "detached_partition",
    metadata,
    Column("note_id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", Uuid, nullable=False),
    Column("parent", Text, nullable=False),
    Column("partition", Text, nullable=False),
    Column("partition_oid", BigInteger, nullable=False),  # a later table of that name is not it
    Column("noted_at", Moment, nullable=False, index=True),
    Column("ended_at", Moment),
)
Index(
    "uq_detached_partition_open",
    detached_partition.c.partition_oid,
    unique=True,
    postgresql_where=detached_partition.c.ended_at.is_(None),
)

# The rows a restore brought back, by primary key: a hold that names the run covers exactly these.
restored_row = Table(
    "restored_row",
    metadata,
    Column("source", Text, primary_key=True),  # schema.table
    Column("key", Text, primary_key=True),  # the text of row(key columns)
    Column("run_id", Uuid, primary_key=True),
    Column("until", Moment, nullable=False, index=True),  # the hold's end
)

# An object whose row was archived and is gone, and which is still to be deleted; the row goes when that is done.
# Written with the row's deletion, so that a run killed in between leaves no object that nobody knows of.
pending_object = Table(
    "pending_object",
    metadata,
    Column("archive_id", Uuid, primary_key=True),
    Column("name", Text, primary_key=True),  # below its location
    Column("location", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("source", Text, nullable=False),  # schema.table of the rows that named it
    Column("noted_at", Moment, nullable=False),
)
