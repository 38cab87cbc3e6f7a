"""Findings from Cloud Scheduler: jobs that are missing, drifted, paused, or whose calls are not answered."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.errors import Retry, Unavailable
from shared.manifest import Cron, Every, Task
from shared.schedule import last_slot
from shared.watch.finding import Finding

if TYPE_CHECKING:
    from google.cloud.scheduler_v1 import CloudSchedulerClient, Job

# Cloud Scheduler fires within seconds; after this much a slot was not fired at all.
_LATE = timedelta(minutes=10)

_TIMEOUT_S = 20.0  # the next run asks again: this one does not repeat


@dataclass(frozen=True)
class Declared:
    """A job as task.yaml wants it; its cron is in UTC."""

    name: str
    task: str
    trigger: Cron | Every

    @property
    def cron(self) -> str:
        return self.trigger.expression if isinstance(self.trigger, Cron) else "* * * * *"


@dataclass(frozen=True)
class Live:
    """A job as Cloud Scheduler has it. `state` is ENABLED, PAUSED, DISABLED or UPDATE_FAILED; `failed` its last call's
    gRPC status when that was not OK."""

    name: str
    cron: str
    time_zone: str
    state: str
    changed: datetime | None
    last_attempt: datetime | None
    failed: int


def declared(tasks: Mapping[str, Task]) -> Iterator[Declared]:
    """The jobs Terraform makes of `tasks`, by the names it gives them."""
    for task in tasks.values():
        timed = [t for t in task.triggers if isinstance(t, Cron)] + [t for t in task.triggers if isinstance(t, Every)]
        for number, trigger in enumerate(timed, start=1):
            yield Declared(task.slug if number == 1 else f"{task.slug}-{number}", task.name, trigger)


def findings(wanted: Iterator[Declared], there: Mapping[str, Live], now: datetime) -> Iterator[Finding]:
    """How the jobs `there` differ from those `wanted`."""
    for job in wanted:
        live = there.get(job.name)
        key = f"schedule/{job.name}"
        if live is None:
            yield Finding(key, "error", f"{job.task} has no job {job.name} in Cloud Scheduler", job.task)
        elif live.state != "ENABLED":
            yield Finding(key, "error", f"the job {job.name} is {live.state.lower()} in Cloud Scheduler", job.task)
        elif live.cron != job.cron or live.time_zone not in ("Etc/UTC", "UTC"):
            yield Finding(
                key,
                "error",
                f"the job {job.name} runs at {live.cron!r} {live.time_zone}, declared is {job.cron!r} Etc/UTC",
                job.task,
            )
        else:
            yield from _calls(job, live, now)


def _calls(job: Declared, live: Live, now: datetime) -> Iterator[Finding]:
    slot = last_slot(job.trigger, now - _LATE)
    made = live.changed or datetime.min.replace(tzinfo=UTC)
    if slot is not None and slot > made and (live.last_attempt is None or live.last_attempt < slot):
        yield Finding(
            f"fired/{job.name}",
            "error",
            f"the job {job.name} was not fired at {slot:%Y-%m-%d %H:%M} UTC",
            job.task,
        )
    if live.failed:
        yield Finding(
            f"call/{job.name}", "warning", f"the last call of the job {job.name} failed (gRPC {live.failed})", job.task
        )


def live_jobs(*, project: str, region: str, emulator: str) -> dict[str, Live]:
    """What Cloud Scheduler has in `region`, by short name. Raises Unavailable, Retry.

    With `emulator` (host:port) it is asked there, without TLS.
    """
    from google.api_core import exceptions

    with _client(emulator) as client:
        try:
            jobs = list(
                client.list_jobs(parent=f"projects/{project}/locations/{region}", retry=None, timeout=_TIMEOUT_S)
            )
        except (exceptions.PermissionDenied, exceptions.Unauthenticated):
            raise Unavailable("Cloud Scheduler does not let us look: grant roles/cloudscheduler.viewer") from None
        except exceptions.GoogleAPIError as error:
            raise Retry(f"Cloud Scheduler did not list its jobs ({type(error).__name__})") from None
    return {job.name.rpartition("/")[2]: _live(job) for job in jobs}


@contextmanager
def _client(emulator: str) -> Iterator["CloudSchedulerClient"]:
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import scheduler_v1

    if not emulator:
        try:
            made = scheduler_v1.CloudSchedulerClient()
        except DefaultCredentialsError:
            raise Unavailable("Google gives no credentials with which to ask Cloud Scheduler") from None
        with made as client:
            yield client
        return
    import grpc
    from google.cloud.scheduler_v1.services.cloud_scheduler.transports import CloudSchedulerGrpcTransport

    # Only a program on this machine: Cloud Scheduler itself is never asked without TLS.
    with grpc.insecure_channel(emulator) as channel:
        yield scheduler_v1.CloudSchedulerClient(transport=CloudSchedulerGrpcTransport(channel=channel))


def _live(job: "Job") -> Live:
    return Live(
        job.name.rpartition("/")[2],
        job.schedule,
        job.time_zone,
        job.state.name,
        job.user_update_time,
        job.last_attempt_time,
        job.status.code,
    )
