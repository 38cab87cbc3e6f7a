"""Connections with manners: every transaction names its task, has timeouts, and no row-level security hides rows.

Settings are SET LOCAL only, so nothing leaks into the next user of a connection; where a statement must run
outside a transaction (VACUUM, DETACH PARTITION CONCURRENTLY) a dedicated connection starts with them.
"""

import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Dialect, Engine, ExceptionContext, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool, QueuePool

from shared.errors import ConfigurationError, Ending, Refused, Retry
from shared.redaction import register, server_words, sqlstate
from shared.settings import Settings

# Scope of the access token that manual IAM database authentication takes as password.
# https://cloud.google.com/sql/docs/postgres/iam-authentication
_IAM_SCOPE = "https://www.googleapis.com/auth/sqlservice.login"

# An unreachable address must not hold a run. A server that is there answers within the statement timeout; one that
# has not after this much more is gone, and the run and its heartbeat must notice.
_CONNECT_TIMEOUT_S = 10
_GRACE_S = 15
_ANSWER_TIMEOUT_S = 3600  # for whoever uses a connection without a statement timeout: migrations

# What sets a transaction-mode pooler apart is looked for this often, since its other clients may hide it once.
_POOLER_LOOKS = 3

# For the rest of a transaction whose statements have an index that the statistics may speak against.
BY_INDEX = text("select set_config('enable_seqscan', 'off', true)")


def url_of(text_url: str) -> URL:
    """The SQLAlchemy URL of `text_url`, for pg8000. Raises ConfigurationError, never showing the password."""
    try:
        url = make_url(text_url)
    except ArgumentError:
        raise ConfigurationError(
            "DATABASE_URL: expected postgresql://user:password@host:port/database; "
            "its value is not shown because it may hold a password"
        ) from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"DATABASE_URL: expected postgresql://…, got {url.drivername}://…: Groundskeeper runs on PostgreSQL only"
        )
    return url.set(drivername="postgresql+pg8000")


def _connect_args(url: URL, settings: Settings) -> tuple[URL, dict[str, Any]]:
    """`url` without our own query keys, and the arguments for pg8000."""
    query = dict(url.query)
    args: dict[str, Any] = {"timeout": _CONNECT_TIMEOUT_S}
    ca_file = query.pop("sslrootcert", None)
    mode = query.pop("sslmode", None)
    query.pop("iam", None)
    if ca_file or settings.database_ca:
        try:
            context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None, cadata=settings.database_ca)
        except (OSError, ValueError):  # ssl.SSLError is an OSError
            raise ConfigurationError(
                "DATABASE_CA, or sslrootcert in DATABASE_URL, holds no certificate in PEM form: give the instance's "
                "server CA"
            ) from None
        # An instance's own certificate authority signs that one instance; its name is not the private address.
        context.check_hostname = False  # nosemgrep: unverified-tls
        args["ssl_context"] = context
    elif mode in ("require", "verify-ca", "verify-full"):
        args["ssl_context"] = ssl.create_default_context()
    elif settings.in_cloud:
        raise ConfigurationError(
            "DATABASE_URL has no certificate authority in the cloud: set DATABASE_CA to the "
            "instance's server CA (terraform does), so that TLS is verified"
        )
    if query:
        raise ConfigurationError(
            f"DATABASE_URL: unknown options {', '.join(sorted(query))}: known are iam, sslmode, sslrootcert"
        )
    return url.set(query={}), args


