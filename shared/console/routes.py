"""Which page answers which path, and what each form does."""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from sqlalchemy import Connection, RowMapping, func, select

from shared import audit, holds, pauses, plans
from shared.call import Request
from shared.clock import end_of_day, parse_rfc3339
from shared.console import charts, ledger, lists
from shared.console.overview import counts, overview
from shared.console.page import Answer, page, redirect
from shared.console.person import Visitor, check_form
from shared.context import Context
from shared.errors import Refused
from shared.manifest import Task
from shared.schedule import task_next
from shared.schema_retention import archive_manifest
from shared.wording import counted

# Runs a task's page shows at once, and what a form's fields may hold.
_RUNS = 50
_LONGEST = 500

# The task that brings a run's archives back, and how long it may hold what came, in days.
_RESTORER = "restore_run"
_HOLD_DAYS = (7, 30, 90)


@dataclass(frozen=True)
class Console:
    """One visit: the context of its run, all tasks, who asks, and where the runbooks are."""

    ctx: Context
    tasks: Mapping[str, Task]
    who: Visitor
    docs: str

    def page(self, template: str, *, here: str | None = None, status: int = 200, **values: Any) -> Answer:
        """The page, with what every page shows."""
        return page(
            template,
            status=status,
            headers={"Set-Cookie": self.who.set_cookie} if self.who.set_cookie else {},
            here=here,
            now=self.ctx.now,
            project=self.ctx.settings.project,
            mode=self.ctx.settings.mode,
            actor=self.who.actor,
            signed_in=self.who.signed_in,
            token=self.who.token,
            **values,
        )

    def task(self, name: str) -> Task:
        """The task. Raises LookupError."""
        return self.tasks[name]


def answer(console: Console, request: Request) -> Answer:
    """The answer to `request`. Refusals are pages too."""
    path = request.path.removeprefix("/console").rstrip("/")
    try:
        if request.method == "POST":
            form = form_of(request)
            check_form(request, form, console.who.session)
            for pattern, act in _FORMS:
                if found := re.fullmatch(pattern, path):
                    return act(console, form | dict(request.query), *found.groups())
        else:
            for pattern, show in _PAGES:
                if found := re.fullmatch(pattern, path):
                    return show(console, request, *found.groups())
    except LookupError:
        pass  # a name nobody has is answered as a path nobody has
    except Refused as refused:
        return console.page("message", status=409, title="Refused", said=str(refused))
    return console.page("message", status=404, title="Not found", said="There is no such page, task or run.")


def form_of(request: Request) -> dict[str, str]:
    """The fields of a posted form. Raises Refused."""
    try:
        pairs = parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise Refused("the form cannot be read: load the page again") from None
    if any(len(value) > _LONGEST for _, value in pairs):
        raise Refused(f"a field of the form is longer than {_LONGEST} characters")
    return dict(pairs)


# --- pages


def _overview(console: Console, _request: Request) -> Answer:
    with console.ctx.read() as connection:
        shown = overview(connection, console.tasks, now=console.ctx.now, me=console.ctx.task.name)
    return console.page("overview", here="", shown=shown, outside=console.ctx.settings.paused)


def _task(console: Console, request: Request, name: str) -> Answer:
    task, now = console.task(name), console.ctx.now
    before = _moment(request.query.get("before")) or now
    with console.ctx.read() as connection:
        runs = ledger.of_task(connection, name, before=before, limit=_RUNS)
        stops = [p for p in pauses.in_force(connection, now, name) if p.task == name]
    seconds = [r.seconds for r in reversed(runs) if r.seconds is not None]
    return console.page(
        "task",
        task=task,
        runs=runs,
        limit=_RUNS,
        counts=counts,
        next=task_next(task, now),
        paused=stops[0] if stops else None,
        docs=console.docs,
        spark=charts.sparkline(seconds, f"durations of the last {len(seconds)} runs"),
    )


def _moment(text: str | None) -> datetime | None:
    try:
        return parse_rfc3339(text) if text else None
    except ValueError:
        raise LookupError(text) from None


def _run(console: Console, _request: Request, run_id: str) -> Answer:
    with console.ctx.read() as connection:
        run = ledger.one(connection, uuid.UUID(run_id))
        if run is None:
            raise LookupError(run_id)
        return _shown(console, connection, run.task, run)


def _requested(console: Console, _request: Request, name: str, request_id: str) -> Answer:
    with console.ctx.read() as connection:
        run = ledger.of_request(connection, console.task(name).name, uuid.UUID(request_id))
        return _shown(console, connection, name, run)


