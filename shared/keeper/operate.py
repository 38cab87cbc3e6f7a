"""`keeper pause`, `resume`, `approvals`, `hold`: what operators decide. Each deed is in the operators' audit."""

import difflib
import re
import uuid
from datetime import UTC, datetime, timedelta

import click
from sqlalchemy import text

from shared import holds, pauses, plans
from shared.clock import end_of_day, parse_rfc3339
from shared.errors import OUTCOMES, Refused
from shared.keeper import options, show
from shared.keeper.session import Session, find, session
from shared.keeper.tasks import complete_task, run_by_hand


class Moment(click.ParamType[object]):
    """A moment: RFC 3339, a date (its last instant in UTC), or a span from now like 90m, 12h or 7d."""

    name = "moment"

    def convert(self, value: str, parameter: click.Parameter | None, context: click.Context | None) -> object:
        if span := re.fullmatch(r"(\d{1,5})([mhd])", value):
            return timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[span[2]]: int(span[1])})
        try:
            if re.fullmatch(r"[\d-]+", value):
                return end_of_day(value)
            return parse_rfc3339(value)
        except ValueError:
            self.fail(
                f"{value!r}: expected a date like 2027-01-01 (its end, in UTC), a moment like 2027-01-01T18:00:00Z "
                "or a span like 90m, 12h, 7d",
                parameter,
                context,
            )


_UNTIL_HELP = "a date (its end, in UTC), a moment like 2027-01-01T18:00:00Z, or a span like 90m, 12h, 7d"


def _until(value: timedelta | datetime | None, now: datetime) -> datetime | None:
    return now + value if isinstance(value, timedelta) else value


def _ends(until: datetime | None) -> str:
    return "" if until is None else f" until {until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


@click.command()
@click.argument("task", shell_complete=complete_task)
@click.option("--reason", required=True, help="Why; the next operator will ask.")
@click.option("--until", type=Moment(), help=f"When work goes on by itself: {_UNTIL_HELP} (default: when resumed).")
@options.DECIDES
def pause(task: str, reason: str, until: timedelta | datetime | None, actor: str | None) -> None:
    """Pause TASK, or `all`: no run starts, and running ones stop at their next transaction."""
    with session(actor) as at:
        name = pauses.ALL if task in ("all", pauses.ALL) else find(at.tasks(), task).name
        now = at.clock.now()
        ends = _until(until, now)
        with at.database.transaction() as connection:
            pauses.pause(connection, name, reason=reason, by=at.actor, now=now, until=ends)
    show.console.print(
        f"{'all tasks' if name == pauses.ALL else name} paused{_ends(ends)}: {reason}", soft_wrap=True, highlight=False
    )


@click.command()
@click.argument("task", shell_complete=complete_task)
@click.option("--reason", "why", help="Why now.")
@options.DECIDES
def resume(task: str, why: str | None, actor: str | None) -> None:
    """End the pause of TASK, or of `all`."""
    with session(actor) as at:
        name = pauses.ALL if task in ("all", pauses.ALL) else find(at.tasks(), task).name
        with at.database.transaction() as connection:
            ended = pauses.resume(connection, name, by=at.actor, why=why, now=at.clock.now())
    shown = "all" if name == pauses.ALL else name
    show.console.print(f"{shown} resumed" if ended else f"{shown} was not paused")


@click.group()
def approvals() -> None:
    """Plans above their cap that wait for a decision."""


