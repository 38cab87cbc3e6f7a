"""`keeper restore RUN_ID`: bring back what a run archived and deleted."""

import sys
import uuid
from datetime import timedelta

import click

from shared import erasure, secrets
from shared.errors import OUTCOMES, Outcome, Unavailable
from shared.keeper import options, show
from shared.keeper.session import session
from shared.wording import counted


@click.command()
@click.argument("run_id", type=options.Id("keeper history"))
@click.option("--reason", "why", required=True, help="Why, for the hold and the audit.")
@click.option("--hold-days", type=click.IntRange(1), default=30, show_default=True, help="How long it is kept.")
@options.ASKS
@options.JSON
def restore(run_id: uuid.UUID, why: str, hold_days: int, actor: str | None, as_json: bool) -> None:
    """Bring back the rows that RUN_ID archived and deleted, under a hold, and prove that they are the same."""
    from shared.retention.restore import restore as bring_back

    with session(actor) as at:
        now = at.clock.now()
        try:
            key = secrets.store(at.settings).get(erasure.KEY)
        except Unavailable:  # needed only where accounts are erased, and then the restore says so
            key = None
        until = now + timedelta(days=hold_days)
        done = bring_back(
            at.database.transaction, run_id, actor=at.actor, why=why, now=now, hold_until=until, erasure_key=key
        )
    if as_json:
        show.document(**done.document())
    else:
        proof = "equal to the archive" if done.equal else "not all of it is as it was"
        show.console.print(
            f"{counted(done.restored, 'row')} brought back, {done.present:,} there already; {proof}. "
            f"Held for {counted(hold_days, 'day')}: `keeper hold list`"
        )
        for conflict in done.conflicts:
            show.complain(f"{conflict.source}: {counted(conflict.rows, 'row')} stayed away: {conflict.why}")
    sys.exit(OUTCOMES[Outcome.OK if done.equal else Outcome.PARTIAL].exit)