def _shown(console: Console, connection: Connection, task: str, run: ledger.Run | None) -> Answer:
    plan = plans.stored(connection, run.plan_hash) if run is not None and run.plan_hash else None
    archives = _archives(connection, run.run_id) if run is not None else ()
    return console.page("run", task=task, run=run, plan=plan, archives=archives, limits=_limits)


def _archives(connection: Connection, run_id: uuid.UUID) -> Sequence[RowMapping]:
    """What of the run can be brought back: rows a table, and until when."""
    found = connection.execute(
        select(
            archive_manifest.c.source,
            func.sum(archive_manifest.c["items"]).label("items"),
            func.min(archive_manifest.c.expires_at).label("expires_at"),
        )
        .where(archive_manifest.c.run_id == run_id, archive_manifest.c.destroyed_at.is_(None))
        .group_by(archive_manifest.c.source)
        .order_by(archive_manifest.c.source)
    )
    return found.mappings().all()


def _to_restore(console: Console, _request: Request, run_id: str) -> Answer:
    with console.ctx.read() as connection:
        run = ledger.one(connection, uuid.UUID(run_id))
        archives = _archives(connection, uuid.UUID(run_id))
    if run is None or not archives:
        raise LookupError(run_id)
    return console.page("restore", run=run, archives=archives, days=_HOLD_DAYS)


def _limits(ceiling: Mapping[str, int]) -> str:
    return ", ".join(counted(most, unit) for unit, most in sorted(ceiling.items())) or "any number"


def _approvals(console: Console, _request: Request) -> Answer:
    with console.ctx.read() as connection:
        found = [(a, plans.stored(connection, a.plan_hash)) for a in plans.pending(connection, console.ctx.now)]
    return console.page("approvals", here="/approvals", found=found, limits=_limits)


def _holds(console: Console, _request: Request) -> Answer:
    return console.page("holds", here="/holds", found=console.ctx.holds(), tables=_deleted_from(console))


def _deleted_from(console: Console) -> list[str]:
    deleters = [task for task in console.tasks.values() if task.destructive]
    tables = {table for task in deleters for access in ("write", "own") for table in task.tables.get(access, ())}
    return sorted(tables | holds.unlike_tables(deleters))


def _listed(make: Callable[[Console, Connection], lists.Listed], here: str) -> Callable[..., Answer]:
    def show(console: Console, _request: Request) -> Answer:
        with console.ctx.read() as connection:
            listed = make(console, connection)
        return console.page("table", here=here, **vars(listed))

    return show


_UUID = "([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_NAME = "([a-z][a-z0-9_]+)"
_PAGES: tuple[tuple[str, Callable[..., Answer]], ...] = (
    ("", _overview),
    (f"/tasks/{_NAME}", _task),
    (f"/runs/{_UUID}", _run),
    (f"/runs/{_UUID}/restore", _to_restore),
    (f"/requests/{_NAME}/{_UUID}", _requested),
    ("/approvals", _approvals),
    ("/holds", _holds),
    ("/retention", _listed(lambda c, at: lists.retention(at, c.tasks, c.ctx.settings.environ), "/retention")),
    ("/backups", _listed(lambda c, at: lists.backups(at, c.ctx.now), "/backups")),
    ("/incidents", _listed(lambda c, at: lists.incidents(at), "/incidents")),
    ("/plans", _listed(lambda c, at: lists.query_plans(at), "/plans")),
    ("/models", _listed(lambda c, at: lists.models(at), "/models")),
)


# --- forms


def _plan_now(console: Console, form: Mapping[str, str], name: str) -> Answer:
    request = console.ctx.start(console.task(name).name, "a plan, asked for on the console",
                                actor=console.who.actor, planning=True)  # fmt: skip
    return redirect(f"/console/requests/{name}/{request}")


def _run_now(console: Console, form: Mapping[str, str], name: str) -> Answer:
    task, why, plan_hash = console.task(name), _why(form), form.get("plan")
    with console.ctx.begin() as connection:
        params = None
        if plan_hash is not None:
            stored = plans.stored(connection, plan_hash)
            if stored.task != name:
                raise Refused(f"plan {plan_hash[:12]}… is one of {stored.task}, not of {name}")
            params = stored.params
        audit.record(
            connection, actor=console.who.actor, action="run", subject=name, why=why, now=console.ctx.now,
            details={"plan_hash": plan_hash},
        )  # fmt: skip
    return _started(console, task, why, params=params, plan_hash=plan_hash)