class Database:
    """The configured database: transactions with manners, and connections outside any transaction."""

    def __init__(self, settings: Settings, application: str = "keeper", *, pool_size: int = 4) -> None:
        """Nothing is connected yet. `application` names us in pg_stat_activity. Raises ConfigurationError."""
        url = url_of(settings.database())
        if url.password:
            register(url.password)
        self._token = _access_tokens() if url.query.get("iam") == "1" else None
        self.url, self._args = _connect_args(url, settings)
        self._asked, self._ca = url.query, settings.database_ca
        self.application = application
        self.engine = self._open(
            poolclass=QueuePool, pool_size=pool_size, max_overflow=0, pool_timeout=30, pool_pre_ping=True
        )

    def _open(self, *, startup: dict[str, str] | None = None, name: str | None = None, **options: Any) -> Engine:
        shown = _shown_name(name or self.application)
        arguments = {**self._args, "application_name": shown, "startup_params": startup}
        # Without hide_parameters a traceback somebody prints would show the values of rows.
        engine = create_engine(self.url, connect_args=arguments, hide_parameters=True, **options)
        if self._token:
            _use_access_token(engine, self._token)
        event.listen(engine, "do_connect", _connect)
        event.listen(engine, "checkout", _allow_long_answers)
        event.listen(engine, "handle_error", _name_silence)
        return engine

    @contextmanager
    def transaction(
        self,
        *,
        read_only: bool = False,
        lock_timeout_ms: int = 2000,
        statement_timeout_ms: int = 60_000,
        name: str | None = None,
    ) -> Iterator[Connection]:
        """A transaction: committed at the end, rolled back on an exception. `name` is shown to the server."""
        with self.engine.begin() as connection:
            _answer_within(connection, statement_timeout_ms)
            # One statement and no binds: one round trip at the start of each transaction, and it ends with it.
            connection.exec_driver_sql(
                f"{_MANNERS}; set local lock_timeout = {int(lock_timeout_ms)};"
                f" set local statement_timeout = {int(statement_timeout_ms)};"
                f" set local application_name = '{_shown_name(name or self.application)}'"
                + ("; set transaction read only" if read_only else "")
            )
            yield connection

    @contextmanager
    def autocommit(
        self, *, lock_timeout_ms: int = 2000, statement_timeout_ms: int = 600_000, name: str | None = None
    ) -> Iterator[Connection]:
        """A connection of its own outside any transaction, its settings given at its start and gone with it."""
        options = (
            f"-c row_security=off -c TimeZone=UTC -c lock_timeout={int(lock_timeout_ms)}"
            f" -c statement_timeout={int(statement_timeout_ms)}"
        )
        engine = self._open(
            startup={"options": options},
            name=name,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
        )
        with engine.connect() as connection:
            _answer_within(connection, statement_timeout_ms)
            if connection.exec_driver_sql("show row_security").scalar_one() != "off":
                raise ConfigurationError(_OPTIONS_LOST)
            yield connection

    def pooled_by_transaction(self) -> bool:
        """Whether a transaction-mode pooler stands between: it gives a connection another server process for each
        transaction, and one process to several connections.

        A direct connection's process id is the one sent with its cancel key, so nothing more is asked there.
        """
        with self.engine.connect() as first:
            pid = _server_process(first)
            key = first.connection.dbapi_connection._backend_key_data  # type: ignore[union-attr]
            if key and int.from_bytes(key[:4], "big") == pid:
                return False
            with self.engine.connect() as second:
                for _ in range(_POOLER_LOOKS):
                    first.rollback()
                    other = _server_process(second)  # in a transaction now, so that `first` cannot get this one
                    if other == pid or _server_process(first) != pid:
                        return True
                    second.rollback()
        return False

    def program_environment(self, folder: Path) -> dict[str, str]:
        """Variables with which libpq's own programs (pg_dump, pg_restore) reach this database as we do; they hold the
        password or token. `folder`, which nobody else may read, gets the certificate authority's file."""
        url = self.url
        given = {
            "PGHOST": url.host,
            "PGPORT": str(url.port or 5432),
            "PGDATABASE": url.database,
            "PGUSER": url.username,
            "PGPASSWORD": self._token() if self._token else url.password and str(url.password),
            "PGAPPNAME": _shown_name(self.application),
            "PGCONNECT_TIMEOUT": str(_CONNECT_TIMEOUT_S),
        }
        ca_file = str(self._asked.get("sslrootcert", ""))
        if self._ca and not ca_file:
            written = folder / "server-ca.pem"
            written.write_text(self._ca)
            ca_file = str(written)
        if ca_file:
            given |= {"PGSSLMODE": "verify-ca", "PGSSLROOTCERT": ca_file}
        elif mode := self._asked.get("sslmode"):
            given["PGSSLMODE"] = str(mode)
        return {name: value for name, value in given.items() if value}

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()


# With row-level security a DELETE silently removes nothing; off makes it an error.
_MANNERS = "set local row_security = off; set local timezone = 'UTC'"


_OPTIONS_LOST = (
    "DATABASE_URL leads through a pooler that keeps a connection's settings from the server, and what refuses a "
    "transaction (VACUUM, DETACH) would run without its limits: give the server's own address"
)


