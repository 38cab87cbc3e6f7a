"""Says once what is wrong with the plane, and once when it is over.

It compares the ledger, the tables and Cloud Scheduler's jobs with every task.yaml: late, failing, stuck and slow runs,
missing, drifted and paused jobs, backlogs and ages. It never repairs anything, and never tells the same incident twice.
"""

from dataclasses import dataclass

from shared import pauses
from shared.clock import Clock
from shared.endings import Ended
from shared.errors import Retry, Unavailable
from shared.manifest import deployed
from shared.settings import Settings
from shared.task import Context, entrypoint
from shared.watch import ages, incidents, runs, schedules, unreached
from shared.watch.ages import Age
from shared.watch.channels import Alert, channels, tell
from shared.watch.finding import Finding


@dataclass(frozen=True)
class SchedulerParams:
    project: str
    region: str
    emulator: str


@dataclass(frozen=True)
class Params:
    docs: str
    scheduler: SchedulerParams
    ages: tuple[Age, ...]


def run(ctx: Context, params: Params) -> dict[str, int]:
    tasks = deployed(ctx.task.folder.parent)
    found: list[Finding] = []
    with ctx.read() as connection:
        stops = {p.task for p in pauses.in_force(connection, ctx.now)}
        found += runs.findings(connection, tasks, paused=stops, now=ctx.now)
        held = ages.held(connection, params.ages, ctx.holds())
        found += ages.findings(connection, params.ages, tasks, held=held, now=ctx.now)
    away = unreached.stands(ctx.objects("archive"))
    jobs = None
    try:
        jobs = _jobs(params.scheduler)
    except (Retry, Unavailable) as reason:
        found.append(Finding("scheduler/unseen", "warning", str(reason), "watchdog"))
    if jobs is not None:
        drift = schedules.findings(schedules.declared(tasks), jobs, ctx.now)
        # Of our own call this run is the repetition; while the ledger was away all calls failed, and that was told.
        moot = "call/" if away else f"call/{ctx.task.slug}"
        found += [one for one in drift if not one.key.startswith(moot)]
    unseen = frozenset(("call",) if away else ()) if jobs is not None else frozenset(("schedule", "fired", "call"))
    with ctx.begin() as connection:
        opened, closed = incidents.keep(connection, found, unseen=unseen, now=ctx.now)
        ctx.count("opened", opened)
        ctx.count("closed", closed)
    told = _tell(ctx, params.docs)
    with ctx.read() as connection:
        still = incidents.still_open(connection)
    ctx.log.info("heartbeat", incidents=still)
    return {
        **ctx.counts,
        "told": told,
        "open": still,
        "tasks": len(tasks),
        "jobs": len(jobs) if jobs is not None else 0,
    }


def _jobs(at: SchedulerParams) -> dict[str, schedules.Live] | None:
    """Cloud Scheduler's jobs; None where there is none to ask. Raises Retry, Unavailable."""
    if not at.region and not at.emulator:
        return None
    return schedules.live_jobs(project=at.project, region=at.region or "local", emulator=at.emulator)


def _tell(ctx: Context, docs: str) -> int:
    """Tell what nobody was told yet; how many alerts went out. Each is marked as told right after it was."""
    to = channels(ctx.secret)
    told = int(unreached.end(ctx.objects("archive"), to, docs=docs))
    with ctx.read() as connection:
        waiting = incidents.untold(connection)
    for one in waiting:
        link = f"{docs}/tasks/{one.runbook}.md"
        if tell(to, Alert(str(one.incident_id), one.severity, one.over, one.summary, link)):
            told += 1
            with ctx.begin() as connection:
                incidents.told(connection, one, ctx.clock.now())
    return told


def say_unreached(settings: Settings, clock: Clock, params: Params, how: Ended) -> None:
    unreached.begin(settings, clock, how, docs=params.docs)


main = entrypoint(__file__, run, unreached=say_unreached)
