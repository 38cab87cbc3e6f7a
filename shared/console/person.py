"""Who looks at the console: an operator signed in by Firebase, or whoever sits at the laptop.

The cookie is named __session, the only one Firebase Hosting passes on. It holds the ID token itself, which lasts an
hour: to make Firebase's longer session cookies a task would need a role that may delete every user. Form tokens are
made of it: who does not hold the cookie cannot know one.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from shared.call import Request
from shared.clock import Clock
from shared.errors import Refused
from shared.identity import Identity, NotAllowed, NotSignedIn
from shared.settings import Settings

COOKIE = "__session"
_HERE = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Visitor:
    """Who asks. `set_cookie` is what the answer has to bring along."""

    actor: str = field(repr=False)
    session: str = field(repr=False)
    signed_in: bool
    set_cookie: str | None = field(default=None, repr=False)

    @property
    def token(self) -> str:
        """What a form of this session carries."""
        return form_token(self.session)


def form_token(session: str) -> str:
    """The form token that belongs to a session's cookie."""
    return hashlib.sha256(b"console form\0" + session.encode()).hexdigest()


def cookie_of(request: Request) -> str:
    """The session's cookie, or nothing."""
    try:
        found = SimpleCookie(request.headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def session_cookie(value: str, *, secure: bool, seconds: int | None = None) -> str:
    """The header that sets the session's cookie."""
    age = "" if seconds is None else f"; Max-Age={seconds}"
    return f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict{age}{'; Secure' if secure else ''}"


def visitor(request: Request, settings: Settings, clock: Clock, *, open_here: bool) -> Visitor:
    """Who asks. Raises NotSignedIn, NotAllowed, and what Identity raises.

    On a laptop (`open_here`, never in the cloud) whoever reaches 127.0.0.1 is its user; another Host would be a page
    somewhere that has its name point at us.
    """
    session = cookie_of(request)
    if open_here and not settings.in_cloud:
        host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
        if host not in _HERE:
            raise NotAllowed("on a laptop the console answers at 127.0.0.1 and localhost only")
        fresh = None if session else secrets.token_urlsafe(24)
        made = session_cookie(fresh, secure=False) if fresh else None
        return Visitor(settings.environ.get("USER") or "operator", session or fresh or "", False, made)
    if not session:
        raise NotSignedIn("sign in to see the console")
    identity = Identity(settings, clock)
    return Visitor(identity.require_operator(identity.by_token(session)), session, True)


def check_form(request: Request, form: dict[str, str], session: str) -> None:
    """Raises Refused unless the form was made for this session, by a page of ours."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc not in _names(request):
        raise Refused("this form came from another site")
    if not session or not hmac.compare_digest(form.get("token", ""), form_token(session)):
        raise Refused("this form is not of this session: go back, load the page again, and repeat")


def _names(request: Request) -> set[str]:
    """The hosts we are called by; Hosting names the public one in a header of its own."""
    return {request.headers.get(name, "") for name in ("host", "x-forwarded-host")} - {""}
