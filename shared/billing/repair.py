"""Act on what the sweep found: raise and mend from the listing, lower only after asking Stripe again."""

from collections.abc import Mapping, Sequence

from shared.billing import accounts, events, grants, sweep
from shared.billing.accounts import Change, Changed
from shared.billing.client import Stripe
from shared.billing.settle import Settled, is_erased, settle
from shared.billing.sweep import Found
from shared.billing.tiers import Rules, Standing
from shared.context import Context
from shared.plans import Item, Plan
from shared.wording import counted

# A stored failure is tried this often, once a night; then it stays for somebody to look at.
_ATTEMPTS = 10
_REPLAYS = 100
_NAMED = 20


def plan_of(drift: sweep.Drift, found: Sequence[Found], failures: int) -> Plan:
    """The differences by cause; the hash is over who becomes what."""
    items = [
        Item(what=cause, count=len(who), unit=unit, why=_names(who))
        for (unit, cause), who in sweep.causes(drift.changes).items()
    ]
    if found:
        who = [f"{one.link.account_id}: {one.customer_id}" for one in found]
        items.append(Item(what="a Checkout was missed", count=len(who), unit="links", why=_names(who)))
    notes = [f"{counted(drift.granted, 'manual grant')} not touched", *drift.unknown[:_NAMED]]
    if failures:
        notes.append(f"{counted(failures, 'failed event')} to be tried again")
    links = sorted([one.customer_id, one.link.account_id] for one in found)
    return Plan(tuple(items), {"changes": drift.digest(), "links": links}, tuple(notes))


def _names(who: Sequence[str]) -> str:
    more = f" and {len(who) - _NAMED} more" if len(who) > _NAMED else ""
    return ", ".join(sorted(who)[:_NAMED]) + more


class Repair:
    """One run's acting. `failed` names what could not be done."""

    def __init__(
        self, ctx: Context, stripe: Stripe, rules: Rules, standings: Mapping[str, Standing], generation: int
    ) -> None:
        """`standings`: of the customers of all accounts that differ; `generation`: what was written before the listing
        began."""
        self._ctx, self._stripe, self._rules = ctx, stripe, rules
        self._standings, self._generation = standings, generation
        self.failed: list[str] = []

    def note_grants(self) -> None:
        """Put grants on record before anything else is done: who has one may subscribe tomorrow."""
        with self._ctx.begin() as connection:
            given, taken = grants.note(connection, self._ctx.clock.now())
        self._ctx.count("grants_recorded", given)
        self._ctx.count("grants_ended", taken)

    def apply(self, changes: Sequence[Change]) -> None:
        """Make every account what it should be, those that are raised or mended first."""
        ordered = sorted(changes, key=lambda one: (one.lowers, one.after.account_id))
        for done, change in enumerate(ordered):
            if change.lowers:
                self._lower(change)
            else:
                self._raise(change)
            self._ctx.progress(done + 1, len(ordered))

    def _raise(self, change: Change) -> None:
        """From the listing, in one transaction; an account that was settled meanwhile is newer than the listing."""
        account_id = change.after.account_id
        try:
            with self._ctx.begin() as connection:
                profile = accounts.locked(connection, account_id)
                customers = tuple(accounts.customers_of(connection, account_id))
                newer = any(
                    (one.generation or 0) > self._generation or one.customer_id not in self._standings
                    for one in customers
                )
                if profile is None or newer or is_erased(self._ctx, connection, account_id):
                    self._ctx.count("settled_meanwhile")
                    return
                now, unknown = accounts.change_of(connection, profile, customers, self._standings)
                if unknown is not None or now.lowers:
                    self._ctx.count("settled_meanwhile")
                    return
                for one in customers:
                    accounts.take(
                        connection, one, account_id=account_id, linked_at=one.linked_at, now=self._ctx.clock.now()
                    )
                if accounts.write(self._ctx, connection, now):
                    self._ctx.count("upgraded" if now.raises else "repaired")
        except Changed:
            self._ctx.count("settled_meanwhile")

    def _lower(self, change: Change) -> None:
        """Only on what Stripe says now of each of the account's customers; a listing may lack something."""
        customer_id = change.after.customer_id
        assert customer_id is not None  # without a customer nothing is known that could lower it
        settled = settle(self._ctx, self._stripe, self._rules, customer_id, record=self._counted)
        if settled.outcome != "done":
            self.failed.append(f"account {change.after.account_id}: {settled.reason}")

    def _counted(self, _connection: object, settled: Settled) -> None:
        if settled.outcome == "done" and settled.change is not None:
            lowered = settled.change.lowers
            self._ctx.count("downgraded" if lowered else "not_confirmed")

    def link(self, strays: sweep.Strays) -> None:
        """Give customers to the accounts their sessions named."""
        if strays.looked:
            with self._ctx.begin() as connection:
                sweep.remember_looking(connection, strays, self._ctx.clock.now())
        for one in strays.found:
            settled = settle(self._ctx, self._stripe, self._rules, one.customer_id, link=one.link, may_lower=False)
            self._ctx.count("linked" if settled.outcome == "done" else "not_linked")

    def replay(self, failures: Sequence[events.Failure]) -> None:
        """Try again what had failed; nothing is lowered by it, since the plan did not say so."""
        for one in failures:
            settled = settle(
                self._ctx,
                self._stripe,
                self._rules,
                one.customer_id,
                link=one.link,
                may_lower=False,
                record=lambda connection, how, event_id=one.event_id: events.tried_again(  # type: ignore[misc]
                    connection,
                    event_id,
                    outcome="failed" if how.outcome == "withheld" else how.outcome,
                    reason=how.reason,
                ),
            )
            self._ctx.count("replayed" if settled.outcome == "done" else "replay_failed")


def failures(ctx: Context) -> list[events.Failure]:
    """The stored failures that are worth another try."""
    with ctx.read() as connection:
        return events.failures(connection, attempts=_ATTEMPTS, most=_REPLAYS)