@approvals.command("list")
@options.JSON
def list_approvals(as_json: bool) -> None:
    """The open approvals, with what they would allow."""
    with session() as at, at.database.transaction(read_only=True) as connection:
        found = [(a, plans.stored(connection, a.plan_hash)) for a in plans.pending(connection, at.clock.now())]
    if as_json:
        show.document(
            approvals=[
                {
                    "approval_id": a.approval_id,
                    "task": a.task,
                    "plan_hash": a.plan_hash,
                    "requested_by": a.requested_by,
                    "reason": a.reason,
                    "requested_at": a.requested_at,
                    "expires_at": a.expires_at,
                    "items": p.items,
                    "ceiling": p.ceiling,
                }
                for a, p in found
            ]
        )
        return
    show.table(
        "Open approvals (times in UTC)",
        ["approval", "task", "why", "asked by", "expires", "plan"],
        ((a.approval_id, a.task, a.reason, a.requested_by, a.expires_at, a.plan_hash[:12]) for a, _ in found),
        empty="No approval is open.",
    )


@approvals.command("show")
@click.argument("approval_id", type=options.Id("keeper approvals list"))
@options.JSON
def show_approval(approval_id: uuid.UUID, as_json: bool) -> None:
    """One approval, with the plan it is bound to."""
    with session() as at, at.database.transaction(read_only=True) as connection:
        found = plans.approval_of(connection, approval_id)
        if found is None:
            raise Refused(f"there is no approval {approval_id}: `keeper approvals list` shows the open ones")
        plan = plans.stored(connection, found.plan_hash)
    if as_json:
        show.document(approval=found._asdict(), plan=plan._asdict())
        return
    state = found.decision or ("expired" if found.expires_at <= at.clock.now() else "open")
    show.console.print(f"{found.task}: {found.reason} ({state})", soft_wrap=True, highlight=False)
    show.table(
        f"Plan {found.plan_hash[:12]} as of {plan.as_of:%Y-%m-%d %H:%M:%S} UTC, at most {show.counts(plan.ceiling)}",
        ["what", "count", "unit", "why"],
        ((item["what"], item["count"], item["unit"], item["why"]) for item in plan.items),
        empty="The plan touches nothing.",
    )


@approvals.command()
@click.argument("approval_id", type=options.Id("keeper approvals list"))
@click.option("--reason", "why", required=True, help="Why it may be done.")
@click.option("--run/--no-run", "run_now", default=True, show_default=True, help="Run the approved plan at once.")
@click.option("--break-glass", is_flag=True, help="Approve alone what you asked for, and pass the backup gate.")
@options.DECIDES
def approve(approval_id: uuid.UUID, why: str, run_now: bool, break_glass: bool, actor: str | None) -> None:
    """Allow exactly the plan APPROVAL_ID is bound to, once."""
    with session(actor) as at:
        with at.database.transaction() as connection:
            decided = plans.decide(
                connection,
                approval_id,
                approve=True,
                by=at.actor,
                why=why,
                now=at.clock.now(),
                operators=at.settings.operators,
                break_glass=break_glass,
            )
        show.console.print(f"approved: {decided.task}, plan {decided.plan_hash[:12]}")
        if not run_now:
            return
        result = run_by_hand(
            at, find(at.tasks(), decided.task), plan_hash=decided.plan_hash, why=why, break_glass=break_glass
        )
    show.console.print(
        f"{result.task}: {show.outcome(result.outcome.value)}; {show.counts(dict(result.counts))}", soft_wrap=True
    )
    if result.error:
        show.console.print(f"  {result.error}", soft_wrap=True, highlight=False)
    raise SystemExit(OUTCOMES[result.outcome].exit)


@approvals.command()
@click.argument("approval_id", type=options.Id("keeper approvals list"))
@click.option("--reason", "why", required=True, help="Why it may not be done.")
@options.DECIDES
def reject(approval_id: uuid.UUID, why: str, actor: str | None) -> None:
    """Refuse the plan APPROVAL_ID is bound to."""
    with session(actor) as at, at.database.transaction() as connection:
        decided = plans.decide(
            connection,
            approval_id,
            approve=False,
            by=at.actor,
            why=why,
            now=at.clock.now(),
            operators=at.settings.operators,
        )
    show.console.print(f"rejected: {decided.task}, plan {decided.plan_hash[:12]}")


