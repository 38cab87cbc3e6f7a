"""Shows operators what the plane did, does and will do, and takes their decisions.

Every page is made on the server and reads without JavaScript; every form is bound to the session and kept in the
operators' audit. It never deletes anything itself, never decides in anybody's place, and shows nobody but operators.
"""

import gzip
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from shared.call import Reply, Request
from shared.clock import Clock
from shared.console.page import Answer, door, out_of_reach, redirect
from shared.console.person import cookie_of, form_token, session_cookie, visitor
from shared.console.routes import Console, answer, form_of
from shared.endings import Ended
from shared.errors import OUTCOMES, Refused, Retry, Unavailable
from shared.identity import Identity, NotAllowed, NotSignedIn
from shared.manifest import deployed
from shared.settings import Settings
from shared.task import Context, entrypoint

# An ID token's life: the session ends with it.
_SESSION_S = 3600
_HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Kept:
    telemetry_days: int


@dataclass(frozen=True)
class Params:
    docs: str
    sign_in: Literal["cloud", "always"]
    api_key: str
    endpoint: str
    kept: Kept


def run(ctx: Context, params: Params) -> dict[str, int]:
    if ctx.request is None:
        raise Refused("the console is opened in a browser, at /console")
    made = _answer(ctx, params, ctx.request)
    body, headers = made.body.encode(), made.headers
    # No length tells another site anything: the session cookie is SameSite=Strict, so its requests show it no page.
    if "gzip" in ctx.request.headers.get("accept-encoding", ""):
        body, headers = gzip.compress(body, mtime=0), {**headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    ctx.respond(made.status, body, _HTML, headers)
    return {"bytes": len(body)}


def _answer(ctx: Context, params: Params, request: Request) -> Answer:
    if request.path in ("", "/"):
        return redirect("/console")
    try:
        if (request.method, request.path) == ("POST", "/console/session"):
            return _sign_in(ctx, params, request)
        if (request.method, request.path) == ("POST", "/console/sign-out"):
            return _sign_out(ctx, request)
        who = visitor(request, ctx.settings, ctx.clock, open_here=params.sign_in == "cloud")
        return answer(Console(ctx, deployed(ctx.task.folder.parent), who, params.docs), request)
    except NotSignedIn as reason:
        return _door(params, 401, str(reason))
    except NotAllowed as reason:
        return _door(params, 403, str(reason))
    except (Retry, Unavailable) as reason:
        return _door(params, 503, str(reason))


def _door(params: Params, status: int, said: str) -> Answer:
    return door(status=status, said=said, key=params.api_key, endpoint=params.endpoint)


def _sign_in(ctx: Context, params: Params, request: Request) -> Answer:
    """A session for an operator's ID token that was made within the last minutes. A form of another site can send
    neither of its headers."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind != "Bearer" or request.headers.get("x-console") != "sign-in":
        return Answer(400, "expected an ID token")
    identity = Identity(ctx.settings, ctx.clock)
    try:
        identity.require_operator(identity.by_token(token, fresh_within=timedelta(minutes=5)))
    except (NotSignedIn, NotAllowed) as reason:
        return Answer(403, str(reason))
    set_cookie = session_cookie(token, secure=ctx.settings.in_cloud, seconds=_SESSION_S)
    return Answer(204, "", {"Set-Cookie": set_cookie, "Cache-Control": "no-store"})


def _sign_out(ctx: Context, request: Request) -> Answer:
    session = cookie_of(request)
    if form_of(request).get("token") != form_token(session):
        return redirect("/console")
    return redirect("/console", {"Set-Cookie": session_cookie("", secure=ctx.settings.in_cloud, seconds=0)})


def say_unreached(_settings: Settings, _clock: Clock, params: Params, how: Ended) -> Reply:
    """In words a browser shows, to whoever asks: nobody can be looked up now."""
    made = out_of_reach(how.error or how.outcome.value, OUTCOMES[how.outcome].http, params.docs)
    return Reply(made.status, made.body.encode(), {"Content-Type": _HTML, **made.headers})


main = entrypoint(__file__, run, unreached=say_unreached)
