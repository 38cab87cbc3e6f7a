"""Cloud Scheduler's API for the laptop, so that the watchdog asks the plane's scheduler as it asks the cloud's.

ListJobs over gRPC, as google-cloud-scheduler speaks it; the jobs are those Terraform would make of the task.yaml files.
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from google.cloud.scheduler_v1.types import Job, ListJobsRequest, ListJobsResponse
from google.rpc.status_pb2 import Status

from shared.clock import Clock
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
        listing = grpc.unary_unary_rpc_method_handler(
            self._list, request_deserializer=ListJobsRequest.deserialize, response_serializer=ListJobsResponse.serialize
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"ListJobs": listing}),))
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

    def stop(self) -> None:
        """Answer no more."""
        self._server.stop(_STOP_S).wait()
