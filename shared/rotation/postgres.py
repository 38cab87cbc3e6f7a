"""A database login: one owner that cannot log in, two logins that take turns, passwords as SCRAM verifiers only.

PostgreSQL objects belong to whoever made them, so each login acts as the owner from its first statement on. The
server is the one of DATABASE_URL; our role there needs CREATEROLE and the owner role WITH ADMIN OPTION.
"""

import base64
import hashlib
import hmac
import os
from dataclasses import replace
from secrets import token_urlsafe

from sqlalchemy import URL, Connection, make_url, text
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.exc import ArgumentError

from shared.context import Context
from shared.database import Database
from shared.errors import Refused
from shared.redaction import register
from shared.rotation.rotator import Details, Made, Target
from shared.secrets import Secret
from shared.wording import counted

_PASSWORD_BYTES = 24
_ITERATIONS = 4096  # the server's own default; the password is random, so more would protect nothing

_quote = dialect().identifier_preparer.quote_identifier  # type: ignore[no-untyped-call]


def verifier(password: str, salt: bytes) -> str:
    """What the server stores of a password (RFC 5802, RFC 7677), so that it is never sent as it is."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = hashlib.sha256(client).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    shown = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{shown[0]}${shown[1]}:{shown[2]}"


class Postgres:
    """The secret is a database URL; its login and password change, the rest stays."""

    def __init__(self, target: Target, ctx: Context) -> None:
        self._target, self._ctx = target, ctx

    def prepare(self, old: str | None) -> Details:
        before = _url(self._target, old or "").username
        first, second = self._target.logins
        return {"login": second if before == first else first, "before": before}

    def create(self, secret: Secret, old: str | None, details: Details) -> Made | None:
        login, password = details["login"], token_urlsafe(_PASSWORD_BYTES)
        register(password)
        with self._ctx.begin() as connection:
            self._owned(connection)
            if not _exists(connection, login):
                connection.exec_driver_sql(f"create role {_quote(login)} nologin")
            connection.exec_driver_sql(f"grant {_quote(self._target.owner)} to {_quote(login)}")
            connection.exec_driver_sql(f"alter role {_quote(login)} set role {_literal(self._target.owner)}")
            connection.exec_driver_sql(
                f"alter role {_quote(login)} login password {_literal(verifier(password, os.urandom(16)))}"
            )
        url = _url(self._target, old or "").set(username=login, password=password)
        return Made(url.render_as_string(hide_password=False))

    def test(self, value: str, details: Details) -> None:
        tried = Database(replace(self._ctx.settings, database_url=value), "rotate_secrets", pool_size=1)
        try:
            with tried.transaction(read_only=True) as connection:
                acting = connection.execute(text("select cast(current_user as text)")).scalar_one()
        finally:
            tried.close()
        if acting != self._target.owner:
            raise Refused(f"login {details['login']} acts as {acting} and not as {self._target.owner}")

    def confirm(self, value: str, details: Details) -> None:
        with self._ctx.read() as connection:
            sessions = connection.execute(
                text("select count(*) from pg_stat_activity where usename = :before"), {"before": details["before"]}
            ).scalar_one()
        if sessions and details["before"] in self._target.logins:
            raise Refused(
                f"login {details['before']} is still in use by {counted(sessions, 'session')}: restart who reads "
                "the secret"
            )

    def disable(self, value: str, details: Details) -> str | None:
        self._alter(details["before"], "nologin")
        return None

    def destroy(self, details: Details) -> None:
        self._alter(details["before"], "password null")

    def undo(self, details: Details) -> None:
        self._alter(details["login"], "nologin password null")

    def revive(self, details: Details) -> None:
        self._alter(details["before"], "login")

    def _alter(self, login: str, how: str) -> None:
        """Change one of our two logins; any other user of the URL is not ours to touch."""
        if login not in self._target.logins:
            return
        with self._ctx.begin() as connection:
            if _exists(connection, login):
                connection.exec_driver_sql(f"alter role {_quote(login)} {how}")

    def _owned(self, connection: Connection) -> None:
        if not _exists(connection, self._target.owner):
            raise Refused(
                f"there is no role {self._target.owner}: create it with nologin, and grant it to our role with admin "
                "option"
            )


def _exists(connection: Connection, role: str) -> bool:
    return connection.execute(text("select 1 from pg_roles where rolname = :role"), {"role": role}).first() is not None


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _url(target: Target, value: str) -> URL:
    try:
        return make_url(value.strip())
    except ArgumentError:
        raise Refused(
            f"secret {target.secret} is no database URL: expected postgresql://user:…@host/database"
        ) from None
