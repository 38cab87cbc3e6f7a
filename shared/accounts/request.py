"""What a person asks of the endpoint, and what it answers: who, by ID token; how far, by the deletion's row."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from shared import erasure, holds
from shared.accounts import progress
from shared.accounts.inventory import check_holds
from shared.accounts.progress import Progress
from shared.context import Context

PATH = "/api/v1/auth/delete-account"
_POLL_S = 5


def begin(ctx: Context, uid: str) -> Progress | None:
    """The deletion of the account of this Firebase user, begun if need be; None when there never was an account.

    Raises Held, before anything is written, when a legal hold covers it.
    """
    key = ctx.secret(erasure.KEY)
    with ctx.begin() as connection:
        holds.keep_out(connection)
        account = connection.execute(
            text("select account_id from user_profile where firebase_uid = :uid"), {"uid": uid}
        ).scalar_one_or_none()
        if account is None:
            return progress.of_person(connection, uid, key)
        check_holds(connection, holds.in_force(connection, ctx.clock.now()), account)
        return progress.begin(connection, account, uid, key, ctx.clock.now())


def find(ctx: Context, uid: str, erasure_id: str) -> Progress | None:
    """The deletion of that number if this Firebase user asked for it."""
    try:
        wanted = uuid.UUID(erasure_id)
    except ValueError:
        return None
    with ctx.read() as connection:
        found = progress.of_person(connection, uid, ctx.secret(erasure.KEY))
    return found if found is not None and found.erasure_id == wanted else None


def answer(ctx: Context, status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
    """Answer with JSON that nobody keeps."""
    ctx.respond(status, json.dumps(document).encode(), headers={"Cache-Control": "no-store", **(headers or {})})


def tell(ctx: Context, found: Progress | None) -> None:
    """Answer how far a deletion is: 200 with the receipt, or 202 with where to ask again. None: no account at all."""
    if found is None:
        answer(ctx, 200, {"status": "deleted", "receipt": None, "note": "there is no account of this user"})
    elif found.completed_at is not None:
        answer(ctx, 200, {"status": "deleted", "receipt": found.receipt})
    else:
        url = f"{PATH}/{found.erasure_id}"
        headers = {"Location": url, "Retry-After": str(_POLL_S)}
        answer(ctx, 202, {"status": "deleting", "status_url": url, "steps": _steps(found)}, headers)


def _steps(found: Progress) -> list[str]:
    return [step for step in found.steps if found.done(step)]
