"""Deletes an account step by step, each resumable: what is done is written with the step, what is gone is success.

Order: no hold in the way; the subscription ended at Stripe; the tombstone, from which on nothing comes back; the
objects; the rows, in batches, reports only emptied; at last the profile with whatever hangs on it, the recount and
the receipt in one transaction. Two at once take turns at the deletion's row.
"""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared import erasure, holds
from shared.accounts import progress, receipt, stored, subscription
from shared.accounts.inventory import PROFILE, STORES, check_holds, check_neighbours, customers, empty_reports
from shared.accounts.progress import Progress
from shared.clock import rfc3339
from shared.context import Context
from shared.errors import Retry
from shared.objects import Exists

STEPS = ("subscription", "tombstone", "objects", "rows", "profile")
STRIPE_KEY = "stripe-api-key"
TOMBSTONES = "archive"  # the bucket that outlives the database
_REPORTS = "telemetry"


@dataclass(frozen=True)
class Policy:
    """What an environment decides about deletions."""

    subscription: subscription.Ending
    stripe_emulator: str  # host:port of a double, which no function in the cloud starts with; empty: Stripe itself
    batch_rows: int
    buckets: tuple[str, ...]
    remains: tuple[receipt.Remains, ...]


class Deletion:
    """One deletion that was begun."""

    def __init__(self, ctx: Context, policy: Policy, erasure_id: uuid.UUID) -> None:
        self._ctx, self._policy, self._id = ctx, policy, erasure_id

    def advance(self, enough: Callable[[], bool]) -> Progress:
        """Take steps until the deletion is completed, or `enough()` between two of them; how far it is.

        Raises Held, Refused, Retry, Unavailable; what is done stays done, and the next call goes on.
        """
        for step in STEPS:
            now = self._look()
            if now.completed_at is not None or enough():
                return now
            if not now.done(step) and not getattr(self, f"_{step}")(now, enough):
                return self._look()
        return self._look()

    def _look(self) -> Progress:
        with self._ctx.begin() as connection:
            return progress.locked(connection, self._id)

    @contextmanager
    def _step(self) -> Iterator[tuple[Connection, Progress, str]]:
        """A transaction in which this deletion is ours, its account is under no hold, and none can be placed."""
        with self._ctx.begin() as connection:
            holds.keep_out(connection)
            now = progress.locked(connection, self._id)
            if now.account_id is not None:
                check_holds(connection, holds.in_force(connection, self._ctx.clock.now()), now.account_id)
            yield connection, now, now.account_id or ""

    def _finish(self, connection: Connection, step: str, facts: dict[str, Any]) -> None:
        progress.finish(connection, self._id, step, facts, self._ctx.clock.now())

    # --- the steps; each says whether it is done

    def _subscription(self, now: Progress, _enough: Callable[[], bool]) -> bool:
        with self._step() as (connection, _, account):
            check_neighbours(connection, account)
            theirs = customers(connection, account)
            shown = connection.execute(
                text("select stripe_subscription_id from user_profile where account_id = :account"),
                {"account": account},
            ).scalar_one_or_none()
        facts: dict[str, Any] = {"policy": self._policy.subscription, "cancelled": 0, "ended_before": 0}
        if theirs or shown:
            facts |= subscription.end(
                key=self._ctx.secret(STRIPE_KEY),
                emulator=self._policy.stripe_emulator,
                livemode=self._ctx.settings.livemode,
                customers=theirs,
                subscription=shown,
                policy=self._policy.subscription,
                run=str(self._id),
            )
        with self._step() as (connection, _, _account):
            self._finish(connection, "subscription", facts)
        return True

    def _tombstone(self, now: Progress, _enough: Callable[[], bool]) -> bool:
        """In the database, and before that where no restore of the database takes it away."""
        name = f"erasures/{now.account_hash}.json"
        # it is there where a killed attempt wrote it, or the account came back and goes again
        with suppress(Exists), self._ctx.objects(TOMBSTONES).create(name) as file:
            file.write(json.dumps({"erased_at": rfc3339(self._ctx.clock.now())}).encode())
        with self._step() as (connection, _, account):
            key = self._ctx.secret(erasure.KEY)
            erasure.tombstone(connection, account, key, self._ctx.clock.now())
            self._finish(connection, "tombstone", {})
        return True

    def _objects(self, now: Progress, enough: Callable[[], bool]) -> bool:
        with self._step() as (connection, before, account):
            reports = connection.execute(
                text("select report from lighthouse_scan where account_id = :account and report is not null"),
                {"account": account},
            ).scalars()
            telemetry = self._ctx.settings.bucket(_REPORTS)
            wanted = [(_REPORTS, name) for report in reports if (name := stored.below(telemetry, report))]
        places = {bucket: self._ctx.objects(bucket) for bucket in self._policy.buckets}
        wanted += [(bucket, name) for bucket, place in places.items() for name in stored.names(place, account)]
        deleted = before.steps.get("objects", {}).get("deleted", 0)
        for bucket, name in wanted:
            # a hold placed meanwhile is seen before the next one goes
            with self._step() as (connection, _, _account):
                deleted += stored.remove(places[bucket], name)
                progress.note(connection, self._id, "objects", {"deleted": deleted})
            if enough():
                return False
        left = sum(1 for place in places.values() for _ in stored.names(place, account))
        if left:
            return False  # written meanwhile: the next call takes them
        with self._step() as (connection, _, _account):
            self._finish(connection, "objects", {"deleted": deleted, "left": left})
        return True

    def _rows(self, now: Progress, enough: Callable[[], bool]) -> bool:
        for store in STORES:
            gone = self._policy.batch_rows
            while gone == self._policy.batch_rows:
                with self._step() as (connection, before, account):
                    gone = store.delete(connection, account, self._policy.batch_rows)
                    if gone:
                        self._add(connection, before, store.table, gone)
                if enough():
                    return False
        with self._step() as (connection, before, account):
            emptied = empty_reports(connection, account)
            deleted = {store.table: 0 for store in STORES} | before.steps.get("rows", {}).get("deleted", {})
            self._finish(connection, "rows", {"deleted": deleted, "anonymised": emptied})
        return True

    def _add(self, connection: Connection, before: Progress, table: str, gone: int) -> None:
        deleted = dict(before.steps.get("rows", {}).get("deleted", {}))
        deleted[table] = deleted.get(table, 0) + gone
        progress.note(connection, self._id, "rows", {"deleted": deleted})
        self._ctx.count(f"{table}.deleted", gone)

    def _profile(self, _now: Progress, _enough: Callable[[], bool]) -> bool:
        """The end, in one transaction: what came in late goes with the profile, and the count is taken after it."""
        with self._step() as (connection, before, account):
            if not account:
                return True  # another run has ended it meanwhile
            check_neighbours(connection, account)
            late = {s.table: n for s in STORES if (n := s.delete(connection, account, None))}
            empty_reports(connection, account)
            PROFILE.delete(connection, account, 1)
            counted = receipt.recount(connection, account)
            if any(counted.values()):
                raise Retry("rows of the account were written while it was deleted")
            deleted = before.steps["rows"]["deleted"]
            rows = {**before.steps["rows"], "deleted": {t: deleted.get(t, 0) + late.get(t, 0) for t in deleted}}
            before = Progress(**{**vars(before), "steps": {**before.steps, "rows": rows}})
            now = self._ctx.clock.now()
            written = receipt.write(before, counted, self._policy.remains, now)
            self._finish(connection, "profile", {})
            progress.complete(connection, self._id, written, now)
            self._ctx.count("accounts.deleted")
        return True
