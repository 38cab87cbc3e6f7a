"""Cloud Scheduler's API for the laptop, so that the watchdog asks the plane's scheduler as it asks the cloud's.

List, pause, resume and delete jobs over gRPC, as google-cloud-scheduler speaks it; the jobs are those Terraform would
make of the task.yaml files.
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
from google.cloud.scheduler_v1.types import (
    DeleteJobRequest,
    Job,
    ListJobsRequest,
    ListJobsResponse,
    PauseJobRequest,
    ResumeJobRequest,
)
from google.protobuf.empty_pb2 import Empty
from google.rpc.status_pb2 import Status

from shared.clock import Clock
from shared.laptop import scheduler
from shared.laptop.ports import free_ports
from shared.laptop.scheduler import Attempt, jobs_of
from shared.manifest import Every, Task

_SERVICE = "google.cloud.scheduler.v1.CloudScheduler"
_STOP_S = 1.0


class SchedulerApi:
    """The jobs and their last attempts; `jobs` may be changed by whoever holds the lock of `changing`."""

    def __init__(self, tasks: Mapping[str, Task], clock: Clock) -> None:
        """Serving already; `stop` ends it."""
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs = {
            job.name: Job(
                name=job.name,
                schedule="* * * * *" if isinstance(job.trigger, Every) else job.trigger.expression,
                time_zone="Etc/UTC",
                state=Job.State.ENABLED,
                user_update_time=clock.now(),
            )
            for job in jobs_of(tasks)
        }
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        methods: dict[str, tuple[Any, Any, Any]] = {
            "ListJobs": (self._list, ListJobsRequest.deserialize, ListJobsResponse.serialize),
            "PauseJob": (partial(self._become, Job.State.PAUSED), PauseJobRequest.deserialize, Job.serialize),
            "ResumeJob": (partial(self._become, Job.State.ENABLED), ResumeJobRequest.deserialize, Job.serialize),
            "DeleteJob": (self._delete, DeleteJobRequest.deserialize, Empty.SerializeToString),
        }
        handlers = {name: grpc.unary_unary_rpc_method_handler(*how) for name, how in methods.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        self.port = next(port for port in free_ports() if self._server.add_insecure_port(f"127.0.0.1:{port}"))
        self._server.start()

    @property
    def host(self) -> str:
        """For CLOUD_SCHEDULER_EMULATOR_HOST."""
        return f"127.0.0.1:{self.port}"

    @contextmanager
    def changing(self) -> Iterator[dict[str, Job]]:
        """The jobs by short name, to be paused, changed or deleted."""
        with self._lock:
            yield self._jobs

    def fires(self, job: scheduler.Job) -> bool:
        """Whether the job is there and not paused."""
        with self._lock:
            there = self._jobs.get(job.name)
            return there is not None and there.state is Job.State.ENABLED

    def record(self, attempt: Attempt) -> None:
        """Remember how a job's last call ended."""
        with self._lock:
            if (job := self._jobs.get(attempt.job.name)) is not None:
                job.last_attempt_time = self._clock.now()
                # as Cloud Scheduler does, an HTTP status becomes a gRPC one; 13 is INTERNAL
                job.status = Status(code=0 if attempt.accepted else 13)

    def _list(self, request: ListJobsRequest, _context: grpc.ServicerContext) -> ListJobsResponse:
        with self._lock:
            return ListJobsResponse(
                jobs=[
                    Job(Job.pb(job), name=f"{request.parent}/jobs/{name}") for name, job in sorted(self._jobs.items())
                ]
            )

    def _become(self, state: int, request: PauseJobRequest | ResumeJobRequest, at: grpc.ServicerContext) -> Job:
        with self._lock:
            job = self._named(request.name, at)
            job.state, job.user_update_time = Job.State(state), self._clock.now()
            return Job(Job.pb(job), name=request.name)

    def _delete(self, request: DeleteJobRequest, at: grpc.ServicerContext) -> Empty:
        with self._lock:
            del self._jobs[self._named(request.name, at).name]
        return Empty()

    def _named(self, name: str, at: grpc.ServicerContext) -> Job:
        job = self._jobs.get(name.rpartition("/")[2])
        if job is None:
            at.abort(grpc.StatusCode.NOT_FOUND, f"there is no job {name}")
        return job

    def stop(self) -> None:
        """Answer no more."""
        self._server.stop(_STOP_S).wait()