@click.group()
def hold() -> None:
    """Legal holds: what no deleter may touch."""


@hold.command("add")
@click.option("--table", help="Hold the rows of this table, the objects of this policy, or the `logs`.")
@click.option("--account", help="Hold the rows of this account.")
@click.option("--all", "everything", is_flag=True, help="Hold everything.")
@click.option("--reason", required=True, help="The case or duty it is for.")
@click.option("--until", type=Moment(), help=f"When it ends by itself: {_UNTIL_HELP} (default: when released).")
@options.DECIDES
def add_hold(
    table: str | None,
    account: str | None,
    everything: bool,
    reason: str,
    until: timedelta | datetime | None,
    actor: str | None,
) -> None:
    """Place a hold on a table, an account, an account's rows of a table, or everything."""
    if everything == bool(table or account):
        which = "--all holds every table and account: leave the others out" if everything else "it names nothing"
        raise Refused(f"say what to hold, --table, --account, both, or --all: {which}")
    with session(actor) as at:
        now = at.clock.now()
        ends = _until(until, now)
        others = holds.unlike_tables(at.tasks().values())
        if table is not None and table not in others:
            _there(at, table, others)
        # Batches under way are waited for, so the lock may take a while to come.
        with at.database.transaction(lock_timeout_ms=60_000, statement_timeout_ms=70_000) as connection:
            hold_id = holds.add(
                connection,
                reason=reason,
                by=at.actor,
                now=now,
                table=table,
                account=account,
                expires_at=ends,
            )
    show.console.print(f"hold {hold_id} placed{_ends(ends)}", soft_wrap=True, highlight=False)


def _there(at: Session, table: str, others: set[str]) -> None:
    """Raise Refused unless the database has `table`: a hold on any other name would hold nothing, and its operator
    would not know."""
    with at.database.transaction(read_only=True) as connection:
        tables = set(connection.execute(_TABLES).scalars())
    if table not in tables:
        near = difflib.get_close_matches(table, tables | others, n=3)
        meant = (
            f"did you mean {', '.join(near)}?" if near else "name it as the database does, `table` or `schema.table`"
        )
        raise Refused(f"there is no table {table!r} here: {meant}")


_TABLES = text("""
    select n.nspname || '.' || c.relname
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema')
     union all
    select relname from pg_class where relkind in ('r', 'p') and pg_table_is_visible(oid)""")


@hold.command("list")
@options.JSON
def list_holds(as_json: bool) -> None:
    """The holds in force."""
    with session() as at, at.database.transaction(read_only=True) as connection:
        found = holds.in_force(connection, at.clock.now())
    if as_json:
        show.document(
            holds=[
                {
                    "hold_id": h.hold_id,
                    "table": h.table,
                    "account": h.account,
                    "run_id": h.run_id,
                    "reason": h.reason,
                    "placed_by": h.placed_by,
                    "placed_at": h.placed_at,
                    "expires_at": h.expires_at,
                }
                for h in found
            ]
        )
        return
    show.table(
        "Holds in force (times in UTC)",
        ["hold", "table", "account", "reason", "by", "since", "until"],
        ((h.hold_id, h.table or "all", _whose(h), h.reason, h.placed_by, h.placed_at, h.expires_at) for h in found),
        empty="Nothing is on hold.",
    )


def _whose(found: holds.Hold) -> str:
    return found.account or ("restored rows" if found.run_id else "all")


@hold.command("release")
@click.argument("hold_id", type=options.Id("keeper hold list"))
@click.option("--reason", "why", required=True, help="Why it is over.")
@options.DECIDES
def release_hold(hold_id: uuid.UUID, why: str, actor: str | None) -> None:
    """End a hold."""
    with session(actor) as at, at.database.transaction() as connection:
        holds.release(connection, hold_id, by=at.actor, why=why, now=at.clock.now())
    show.console.print(f"hold {hold_id} released", soft_wrap=True)
