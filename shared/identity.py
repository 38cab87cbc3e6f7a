"""Who a person is: Firebase's ID tokens and session cookies, believed only after asking Firebase itself.

Revocation, a disabled user, the verified e-mail address and the claims are read from the user as they are now, not
from the token, which may be an hour old. A claim alone opens nothing: any service with firebase-admin could mint one,
so an operator also stands on the operator list (KEEPER_OPERATORS).

firebase_admin is imported when it is first needed: a task that uses this module names it in its `requires`.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from shared.clock import Clock
from shared.errors import Retry, Unavailable
from shared.redaction import register
from shared.settings import Settings

_EMULATOR = "FIREBASE_AUTH_EMULATOR_HOST"
_CLAIMS = ("operator", "admin")
_MAKING = threading.Lock()
Answer = TypeVar("Answer")

# Seconds Google's clock and ours may differ, and a question to Firebase may take.
_SKEW_S = 10
_TIMEOUT_S = 10

# https://firebase.google.com/docs/auth/admin/manage-cookies#create_session_cookie
_SHORTEST_COOKIE, _LONGEST_COOKIE = timedelta(minutes=5), timedelta(days=14)


@dataclass(frozen=True)
class Person:
    """A signed-in user of Firebase. `email` only if verified; `operator` is the claim, which alone opens nothing."""

    uid: str = field(repr=False)
    email: str | None = field(repr=False)
    auth_time: datetime
    operator: bool


class NotSignedIn(Exception):
    """The caller must sign in (again). The message is safe to answer: no token, no address."""


class NotAllowed(Exception):
    """The caller is somebody, but may not do this. The message is safe to answer."""


class Identity:
    """Checks what callers show. Safe to share between threads; asks Firebase at each check."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._emulator = settings.environ.get(_EMULATOR, "")

    def by_token(self, token: str, *, fresh_within: timedelta | None = None) -> Person:
        """Whom this ID token is of; `fresh_within`: signed in no longer ago than that.

        Raises NotSignedIn, Retry when Firebase does not answer, Unavailable when there is no Firebase here.
        """
        return self._person(token, cookie=False, fresh_within=fresh_within)

    def by_cookie(self, cookie: str) -> Person:
        """Whom this session cookie is of. Raises as `by_token` does."""
        return self._person(cookie, cookie=True, fresh_within=None)

    def cookie(self, token: str, *, expires_in: timedelta) -> str:
        """A session cookie for this ID token's user, for 5 minutes to 14 days.

        Raises as `by_token` does, ValueError for another span of time.
        """
        if not _SHORTEST_COOKIE <= expires_in <= _LONGEST_COOKIE:
            raise ValueError(f"a session cookie lasts from 5 minutes to 14 days, not {expires_in}")
        self.by_token(token)
        made: str = self._asked(lambda auth, app: auth.create_session_cookie(token, expires_in, app))
        register(made)
        return made

    def require_operator(self, person: Person) -> str:
        """The verified e-mail address by which an operator is named. Raises NotAllowed."""
        if person.email is None:
            raise NotAllowed("operators are known by their verified e-mail address: verify yours, then sign in again")
        if not person.operator:
            raise NotAllowed("this user has neither the claim operator nor admin: an administrator can give it")
        if person.email.casefold() not in {o.casefold() for o in self._settings.operators}:
            raise NotAllowed("this user is not on the list of operators: it is the variable `operators` of Terraform")
        return person.email

    # --- asking Firebase

    def _person(self, shown: str, *, cookie: bool, fresh_within: timedelta | None) -> Person:
        # a token is never shown, wherever an error or a log line might quote it
        register(shown)
        if len(shown) > 8192 or not shown.isascii():
            raise NotSignedIn("that is no token of Firebase: sign in")

        def verified(auth: Any, app: Any) -> tuple[Mapping[str, Any], Any]:
            verify = auth.verify_session_cookie if cookie else auth.verify_id_token
            claims = verify(shown, app=app, clock_skew_seconds=_SKEW_S)
            return claims, auth.get_user(claims["uid"], app)

        claims, user = self._asked(verified)
        issued, signed_in, until = (_moment(claims, name) for name in ("iat", "auth_time", "exp"))
        now, skew = self._clock.now(), timedelta(seconds=_SKEW_S)
        # The emulator's tokens are unsigned, and firebase_admin leaves their times alone too.
        if issued > now + skew or signed_in > now + skew or until + skew <= now:
            raise NotSignedIn("this sign-in has expired: sign in again")
        if user.disabled:
            raise NotSignedIn("this user is disabled: ask the administrator")
        if issued.timestamp() * 1000 < user.tokens_valid_after_timestamp:
            raise NotSignedIn("this sign-in was revoked: sign in again")
        if fresh_within is not None and now - signed_in > fresh_within:
            raise NotSignedIn(
                f"this needs a sign-in no older than {int(fresh_within.total_seconds() // 60)} minutes: sign in again"
            )
        own: Mapping[str, Any] = user.custom_claims or {}
        return Person(
            uid=user.uid,
            email=user.email if user.email and user.email_verified else None,
            auth_time=signed_in,
            operator=any(own.get(claim) is True for claim in _CLAIMS),
        )

    def _asked(self, question: Callable[[Any, Any], Answer]) -> Answer:
        """What `question(firebase_admin.auth, app)` answers, its errors in our words."""
        from firebase_admin import auth, exceptions
        from google.auth.exceptions import DefaultCredentialsError, TransportError

        try:
            return question(auth, self._app())
        except auth.UserNotFoundError:
            raise NotSignedIn("this user is gone: sign up, or sign in as another") from None
        except (auth.InvalidIdTokenError, auth.InvalidSessionCookieError, ValueError):
            raise NotSignedIn("that is no token of this project that is valid now: sign in") from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, DefaultCredentialsError):
            raise Unavailable(
                "Firebase Auth refuses this service account: it needs roles/firebaseauth.viewer, or to make "
                "session cookies roles/firebaseauth.admin"
            ) from None
        except exceptions.InvalidArgumentError:
            raise NotSignedIn("Firebase does not accept this token: sign in again") from None
        except (exceptions.FirebaseError, TransportError):
            raise Retry("Firebase Auth did not answer") from None

    def _app(self) -> Any:
        """firebase_admin's app, made once a process. Raises Unavailable where there is neither cloud nor emulator."""
        import firebase_admin

        if not self._settings.in_cloud and not self._emulator:
            raise Unavailable(f"Firebase Auth is not here: run inside `keeper up`, or set {_EMULATOR} to an emulator")
        name = f"groundskeeper/{self._settings.project}/{self._emulator}"
        with _MAKING:
            try:
                return firebase_admin.get_app(name)
            except ValueError:  # firebase_admin's word for: not made yet
                options = {"projectId": self._settings.project, "httpTimeout": _TIMEOUT_S}
                return firebase_admin.initialize_app(options=options, name=name)


def _moment(claims: Mapping[str, Any], name: str) -> datetime:
    seconds = claims.get(name)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e11:
        raise NotSignedIn(f"the token has no {name}: sign in")
    return datetime.fromtimestamp(seconds, UTC)
