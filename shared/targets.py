"""Start a task wherever it lives: its function by HTTP, its job by the Run API, or right here on a laptop."""

import json
import uuid
from pathlib import Path
from typing import Any

from shared import manifest
from shared.clock import Clock
from shared.errors import Retry, Unavailable
from shared.settings import Settings

_TIMEOUT_S = 30.0


def start(task: str, request: uuid.UUID, settings: Settings, clock: Clock) -> None:
    """Invoke `task` for the run request `request`, which is committed already.

    The request stays in the ledger whatever happens here. Raises Retry when the target did not take the call,
    Unavailable when nobody said where it is.
    """
    target = settings.targets.get(task)
    if target is None:
        if settings.in_cloud:
            raise Unavailable(f"no target for {task}: set KEEPER_TARGET_{task.upper()} (terraform does, from `starts`)")
        _here(task, request, settings, clock)
    elif target.startswith("projects/"):
        _job(target)
    else:
        _function(target, request, settings)


def _here(task: str, request: uuid.UUID, settings: Settings, clock: Clock) -> None:
    from shared.call import by_hand
    from shared.task import load

    folder = Path(settings.environ.get("KEEPER_FUNCTIONS") or manifest.FUNCTIONS) / task
    runner = load(folder).runner(settings, clock)
    try:
        runner.execute(by_hand(request))
    finally:
        runner.close()


def _function(url: str, request: uuid.UUID, settings: Settings) -> None:
    import requests

    headers = {"Content-Type": "application/json"}
    if settings.in_cloud:
        import google.auth.transport.requests
        import google.oauth2.id_token

        headers["Authorization"] = "Bearer " + google.oauth2.id_token.fetch_id_token(  # type: ignore[no-untyped-call]
            google.auth.transport.requests.Request(), url
        )
    try:
        answer = requests.post(url, data=json.dumps({"run_request": str(request)}), headers=headers, timeout=_TIMEOUT_S)
    except requests.Timeout:
        return  # it is at work: its own ledger row says how it ends
    except requests.ConnectionError as error:
        raise Retry("the task's function does not answer") from error
    if answer.status_code in (401, 403, 404):
        raise Unavailable(
            f"the task's function answered {answer.status_code}: is it deployed, and may this task invoke it?"
        )


def _job(resource: str) -> Any:
    from google.cloud import run_v2

    return run_v2.JobsClient().run_job(name=resource)