def _shown_name(name: str) -> str:
    """`name` as an application name: what the server would not take as it is becomes a question mark."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "?", name)[:63]


def _server_process(connection: Connection) -> int:
    return int(connection.execute(text("select pg_backend_pid()")).scalar_one())


def _allow_long_answers(connection: Any, _record: object, _proxy: object) -> None:
    connection._usock.settimeout(_ANSWER_TIMEOUT_S)  # pg8000 has one timeout for connecting and for answers


def _answer_within(connection: Connection, statement_timeout_ms: int) -> None:
    connection.connection.dbapi_connection._usock.settimeout(  # type: ignore[union-attr]
        statement_timeout_ms / 1000 + _GRACE_S
    )


def _connect(dialect: Dialect, _record: object, args: Any, parameters: dict[str, Any]) -> Any:
    """Connect, with what pg8000 lets through as it is turned into our words."""
    try:
        connection: Any = dialect.connect(*args, **parameters)
        # A COPY sends several messages and gets no answer between them: TCP would hold the last one back for 40 ms.
        connection._usock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    except dialect.loaded_dbapi.Error as error:
        if sqlstate(error) == "08P01" and parameters.get("startup_params"):
            raise ConfigurationError(_OPTIONS_LOST) from None
        raise
    except ssl.SSLError as error:
        raise ConfigurationError(
            "the database's certificate cannot be verified: set DATABASE_CA (or sslrootcert in DATABASE_URL) to the "
            f"instance's server CA ({getattr(error, 'verify_message', None) or error.reason})"
        ) from None
    except OSError:
        raise Retry("the connection to the database broke while it was being made") from None


def _name_silence(context: ExceptionContext) -> None:
    """Turn a network's errors, which pg8000 lets through as they are, into ours, and give the connection up."""
    if isinstance(context.original_exception, OSError):
        context.is_disconnect = True
        raise Retry("the database stopped answering, or the network to it broke") from context.original_exception


def _access_tokens() -> Callable[[], str]:
    """What gives an access token for the database, a fresh one where the last is no longer valid."""
    import google.auth
    import google.auth.exceptions
    import google.auth.transport.requests

    try:
        credentials, _ = google.auth.default(scopes=[_IAM_SCOPE])
    except google.auth.exceptions.DefaultCredentialsError:
        raise ConfigurationError(
            "DATABASE_URL says iam=1 but there are no Google credentials here: use `gcloud auth application-default "
            "login`, or a URL with a password"
        ) from None

    def token() -> str:
        if not credentials.valid:  # checked by the server at connect only, so a fresh one a connection suffices
            try:
                credentials.refresh(google.auth.transport.requests.Request())  # type: ignore[no-untyped-call]
            except google.auth.exceptions.GoogleAuthError:
                raise Retry("Google gave no access token for the database: is the metadata server there?") from None
        register(str(credentials.token))
        return str(credentials.token)

    return token


def _use_access_token(engine: Engine, token: Callable[[], str]) -> None:
    @event.listens_for(engine, "do_connect")
    def with_token(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
        parameters["password"] = token()


# What to tell an operator, by SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_REFUSALS = {
    "28P01": "the database refused the password: check DATABASE_URL's user and password",
    "28000": "the database refused the login: check the user in DATABASE_URL and that it may log in",
    "3D000": "the database in DATABASE_URL does not exist: create it or correct the name",
    "42501": "the role lacks a right the task declares: run `keeper migrate --grants`",
    "3F000": "the schema groundskeeper is missing: run `keeper migrate`",
    "42P01": "a table is missing: run `keeper migrate`, or see `keeper doctor`",
    "42703": "a column is missing: run `keeper migrate`, or see `keeper doctor --adopt`",
}
# Of these the server names what it is about and no value of a row.
_NAMING = {"42501", "3F000", "42P01", "42703"}
_RETRIES = {
    "25006": "the database is read-only: it is a replica or failing over",
    "55P03": "a lock was not granted in time",
    "57014": "a statement took longer than its limit",
    "40001": "a concurrent transaction won",
    "40P01": "a deadlock was resolved at our cost",
    "53300": "the database has no connection to spare",
    "57P01": "the database is shutting down",
    "57P02": "the database crashed and is recovering",
    "57P03": "the database is starting",
    "53100": "the database's disk is full",
}


def ending_of(error: DBAPIError) -> Ending | None:
    """The run's ending that a database error means, in words; None when it is a defect of ours."""
    state = sqlstate(error)
    if state in _REFUSALS:
        return Refused(_REFUSALS[state] + (f" ({server_words(error)})" if state in _NAMING else ""))
    if state in _RETRIES:
        return Retry(_RETRIES[state])
    if state and state.startswith("08"):
        return Retry("the connection to the database broke")
    if state is None and isinstance(error, OperationalError | InterfaceError):
        return Retry("the database does not answer: is it up, and DATABASE_URL's host and port right?")
    return None