def _started(
    console: Console, task: Task, why: str, *, params: Mapping[str, Any] | None, plan_hash: str | None
) -> Answer:
    request = console.ctx.start(task.name, why, params=params, actor=console.who.actor, plan_hash=plan_hash)
    return redirect(f"/console/requests/{task.name}/{request}")


def _why(form: Mapping[str, str]) -> str:
    why = form.get("why", "").strip()
    if not why:
        raise Refused("say why: the next operator will ask")
    return why


def _restore(console: Console, form: Mapping[str, str], run_id: str) -> Answer:
    why, days = _why(form), form.get("hold_days", "")
    if days not in map(str, _HOLD_DAYS):
        raise Refused(f"what comes back is held for {', '.join(map(str, _HOLD_DAYS))} days: choose one of these")
    task, params = console.task(_RESTORER), {"run_id": run_id, "hold_days": int(days)}
    with console.ctx.begin() as connection:
        audit.record(
            connection, actor=console.who.actor, action="run", subject=task.name, why=why, now=console.ctx.now,
            details=params,
        )  # fmt: skip
    return _started(console, task, why, params=params, plan_hash=None)


def _whose(console: Console, name: str) -> tuple[str, str]:
    """What a pause's name means, and the page to go back to."""
    return (pauses.ALL, "/console") if name == "all" else (console.task(name).name, f"/console/tasks/{name}")


def _pause(console: Console, form: Mapping[str, str], name: str) -> Answer:
    (whose, back), why = _whose(console, name), _why(form)
    with console.ctx.begin() as connection:
        pauses.pause(connection, whose, reason=why, by=console.who.actor, now=console.ctx.now, until=None)
    return redirect(back)


def _resume(console: Console, form: Mapping[str, str], name: str) -> Answer:
    (whose, back), why = _whose(console, name), _why(form)
    with console.ctx.begin() as connection:
        pauses.resume(connection, whose, by=console.who.actor, why=why, now=console.ctx.now)
    return redirect(back)


def _decide(console: Console, form: Mapping[str, str], approval_id: str, decision: str) -> Answer:
    why = _why(form)
    with console.ctx.begin() as connection:
        decided = plans.decide(
            connection,
            uuid.UUID(approval_id),
            approve=decision == "approve",
            by=console.who.actor,
            why=why,
            now=console.ctx.now,
            operators=console.ctx.settings.operators,
        )
        params = plans.stored(connection, decided.plan_hash).params
    if decision == "reject":
        return redirect("/console/approvals")
    return _started(console, console.task(decided.task), why, params=params, plan_hash=decided.plan_hash)


def _hold(console: Console, form: Mapping[str, str]) -> Answer:
    table, account, why = form.get("table") or None, form.get("account", "").strip() or None, _why(form)
    if table is not None and table not in _deleted_from(console):
        raise Refused("no task deletes from that table: choose one of the list")
    if table is None and account is None:
        raise Refused("say what to hold: a table, an account, or both; for everything use `keeper hold add --all`")
    until = form.get("until", "").strip()
    try:
        ends = end_of_day(until) if until else None
    except ValueError:
        raise Refused(f"until {until!r}: expected a date like 2027-01-01, or nothing for no end") from None
    with console.ctx.begin(lock_timeout_ms=30_000) as connection:
        holds.add(
            connection, reason=why, by=console.who.actor, now=console.ctx.now, table=table, account=account,
            expires_at=ends,
        )  # fmt: skip
    return redirect("/console/holds")


def _release(console: Console, form: Mapping[str, str], hold_id: str) -> Answer:
    why = _why(form)
    with console.ctx.begin() as connection:
        holds.release(connection, uuid.UUID(hold_id), by=console.who.actor, why=why, now=console.ctx.now)
    return redirect("/console/holds")


_FORMS: tuple[tuple[str, Callable[..., Answer]], ...] = (
    (f"/tasks/{_NAME}/plan", _plan_now),
    (f"/tasks/{_NAME}/run", _run_now),
    (f"/runs/{_UUID}/restore", _restore),
    (f"/tasks/{_NAME}/pause", _pause),
    (f"/tasks/{_NAME}/resume", _resume),
    (f"/approvals/{_UUID}/(approve|reject)", _decide),
    ("/holds/add", _hold),
    (f"/holds/{_UUID}/release", _release),
)
