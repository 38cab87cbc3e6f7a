"""Deletes the caller's account everywhere, and answers with a receipt of what went and what still exists.

The caller is known by a Firebase ID token of a sign-in a few minutes old. It never deletes what a legal hold covers,
never touches another account's data, and leaves the Firebase user itself to the client, which deletes it afterwards.
"""

from dataclasses import dataclass
from datetime import timedelta

from shared.accounts import request
from shared.accounts.deletion import Deletion, Policy
from shared.accounts.inventory import Held
from shared.call import Request
from shared.errors import Refused
from shared.identity import Identity, NotSignedIn, Person
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    fresh_minutes: int
    answer_within_s: int
    policy: Policy


def run(ctx: Context, params: Params) -> dict[str, int]:
    if ctx.request is None:
        raise Refused("only its owner deletes an account; what was begun is finished by `keeper run finish_deletions`")
    try:
        if ctx.request.method == "DELETE":
            _delete(ctx, params, ctx.request)
        else:
            _status(ctx, ctx.request)
    except NotSignedIn as unknown:
        ctx.count("unknown_callers")
        request.answer(ctx, 401, {"error": str(unknown)}, {"WWW-Authenticate": "Bearer"})
    except Held:
        ctx.count("held")
        request.answer(ctx, 409, {"error": "the account is under a legal hold and cannot be deleted now: ask support"})
    return ctx.counts


def _delete(ctx: Context, params: Params, asked: Request) -> None:
    person = _person(ctx, asked, fresh_within=timedelta(minutes=params.fresh_minutes))
    until = ctx.clock.monotonic() + params.answer_within_s
    found = request.begin(ctx, person.uid)
    if found is not None and found.completed_at is None:
        found = Deletion(ctx, params.policy, found.erasure_id).advance(lambda: ctx.clock.monotonic() >= until)
    request.tell(ctx, found)


def _status(ctx: Context, asked: Request) -> None:
    person = _person(ctx, asked, fresh_within=None)
    found = request.find(ctx, person.uid, asked.path.rsplit("/", 1)[-1])
    if found is None:
        request.answer(ctx, 404, {"error": "there is no such deletion of yours"})
    else:
        request.tell(ctx, found)


def _person(ctx: Context, asked: Request, *, fresh_within: timedelta | None) -> Person:
    scheme, _, token = asked.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotSignedIn("send the Firebase ID token: Authorization: Bearer <token>")
    return Identity(ctx.settings, ctx.clock).by_token(token.strip(), fresh_within=fresh_within)


main = entrypoint(__file__, run)
