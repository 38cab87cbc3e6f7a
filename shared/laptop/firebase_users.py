"""The users our Firebase Auth double remembers, and the unsigned tokens it gives them, as Google's emulator does.

State is memory only. Errors are the codes the service answers with.
"""

import base64
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.clock import Clock

# Seconds an ID token lasts. https://firebase.google.com/docs/auth/admin/verify-id-tokens
_TOKEN_S = 3600
_UID = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

Body = Mapping[str, Any]
Answer = dict[str, Any]


class Refusal(Exception):
    """What the service answers instead: a code such as EMAIL_EXISTS, with status 400."""


@dataclass
class User:
    """One user. Times in seconds since 1970."""

    uid: str
    created_at: int
    valid_since: int
    email: str | None = None
    verified: bool = False
    password: str | None = field(default=None, repr=False)  # its digest
    name: str | None = None
    disabled: bool = False
    claims: dict[str, Any] = field(default_factory=dict)
    signed_in_at: int | None = None


class Users:
    """The users of one project, by the methods of Identity Toolkit; safe to share between threads."""

    def __init__(self, project: str, clock: Clock) -> None:
        self.project = project
        self._clock = clock
        self._lock = threading.RLock()
        self._users: dict[str, User] = {}
        self._refresh: dict[str, tuple[str, int]] = {}  # token -> uid, when that user signed in

    def add(
        self, email: str, password: str, *, uid: str | None = None, verified: bool = True, **claims: bool | str
    ) -> User:
        """A user who is there already; one of the same uid is replaced."""
        with self._lock:
            user = self._new(uid or _uid(), email, password)
            user.verified, user.claims = verified, dict(claims)
            return user

    def token(self, uid: str, *, signed_in_ago: int = 0) -> str:
        """An ID token of `uid`, who signed in so many seconds ago."""
        with self._lock:
            return self._token(self._user(uid), self._now() - signed_in_ago)

    def has(self, uid: str) -> bool:
        """Whether there is such a user."""
        with self._lock:
            return uid in self._users

    # --- the methods, each a published request to a published answer

    def sign_up(self, body: Body) -> Answer:
        with self._lock:
            user = self._new(body.get("localId") or _uid(), body.get("email"), body.get("password"))
            user.name = body.get("displayName")
            return {"localId": user.uid, **({"email": user.email} if user.email else {}), **self._session(user)}

    def create(self, body: Body) -> Answer:
        """As an administrator does: no session comes of it."""
        with self._lock:
            user = self._new(body.get("localId") or _uid(), body.get("email"), body.get("password"))
            user.name, user.verified = body.get("displayName"), body.get("emailVerified", False)
            user.disabled = body.get("disabled", False)
            return {"localId": user.uid, **({"email": user.email} if user.email else {})}

    def sign_in_with_password(self, body: Body) -> Answer:
        with self._lock:
            user = next((u for u in self._users.values() if u.email and u.email == _folded(body.get("email"))), None)
            if user is None or not hmac.compare_digest(user.password or "", _digest(body.get("password") or "")):
                raise Refusal("INVALID_LOGIN_CREDENTIALS")
            if user.disabled:
                raise Refusal("USER_DISABLED")
            return {
                "localId": user.uid,
                "email": user.email,
                "displayName": user.name or "",
                "registered": True,
                **self._session(user),
            }

    def lookup(self, body: Body) -> Answer:
        with self._lock:
            if "idToken" in body:
                return {"users": [_shown(self._of_token(body["idToken"]))]}
            wanted, emails = set(body.get("localId", [])), {_folded(e) for e in body.get("email", [])}
            found = [_shown(u) for u in self._users.values() if u.uid in wanted or u.email in emails]
            return {"users": found} if found else {}

    def update(self, body: Body) -> Answer:
        with self._lock:
            user = self._of_token(body["idToken"]) if "idToken" in body else self._user(body.get("localId", ""))
            if "customAttributes" in body:
                user.claims = json.loads(body["customAttributes"] or "{}")
            if "validSince" in body:
                user.valid_since = int(body["validSince"])
            user.disabled = body.get("disableUser", user.disabled)
            user.verified = body.get("emailVerified", user.verified)
            user.name = body.get("displayName", user.name)
            user.email = _folded(body["email"]) if "email" in body else user.email
            if "password" in body:
                user.password, user.valid_since = _digest(body["password"]), self._now()
            return {"localId": user.uid, **({"email": user.email} if user.email else {})}

    def delete(self, body: Body) -> Answer:
        with self._lock:
            user = self._of_token(body["idToken"]) if "idToken" in body else self._user(body.get("localId", ""))
            self._forget(user.uid)
            return {}

    def batch_delete(self, body: Body) -> Answer:
        with self._lock:
            for uid in body.get("localIds", []):
                self._forget(uid)
            return {}

    def session_cookie(self, body: Body) -> Answer:
        with self._lock:
            claims = claims_of(body["idToken"])
            user = self._of_token(body["idToken"])
            made = self._claims(user, int(claims["auth_time"]), int(body.get("validDuration", 1_209_600)))
            made["iss"] = f"https://session.firebase.google.com/{self.project}"
            return {"sessionCookie": _unsigned(made)}

    def refreshed(self, refresh_token: str) -> Answer:
        """What securetoken.googleapis.com answers."""
        with self._lock:
            uid, signed_in = self._refresh.get(refresh_token, ("", 0))
            if uid not in self._users:
                raise Refusal("INVALID_REFRESH_TOKEN")
            user = self._users[uid]
            if user.disabled:
                raise Refusal("USER_DISABLED")
            if signed_in < user.valid_since:
                raise Refusal("TOKEN_EXPIRED")
            token = self._token(user, signed_in)
            return {
                "id_token": token,
                "access_token": token,
                "refresh_token": refresh_token,
                "expires_in": str(_TOKEN_S),
                "token_type": "Bearer",
                "user_id": uid,
                "project_id": self.project,
            }

    # --- inside

    def _now(self) -> int:
        return int(self._clock.now().timestamp())

    def _user(self, uid: str) -> User:
        if uid not in self._users:
            raise Refusal("USER_NOT_FOUND")
        return self._users[uid]

    def _of_token(self, token: str) -> User:
        claims = claims_of(token)
        user = self._user(str(claims.get("sub", "")))
        if claims["exp"] <= self._now() or claims["iat"] < user.valid_since:
            raise Refusal("TOKEN_EXPIRED")
        return user

    def _new(self, uid: str, email: str | None, password: str | None) -> User:
        if password is not None and len(password) < 6:
            raise Refusal("WEAK_PASSWORD : Password should be at least 6 characters")
        address = _folded(email)
        if address and any(u.email == address for u in self._users.values() if u.uid != uid):
            raise Refusal("EMAIL_EXISTS")
        user = User(uid, self._now(), self._now(), address, password=_digest(password) if password else None)
        self._users[uid] = user
        return user

    def _forget(self, uid: str) -> None:
        self._users.pop(uid, None)
        self._refresh = {token: held for token, held in self._refresh.items() if held[0] != uid}

    def _session(self, user: User) -> Answer:
        user.signed_in_at = self._now()
        refresh = secrets.token_urlsafe(48)
        self._refresh[refresh] = (user.uid, user.signed_in_at)
        return {
            "idToken": self._token(user, user.signed_in_at),
            "refreshToken": refresh,
            "expiresIn": str(_TOKEN_S),
        }

    def _token(self, user: User, signed_in: int) -> str:
        made = self._claims(user, signed_in, _TOKEN_S)
        made["iss"] = f"https://securetoken.google.com/{self.project}"
        return _unsigned(made)

    def _claims(self, user: User, signed_in: int, lasts_s: int) -> dict[str, Any]:
        now = self._now()
        address = {"email": user.email, "email_verified": user.verified} if user.email else {}
        identities = {"email": [user.email]} if user.email else {}
        return {
            **user.claims,
            **address,
            "aud": self.project,
            "sub": user.uid,
            "user_id": user.uid,
            "iat": now,
            "exp": now + lasts_s,
            "auth_time": signed_in,
            "firebase": {"identities": identities, "sign_in_provider": "password" if user.email else "anonymous"},
        }


