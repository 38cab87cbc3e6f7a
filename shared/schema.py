"""Groundskeeper's own tables: the schema `groundskeeper`, whatever database it is added to.

Migrations (shared/migrations, branch `groundskeeper`) create them; a test holds models and migrations equal.
All times are timestamptz in UTC. Nothing here ever holds a secret; personal data only in `legal_hold`
and `erasure` where it cannot be avoided, as opaque account ids or keyed hashes.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    and_,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.errors import Outcome
from shared.schema_base import SCHEMA as SCHEMA
from shared.schema_base import Moment as Moment
from shared.schema_base import metadata as metadata
from shared.schema_rooms import feed_reject as feed_reject
from shared.schema_rooms import feed_state as feed_state
from shared.schema_rooms import query_analysis as query_analysis
from shared.schema_rooms import query_plan as query_plan
from shared.schema_rooms import query_total as query_total
from shared.schema_rooms import scan_state as scan_state
from shared.schema_rooms import secret_rotation as secret_rotation

# The newest migration of the branch `groundskeeper`: code refuses a database at an older one, and at a newer one that
# does not say that it serves this code.
VERSION = "0010"


def serves(revision: str, oldest: str) -> str:
    """The comment of the version table of a schema at `revision` on which code since `oldest` works."""
    return f"{revision} serves code from {oldest}"


# One row a run: unique by task, run key and shard, so that the same slot delivered twice is one run.
task_run = Table(
    "task_run",
    metadata,
    Column("run_id", Uuid, primary_key=True),
    Column("task", Text, nullable=False),
    Column("run_key", Text, nullable=False),
    Column("shard", Integer, nullable=False, server_default=text("0")),
    Column("trigger", String(8), nullable=False),  # cron, every, topic, http, hand
    Column("scheduled_for", Moment),
    Column("outcome", String(12)),  # null while it runs
    Column("counts", JSONB, nullable=False, server_default=text("'{}'")),
    Column("plan_hash", Text),
    Column("error_class", Text),
    Column("error", Text),  # words safe to show: no secret, no personal data
    Column("actor", Text, nullable=False),
    Column("why", Text),
    Column("code_version", Text, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment),
    UniqueConstraint("task", "run_key", "shard"),
    CheckConstraint(f"outcome in ({', '.join(repr(o.value) for o in Outcome)})", name="outcome"),
    CheckConstraint("trigger in ('cron', 'every', 'topic', 'http', 'hand')", name="trigger"),
)
Index(None, task_run.c.task, task_run.c.started_at.desc())
Index(None, task_run.c.started_at)

# One row an attempt. `fence` only grows. An attempt holds the lease of its scope while ended_at is null;
# the partial unique index makes that one attempt a scope.
task_attempt = Table(
    "task_attempt",
    metadata,
    Column("fence", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", Uuid, ForeignKey(task_run.c.run_id, ondelete="CASCADE"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("scope", Text, nullable=False),
    Column("lease_s", Integer, nullable=False),
    Column("started_at", Moment, nullable=False),  # the database's clock, as are the next two
    Column("heartbeat_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("progress_done", BigInteger),
    Column("progress_total", BigInteger),
    UniqueConstraint("run_id", "attempt"),
)
Index(
    "uq_task_attempt_live_scope",
    task_attempt.c.scope,
    unique=True,
    postgresql_where=task_attempt.c.ended_at.is_(None),
)

# Asked for by hand, by an approval or by another task: who, why, with what. Its id is the run key.
run_request = Table(
    "run_request",
    metadata,
    Column("request_id", Uuid, primary_key=True),
    Column("task", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("params", JSONB, nullable=False, server_default=text("'{}'")),
    Column("planning", Boolean, nullable=False, server_default=text("false")),
    Column("plan_hash", Text),  # act only on exactly this plan
    Column("break_glass", Boolean, nullable=False, server_default=text("false")),
    Column("requested_at", Moment, nullable=False),
    Column("claimed_at", Moment),  # a job picks its request up; a cancelled one is claimed too
    Column("cancelled_at", Moment),
)
Index(None, run_request.c.task, run_request.c.requested_at)

# What a run would do. The hash covers task, parameters, code version, predicates, cutoff and ceiling, never counts.
plan = Table(
    "plan",
    metadata,
    Column("plan_hash", Text, primary_key=True),
    Column("task", Text, nullable=False),
    Column("run_id", Uuid, nullable=False),  # the run that first made it
    Column("as_of", Moment, nullable=False),  # the planning run's now: the approved run reuses it
    Column("params", JSONB, nullable=False),  # the overrides it was planned with
    Column("ceiling", JSONB, nullable=False),  # unit -> the most the run may do
    Column("items", JSONB, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("created_at", Moment, nullable=False, index=True),
)

approval = Table(
    "approval",
    metadata,
    Column("approval_id", Uuid, primary_key=True),
    Column("task", Text, nullable=False),
    Column("plan_hash", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("expired_at", Moment),  # closed undecided, so that the plan can be asked about again
    Column("decided_at", Moment),
    Column("decided_by", Text),
    Column("decision", String(8)),  # approved, rejected
    Column("why", Text),
    Column("used_by_run", Uuid),  # single use
    CheckConstraint("decision in ('approved', 'rejected')", name="decision"),
)
Index(
    "uq_approval_open_plan",
    approval.c.plan_hash,
    unique=True,
    postgresql_where=and_(approval.c.decided_at.is_(None), approval.c.expired_at.is_(None)),
)
Index(None, approval.c.requested_at)

# What operators did: kept 18 months, archived by purge_audit.
operator_audit = Table(
    "operator_audit",
    metadata,
    Column("audit_id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", Moment, nullable=False, index=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),  # run, approve, reject, pause, resume, hold, release, ...
    Column("subject", Text, nullable=False),
    Column("why", Text),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
)

# What no deleter may touch: a table, an account, both, or all (both null).
legal_hold = Table(
    "legal_hold",
    metadata,
    Column("hold_id", Uuid, primary_key=True),
    Column("table_name", Text),
    Column("account_id", Text),
    Column("run_id", Uuid),  # a restore's hold covers exactly what it brought back
    Column("reason", Text, nullable=False),
    Column("placed_by", Text, nullable=False),
    Column("placed_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("released_at", Moment),
    Column("released_by", Text),
)

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

pause = Table(
    "pause",
    metadata,
    Column("task", Text, primary_key=True),  # a task's name, or * for all
    Column("reason", Text, nullable=False),
    Column("paused_by", Text, nullable=False),
    Column("paused_at", Moment, nullable=False),
    Column("until", Moment),
)

# The stamp of this database: a process configured for another environment refuses to start. One row.
environment = Table(
    "environment",
    metadata,
    Column("one", Boolean, CheckConstraint("one", name="one"), primary_key=True, server_default=text("true")),
    Column("project", Text, nullable=False),
    Column("livemode", Boolean, nullable=False),
    Column("stamped_at", Moment, nullable=False),
)

# Written by verify_backup, read by the gate before destructive runs.
verified_backup = Table(
    "verified_backup",
    metadata,
    Column("manifest", Text, primary_key=True),  # location of the backup's manifest
    Column("taken_at", Moment, nullable=False),
    Column("verified_at", Moment, nullable=False, index=True),
    Column("recovery_s", Integer, nullable=False),
)

# What the watchdog saw going wrong: told once when it begins and once when it is over.
watch_incident = Table(
    "watch_incident",
    metadata,
    Column("incident_id", Uuid, primary_key=True),
    Column("key", Text, nullable=False),  # late/db_cleanup, schedule/db-cleanup, age/outbox, ...
    Column("severity", String(8), nullable=False),
    Column("summary", Text, nullable=False),  # as it was when last looked at
    Column("runbook", Text, nullable=False),
    Column("opened_at", Moment, nullable=False, index=True),
    Column("seen_at", Moment, nullable=False),
    Column("told_at", Moment),  # null while nobody could be told
    Column("closed_at", Moment),
    Column("told_closed_at", Moment),
    CheckConstraint("severity in ('warning', 'error')", name="severity"),
)
Index(
    "uq_watch_incident_open",
    watch_incident.c.key,
    unique=True,
    postgresql_where=watch_incident.c.closed_at.is_(None),
)

# Whose a Stripe customer is (null: nobody's that we know), and when its state was last written. A generation is taken
# from one sequence at each write: whoever fetched state before it must fetch again.
billing_customer = Table(
    "billing_customer",
    metadata,
    Column("customer_id", Text, primary_key=True),
    Column("account_id", Text, index=True),
    Column("generation", BigInteger, Identity(always=False), nullable=False),
    Column("linked_at", Moment),  # the Checkout session's time; null where the platform itself stored the customer
    Column("settled_at", Moment),
    Column("asked_at", Moment),  # by its owner, for the rate limit; of nobody's: when its session was looked for
)

# Every event of Stripe's that was taken, under its own id; never its contents.
billing_event = Table(
    "billing_event",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("customer_id", Text),
    Column("account_id", Text),  # the session's client_reference_id
    Column("linked_at", Moment),  # the session's time
    Column("occurred_at", Moment, nullable=False),
    Column("received_at", Moment, nullable=False, index=True),
    Column("outcome", String(9), nullable=False),
    Column("reason", Text),
    Column("attempts", Integer, nullable=False),
    CheckConstraint("outcome in ('done', 'ignored', 'unmatched', 'failed')", name="outcome"),
)
Index("ix_billing_event_failed", billing_event.c.received_at, postgresql_where=billing_event.c.outcome == "failed")

# What an account had by hand when it first subscribed: the lapse of the subscription does not end it.
billing_grant = Table(
    "billing_grant",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("tier", Text, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    Column("ended_at", Moment),
)

# Accounts that are erased, or being erased, as keyed hashes: what arrives of them later, from wherever, stays out.
erasure = Table(
    "erasure",
    metadata,
    Column("account_hash", Text, primary_key=True),  # HMAC-SHA256 with the secret erasure-key
    Column("erasure_id", Uuid, nullable=False, unique=True),  # the receipt's number
    Column("person_hash", Text, index=True),  # of the Firebase user who asked
    Column("account_id", Text, unique=True),  # only until it is completed
    Column("requested_at", Moment, nullable=False),
    Column("erased_at", Moment),  # the tombstone; null: not yet at that step
    Column("completed_at", Moment),
    Column("steps", JSONB, nullable=False, server_default=text("'{}'")),  # step -> {done_at, what it did}
    Column("receipt", JSONB),
    CheckConstraint("completed_at is null or account_id is null", name="forgotten"),
)

# Events of our own. The platform's outbox_event has the same shape, so any database can use outbox_relay.
outbox = Table(
    "outbox",
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
Index("ix_outbox_pending", outbox.c.created_at, outbox.c.id, postgresql_where=outbox.c.published_at.is_(None))
Index("ix_outbox_published", outbox.c.published_at, postgresql_where=outbox.c.published_at.is_not(None))

# The ids of events already handled, one row a consumer: what is delivered at least once is handled once.
inbox = Table(
    "inbox",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("event_id", Uuid, primary_key=True),
    Column("received_at", Moment, nullable=False, index=True),
)

# Events that can never be handled, and why. The payload is what is left of it without addresses and secrets, cut.
dead_letter = Table(
    "dead_letter",
    metadata,
    Column("letter_id", Uuid, primary_key=True),  # of where it came from: the same letter again is the same row
    Column("consumer", Text, nullable=False),
    Column("source", Text, nullable=False),  # topic/message id, or topic/partition/offset
    Column("event_id", Uuid),
    Column("reason", Text, nullable=False),
    Column("payload", Text),
    Column("bytes", BigInteger, nullable=False),
    Column("received_at", Moment, nullable=False, index=True),
)

# How far a consumer has read a stream of Kafka: written with the work, so that the two cannot disagree.
stream_offset = Table(
    "stream_offset",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("updated_at", Moment, nullable=False),
)
