"""`keeper list`, `run`, `history`, `cancel`, `new`: the tasks and their runs."""

import json
import sys
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import click
from sqlalchemy import select, text

from shared import plans, schedule
from shared.call import by_hand
from shared.errors import OUTCOMES, ConfigurationError, Outcome, Refused
from shared.keeper import options, show
from shared.keeper.session import Session, find, functions_folder, session
from shared.manifest import Task, load_all
from shared.result import Result
from shared.schema import task_run
from shared.strict_yaml import parse
from shared.task import load


def complete_task(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The tasks whose names begin so, for shell completion."""
    return [name for name in load_all(functions_folder()) if name.startswith(incomplete)]


def _last_runs(at: Session) -> dict[str, Any]:
    with at.database.transaction(read_only=True) as connection:
        rows = connection.execute(
            text("""
            select distinct on (task) task, run_id, outcome, counts, started_at, finished_at
              from groundskeeper.task_run
             order by task, started_at desc""")
        )
        return {row.task: row for row in rows}


@click.command("list")
@options.JSON
def list_tasks(as_json: bool) -> None:
    """Every task: what it does, when it runs next, how it ended last."""
    with session() as at:
        tasks, last, now = at.tasks(), _last_runs(at), at.clock.now()
    rows = [(t, schedule.task_next(t, now), last.get(t.name)) for t in tasks.values()]
    if as_json:
        show.document(
            tasks=[
                {
                    "task": t.name,
                    "summary": t.summary,
                    "triggers": [str(x) for x in t.triggers],
                    "next": soon,
                    "last": run and {"run_id": run.run_id, "outcome": run.outcome, "started_at": run.started_at},
                }
                for t, soon, run in rows
            ]
        )
        return
    show.table(
        "Tasks (times in UTC)",
        ["task", "does", "started by", "next", "last", "ended"],
        (
            (
                t.name,
                t.summary,
                "; ".join(map(str, t.triggers)),
                soon,
                run and run.started_at,
                run and show.outcome(run.outcome),
            )
            for t, soon, run in rows
        ),
        empty="No task yet: `keeper new NAME` makes one.",
    )


@click.command()
@click.argument("task", shell_complete=complete_task)
@click.option("--plan", "planning", is_flag=True, help="Show what the run would do; write nothing.")
@click.option("--plan-hash", help="Act only on exactly this plan, with its cutoffs and ceiling.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Another value for a parameter (YAML).")
@click.option(
    "--rules",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="A file of retention rules that stand instead of the task's own.",
)
@click.option("--reason", "why", default="by hand", show_default=True, help="Why, for the ledger.")
@click.option("--break-glass", is_flag=True, help="Run although no fresh verified backup is known. Needs --reason.")
@options.ASKS
@options.JSON
def run(
    task: str,
    planning: bool,
    plan_hash: str | None,
    params: tuple[str, ...],
    rules: str | None,
    why: str,
    break_glass: bool,
    actor: str | None,
    as_json: bool,
) -> None:
    """Run TASK now, or plan it. The exit code says how it ended."""
    overrides = dict(_param(p) for p in params) | ({"rules_file": rules} if rules else {})
    if break_glass and why == "by hand":
        raise Refused("--break-glass needs --reason: the audit asks for the reason")
    with session(actor) as at:
        found = find(at.tasks(), task)
        result = run_by_hand(
            at, found, planning=planning, plan_hash=plan_hash, params=overrides, why=why, break_glass=break_glass
        )
    say(result, as_json=as_json)
    if result.outcome is Outcome.PLANNED and not (planning or as_json):
        show.console.print("  observe mode: nothing was done; KEEPER_MODE=enforce lets it act", soft_wrap=True)
    sys.exit(OUTCOMES[result.outcome].exit)


def _param(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not equals:
        raise Refused(f"--param {given!r}: expected NAME=VALUE")
    return name, parse(value, f"--param {name}")


def run_by_hand(
    at: Session,
    task: Task,
    *,
    planning: bool = False,
    plan_hash: str | None = None,
    params: dict[str, Any] | None = None,
    why: str,
    break_glass: bool = False,
) -> Result:
    """Ask for a run and execute it in this process, a job's parts in turn. The whole way is in the ledger: request,
    run, audit.
    """
    from shared import audit

    with at.database.transaction() as connection:
        if plan_hash is not None:
            stored = plans.stored(connection, _full_hash(connection, plan_hash))
            if stored.task != task.name:
                raise Refused(f"plan {plan_hash[:12]}… is one of {stored.task}, not of {task.name}")
            plan_hash, params = stored.plan_hash, {**stored.params, **(params or {})}
        request = plans.request_run(
            connection,
            task=task.name,
            actor=at.actor,
            why=why,
            params=params,
            planning=planning,
            plan_hash=plan_hash,
            break_glass=break_glass,
            now=at.clock.now(),
        )
        if not planning:
            audit.record(
                connection,
                actor=at.actor,
                action="run",
                subject=task.name,
                why=why,
                now=at.clock.now(),
                details={"request": str(request), "plan_hash": plan_hash, "break_glass": break_glass},
            )
    runner = load(task.folder).runner(at.settings, at.clock)
    try:
        return _together([runner.execute(by_hand(request, shard=part)) for part in range(task.run.tasks)])
    finally:
        runner.close()


def _together(parts: Sequence[Result]) -> Result:
    """A job's parts as one: the worst of their endings (Outcome names them from good to bad), and all they counted."""
    worst = max(parts, key=lambda part: list(Outcome).index(part.outcome))
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    return replace(worst, counts=counts, started_at=parts[0].started_at, finished_at=parts[-1].finished_at)


def _full_hash(connection: Any, beginning: str) -> str:
    from shared.schema import plan

    found = (
        connection.execute(
            select(plan.c.plan_hash).where(plan.c.plan_hash.startswith(beginning, autoescape=True)).limit(2)
        )
        .scalars()
        .all()
    )
    if len(found) > 1:
        raise Refused(f"plan {beginning!r} is ambiguous: give more of its hash")
    return found[0] if found else beginning


def say(result: Result, *, as_json: bool) -> None:
    """Tell how a run ended: its plan where it has one to show, its counts, its trouble."""
    if as_json:
        click.echo(json.dumps(result.document(), ensure_ascii=False))
        return
    if result.plan and result.outcome in (Outcome.PLANNED, Outcome.REFUSED):
        show.table(
            f"Plan of {result.task}, as of {result.plan['as_of']}",
            ["what", "count", "unit", "oldest", "why"],
            (
                (i["what"], i["count"], i["unit"] if i["exact"] else f"{i['unit']} (estimate)", i["oldest"], i["why"])
                for i in result.plan["items"]
                if i["count"]
            ),
            empty="The plan is empty: there is nothing to do.",
        )
        if idle := [i["what"] for i in result.plan["items"] if not i["count"]]:
            show.console.print(f"  nothing to do for {', '.join(idle)}", highlight=False, soft_wrap=True)
        for note in result.plan["notes"]:
            show.console.print(f"  {note}", soft_wrap=True)
        show.console.print(f"  plan {result.plan_hash}", soft_wrap=True)
    took = result.finished_at - result.started_at if result.finished_at and result.started_at else None
    show.console.print(
        f"{result.task}: {show.outcome(result.outcome.value)} in {show.duration(took)}"
        f"{'; ' + show.counts(dict(result.counts)) if result.counts else ''}",
        soft_wrap=True,
    )
    if result.error:
        show.console.print(f"  {result.error}", soft_wrap=True, highlight=False)
    if result.run_id:
        show.console.print(f"  run {result.run_id}", soft_wrap=True, highlight=False)


@click.command()
@click.argument("task", required=False, shell_complete=complete_task)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
@options.JSON
def history(task: str | None, limit: int, as_json: bool) -> None:
    """The newest runs, of TASK or of all."""
    columns = [c for c in task_run.c if c.name not in ("error_class", "code_version")]
    statement = select(*columns).order_by(task_run.c.started_at.desc()).limit(limit)
    with session() as at:
        if task is not None:
            statement = statement.where(task_run.c.task == find(at.tasks(), task).name)
        with at.database.transaction(read_only=True) as connection:
            rows = connection.execute(statement).mappings().all()
    if as_json:
        show.document(runs=[dict(row) for row in rows])
        return
    show.table(
        "Runs (times in UTC)",
        ["started", "task", "by", "ended", "took", "counts", "error", "run"],
        (
            (
                r["started_at"],
                r["task"],
                r["actor"],
                show.outcome(r["outcome"]),
                _took(r),
                show.counts(r["counts"]),
                r["error"],
                r["run_id"],
            )
            for r in rows
        ),
        empty="No run yet: `keeper run TASK --plan` shows what one would do.",
    )


def _took(row: Any) -> str:
    started: datetime = row["started_at"]
    return show.duration(row["finished_at"] - started if row["finished_at"] else None)


@click.command()
@click.argument("run_id", type=options.Id("keeper history"))
@options.ASKS
def cancel(run_id: uuid.UUID, actor: str | None) -> None:
    """Stop a running RUN_ID: its lease is taken away, and it writes nothing more."""
    from shared import ledger

    # The run's transaction under way is waited for, so the lock may take a batch's time to come.
    with session(actor) as at, at.database.transaction(lock_timeout_ms=30_000) as connection:
        if not ledger.cancel(connection, run_id, by=at.actor, now=at.clock.now()):
            raise ConfigurationError(f"run {run_id} is not running: `keeper history` shows the newest runs")
    show.console.print(f"run {run_id} cancelled")