def claims_of(token: str) -> dict[str, Any]:
    """What an unsigned token says. Raises Refusal."""
    parts = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError):
        raise Refusal("INVALID_ID_TOKEN") from None
    if not isinstance(claims, dict) or not {"exp", "iat", "auth_time"} <= set(claims):
        raise Refusal("INVALID_ID_TOKEN")
    return claims


def _unsigned(claims: Mapping[str, Any]) -> str:
    header = {"alg": "none", "typ": "JWT"}
    head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims))
    return f"{head}.{body}."


def _shown(user: User) -> dict[str, Any]:
    optional = {"email": user.email, "displayName": user.name, "passwordHash": user.password and "hidden"}
    claims = {"customAttributes": json.dumps(user.claims)} if user.claims else {}
    providers = [{"providerId": "password", "email": user.email, "federatedId": user.email, "rawId": user.email}]
    return {
        "localId": user.uid,
        "emailVerified": user.verified,
        "disabled": user.disabled,
        "validSince": str(user.valid_since),
        "createdAt": str(user.created_at * 1000),
        "lastLoginAt": str((user.signed_in_at or user.created_at) * 1000),
        "providerUserInfo": providers if user.email else [],
        **claims,
        **{name: value for name, value in optional.items() if value},
    }


def _folded(email: str | None) -> str | None:
    return email.casefold() if email else None


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def _uid() -> str:
    return "".join(secrets.choice(_UID) for _ in range(28))
