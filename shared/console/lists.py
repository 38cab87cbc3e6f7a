"""The console's plain tables: retention, backups, incidents, models, query plans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup
from sqlalchemy import Connection, column, select, table, text

from shared.console import words
from shared.manifest import Task
from shared.params import resolve
from shared.schema import plan, verified_backup
from shared.schema_rooms import query_plan, watch_incident
from shared.wording import counted

_MOST = 200


@dataclass(frozen=True)
class Listed:
    """A page that is one table."""

    title: str
    intro: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    empty: str


def _kept(rule: Mapping[str, Any]) -> str:
    if rule.get("keep_months"):
        return counted(rule["keep_months"], "month")
    return counted(rule["keep_days"], "day") if "keep_days" in rule else "–"


def retention(connection: Connection, tasks: Mapping[str, Task], environ: Mapping[str, str]) -> Listed:
    """What is deleted after how long, and what the newest plan found to delete."""
    rows = []
    for task in tasks.values():
        rules = resolve(task.params, environ, task.name).get("rules") or ()
        items = _newest_items(connection, task.name) if rules else {}
        for rule in rules:
            item = items.get(rule["name"]) or items.get(rule.get("table", ""))
            backlog = counted(item["count"], item["unit"]) if item else "–"
            rows.append(
                (
                    rule.get("table", rule["name"]),
                    _task_link(task.name),
                    rule.get("where", "") or "every row",
                    _kept(rule),
                    counted(rule["archive"]["keep_days"], "day") if rule.get("archive") else "no undo",
                    backlog,
                    words.shorter((item or {}).get("oldest") or "–"),
                )
            )
    return Listed(
        "Retention",
        "Backlog and oldest row are what the newest plan of the task counted.",
        ("Table", "Deleted by", "Rows", "Kept", "Archive kept", "Backlog", "Oldest"),
        rows,
        "No task deletes by age.",
    )


def _newest_items(connection: Connection, task: str) -> dict[str, dict[str, Any]]:
    row = connection.execute(
        select(plan.c["items"]).where(plan.c.task == task).order_by(plan.c.created_at.desc()).limit(1)
    ).scalar_one_or_none()
    return {item["what"]: item for item in row or ()}


def backups(connection: Connection, now: datetime) -> Listed:
    """The verified backups, newest first, with how long restoring one took."""
    found = connection.execute(
        select(verified_backup.c.manifest, verified_backup.c.taken_at, verified_backup.c.verified_at,
               verified_backup.c.recovery_s)
        .order_by(verified_backup.c.verified_at.desc())
        .limit(_MOST)
    )  # fmt: skip
    rows = [
        (words.moment(r.taken_at), words.span(now - r.taken_at), words.moment(r.verified_at), words.span(r.recovery_s),
         r.manifest.rpartition("/")[2])
        for r in found
    ]  # fmt: skip
    return Listed(
        "Backups",
        "A backup counts when it was restored and compared; the recovery time is what that took.",
        ("Taken", "Age", "Verified", "Recovery time", "Manifest"),
        rows,
        "No backup is verified: destructive tasks refuse to run where the gate is on.",
    )


def incidents(connection: Connection) -> Listed:
    """What the watchdog found, open ones first; drift of Cloud Scheduler among it."""
    found = connection.execute(
        select(
            watch_incident.c.key, watch_incident.c.severity, watch_incident.c.summary, watch_incident.c.opened_at,
            watch_incident.c.closed_at, watch_incident.c.runbook,
        )
        .order_by(watch_incident.c.closed_at.is_not(None), watch_incident.c.opened_at.desc())
        .limit(_MOST)
    )  # fmt: skip
    rows = [
        (
            "over" if r.closed_at else r.severity,
            r.summary,
            words.moment(r.opened_at),
            words.moment(r.closed_at) if r.closed_at else "open",
            _task_link(r.runbook),
            Markup("<code>{}</code>").format(r.key),
        )
        for r in found
    ]
    return Listed(
        "Incidents",
        "What the watchdog found: late, failing, stuck and slow tasks, drift of schedules, backlogs, ages.",
        ("State", "What", "Since", "Until", "Task", "Key"),
        rows,
        "Nothing was ever wrong, or the watchdog has never run.",
    )


def models(connection: Connection) -> Listed:
    """What training decided, newest first; empty on a platform without the table."""
    columns = ("Model", "Version", "Decision", "Why", "Metrics", "Trained")
    title, intro = "Models", "Every training run and why its model is or is not in use."
    if connection.execute(text("select to_regclass('training_run')")).scalar_one() is None:
        return Listed(title, intro, columns, (), "This platform has no table training_run.")
    names = ("model", "version", "decision", "reason", "metrics", "finished_at")
    runs = table("training_run", *map(column, names))
    found = connection.execute(select(*runs.c).order_by(runs.c.finished_at.desc()).limit(_MOST))
    rows = [(r.model, r.version, r.decision, r.reason, _metrics(r.metrics), words.moment(r.finished_at)) for r in found]
    return Listed(title, intro, columns, rows, "No model was trained yet.")


def _metrics(values: Mapping[str, Any]) -> str:
    shown = [f"{k} {v:.3g}" for k, v in sorted(values.items()) if isinstance(v, int | float)]
    return ", ".join(shown[:6])


def query_plans(connection: Connection) -> Listed:
    """The statements of the newest analysis, those that take most time first, and what is worth a look."""
    newest = select(query_plan.c.run_id).order_by(query_plan.c.at.desc()).limit(1).scalar_subquery()
    found = connection.execute(
        select(query_plan.c.sql, query_plan.c.calls, query_plan.c.total_ms, query_plan.c.plan_hash,
               query_plan.c.before, query_plan.c.reason, query_plan.c.findings)
        .where(query_plan.c.run_id == newest)
        .order_by(query_plan.c.rank)
    )  # fmt: skip
    rows = [
        (
            Markup("<code>{}</code>").format(r.sql[:300]) if r.sql else r.reason,  # what has no plan keeps no text
            f"{r.calls:,}",
            words.span(r.total_ms / 1000),
            "changed" if r.before and r.before != r.plan_hash else (r.reason or "") if r.sql else "none",
            "; ".join(f"{one['subject']}: {one['why']}" for one in r.findings),
        )
        for r in found
    ]
    return Listed(
        "Query plans",
        "The statements of the newest analysis by total time since the one before; no value of a statement is kept.",
        ("Statement", "Calls", "Time", "Plan", "Worth a look"),
        rows,
        "analyze_query_plans has not run yet.",
    )


def _task_link(name: str) -> Markup:
    return Markup('<a href="/console/tasks/{0}">{0}</a>').format(name)
