"""Lets operators list, show, approve and reject what waits for them, and starts what was approved.

It never decides by itself, never lets who asked approve alone where there is another operator unless the glass is
broken with a reason, and never starts anything but exactly the plan that was approved, once.
"""

import json
from dataclasses import dataclass
from datetime import timedelta

from shared.approvals.api import Api
from shared.errors import Refused
from shared.identity import Identity
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    fresh_minutes: int


def run(ctx: Context, params: Params) -> dict[str, int]:
    if ctx.request is None:
        raise Refused("approvals answers requests only: on a terminal use `keeper approvals`")
    api = Api(ctx, Identity(ctx.settings, ctx.clock), timedelta(minutes=params.fresh_minutes))
    answer = api.answer(ctx.request)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    ctx.respond(answer.status, json.dumps(answer.document).encode(), headers=headers)
    return {
        "answered": int(answer.status < 400),
        "turned_away": int(answer.status >= 400),
        "decided": int(answer.decided),
    }


main = entrypoint(__file__, run)
