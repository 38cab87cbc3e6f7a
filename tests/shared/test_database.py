"""Connections with manners: what every transaction sets, what poolers and networks do to them, in words."""

import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from shared.database import Database, ending_of
from shared.errors import ConfigurationError, Outcome, Retry
from shared.laptop.ports import answers, free_ports
from shared.settings import Settings
from tests.conftest import settings_for
from tests.parts import missing
from tests.shared.conftest import SLOT, MakeTask, Rows

# --- manners


def shown(database: Database, name: str) -> str:
    with database.transaction(name="some_task/0123abcd", lock_timeout_ms=1500, statement_timeout_ms=2500) as connection:
        return str(connection.execute(text(f"show {name}")).scalar_one())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("row_security", "off"),
        ("lock_timeout", "1500ms"),
        ("statement_timeout", "2500ms"),
        ("application_name", "some_task/0123abcd"),
        ("timezone", "UTC"),
    ],
)
def test_a_transaction_has_its_manners_and_leaves_none_behind(db: Database, setting: str, value: str) -> None:
    with db.engine.connect() as connection:
        before = connection.execute(text(f"show {setting}")).scalar_one()
    assert shown(db, setting) == value
    with db.engine.connect() as connection:
        assert connection.execute(text(f"show {setting}")).scalar_one() == before


def test_a_name_cannot_end_the_statement_it_stands_in(db: Database) -> None:
    with db.transaction(name="x'; drop schema groundskeeper cascade; --") as connection:
        name = connection.execute(text("show application_name")).scalar_one()
    assert name == "x?? drop schema groundskeeper cascade? --"
    with db.transaction() as connection:
        assert connection.execute(text("select count(*) from groundskeeper.environment")).scalar_one() == 1


def test_a_reading_transaction_cannot_write(db: Database) -> None:
    with pytest.raises(DBAPIError) as refused, db.transaction(read_only=True) as connection:
        connection.execute(text("create table oops ()"))
    assert isinstance(ending_of(refused.value), Retry)


def test_row_level_security_is_an_error_and_not_an_empty_answer(db: Database, settings: Settings, server: Any) -> None:
    with db.transaction() as connection:
        connection.execute(text("drop role if exists rls_reader"))
        connection.execute(text("create role rls_reader login password 'a reader in a test'"))
        connection.execute(text("create table guarded (n int); alter table guarded enable row level security"))
        connection.execute(text("grant select, delete on guarded to rls_reader"))
    url = db.url.set(username="rls_reader", password="a reader in a test").render_as_string(hide_password=False)
    reader = Database(replace(settings, database_url=url), "test")
    with pytest.raises(DBAPIError) as refused, reader.transaction() as connection:
        connection.execute(text("delete from guarded"))
    assert ending_of(refused.value) is not None
    reader.close()
    with db.transaction() as connection:
        connection.execute(text("drop owned by rls_reader; drop role rls_reader"))


def test_a_connection_outside_transactions_has_manners_too(db: Database) -> None:
    with db.autocommit(lock_timeout_ms=1500, name="some_task/0123abcd") as connection:
        for setting, value in (("row_security", "off"), ("lock_timeout", "1500ms"), ("timezone", "UTC")):
            assert connection.execute(text(f"show {setting}")).scalar_one() == value
        assert connection.execute(text("show application_name")).scalar_one() == "some_task/0123abcd"
        connection.execute(text("vacuum groundskeeper.plan"))


def test_no_connection_holds_a_small_message_back(db: Database) -> None:
    """Or each COPY would last 40 ms longer, however few its rows are (Nagle's algorithm, RFC 896)."""
    with db.transaction() as pooled, db.autocommit() as alone:
        for connection in (pooled, alone):
            wire = connection.connection.dbapi_connection._usock  # type: ignore[union-attr]
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_errors_text_shows_no_values(db: Database) -> None:
    with pytest.raises(DBAPIError) as failed, db.transaction() as connection:
        connection.execute(text("select cast(:value as integer)"), {"value": "jo@example.com"})
    assert "[SQL parameters hidden" in str(failed.value)


# --- poolers


@contextmanager
def pgbouncer(url: str, mode: str, ignored: str = "extra_float_digits") -> Iterator[str]:
    """A real pgbouncer before `url` in the given pool mode; the URL through it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        missing("pgbouncer", "install pgbouncer")
    server, port = make_url(url), next(free_ports())
    with tempfile.TemporaryDirectory() as name:
        folder, rights = Path(name), dict[str, Any]()
        (folder / "users.txt").write_text(f'"{server.username}" "{server.password}"\n')
        (folder / "pgbouncer.ini").write_text(f"""\
[databases]
* = host=127.0.0.1 port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users.txt
pool_mode = {mode}
ignore_startup_parameters = {ignored}
""")
        if os.geteuid() == 0:  # pgbouncer does not run as root
            for place in (folder, *folder.iterdir()):
                os.chown(place, 65534, 65534)
            rights = {"user": 65534, "group": 65534, "extra_groups": []}
        process = subprocess.Popen(
            [program, str(folder / "pgbouncer.ini")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **rights
        )
        try:
            for _ in range(200):
                if answers(port):
                    break
                assert process.poll() is None, "pgbouncer ended"
                time.sleep(0.05)
            yield server.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        finally:
            process.terminate()
            process.wait(10)


@pytest.mark.parametrize(("mode", "refused"), [("transaction", True), ("session", False)])
def test_a_transaction_mode_pooler_is_refused_and_a_session_mode_one_is_not(
    make: MakeTask, db: Database, mode: str, refused: bool
) -> None:
    with pgbouncer(db.url.render_as_string(hide_password=False), mode) as url:
        runner = make("with ctx.begin():\n    ctx.count('done')", using=settings_for(url))
        result = runner.execute(SLOT)
        runner.close()
    assert result.outcome is (Outcome.REFUSED if refused else Outcome.OK), result.error
    assert ("transaction-mode pooler" in (result.error or "")) == refused


def test_a_transaction_mode_pooler_is_seen_although_others_use_it(db: Database) -> None:
    with pgbouncer(db.url.render_as_string(hide_password=False), "transaction") as url:
        through, stop = Database(settings_for(url), "test"), threading.Event()

        def others() -> None:
            other = Database(settings_for(url), "other")
            while not stop.is_set():
                with other.transaction() as connection:
                    connection.execute(text("select pg_sleep(0.001)"))
            other.close()

        threads = [threading.Thread(target=others) for _ in range(3)]
        for thread in threads:
            thread.start()
        seen = [through.pooled_by_transaction() for _ in range(10)]
        stop.set()
        for thread in threads:
            thread.join()
        through.close()
    assert seen == [True] * 10


@pytest.mark.parametrize("ignored", ["extra_float_digits", "extra_float_digits, options"])
def test_a_pooler_that_keeps_settings_from_the_server_is_refused_outside_transactions(
    db: Database, ignored: str
) -> None:
    with pgbouncer(db.url.render_as_string(hide_password=False), "session", ignored) as url:
        through = Database(settings_for(url), "test")
        with pytest.raises(ConfigurationError, match="the server's own address"), through.autocommit():
            pass
        through.close()


def test_a_direct_connection_is_no_pooler(db: Database) -> None:
    assert not db.pooled_by_transaction()


# --- TLS


def make_authority(folder: Path) -> tuple[Path, Path]:
    """A certificate that vouches for itself, as Cloud SQL's instances have, and its key: PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an instance")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "ca.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_authority(tmp_path_factory.mktemp("tls"))


@contextmanager
def tls_front(url: str, certificate: Path, key: Path) -> Iterator[str]:
    """Speaks TLS as PostgreSQL does (an SSLRequest, then the handshake) and passes what it hears on to `url`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener, target = socket.create_server(("127.0.0.1", 0)), make_url(url)

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return
        finally:
            for each in (source, sink):
                each.close()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.recv(8)
            client.sendall(b"S")
            try:
                secure = context.wrap_socket(client, server_side=True)
            except (ssl.SSLError, OSError):
                client.close()
                continue
            behind = socket.create_connection((str(target.host), int(target.port or 5432)))
            for pair in ((secure, behind), (behind, secure)):
                threading.Thread(target=pass_on, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield target.set(host="127.0.0.1", port=listener.getsockname()[1]).render_as_string(hide_password=False)
    finally:
        listener.close()


def test_the_instances_own_authority_is_trusted_by_address(db: Database, authority: tuple[Path, Path]) -> None:
    with tls_front(db.url.render_as_string(hide_password=False), *authority) as url:
        secure = Database(replace(settings_for(url), database_ca=authority[0].read_text()), "test")
        with secure.transaction() as connection:
            assert connection.execute(text("select 1")).scalar_one() == 1
        secure.close()


@pytest.mark.parametrize("vouched", ["by the system's authorities", "by another instance's"])
def test_a_certificate_nobody_known_vouches_for_is_refused_in_words(
    make: MakeTask, db: Database, authority: tuple[Path, Path], tmp_path: Path, vouched: str
) -> None:
    other = make_authority(tmp_path)[0].read_text() if vouched == "by another instance's" else None
    with tls_front(db.url.render_as_string(hide_password=False), *authority) as url:
        using = replace(settings_for(url + ("" if other else "?sslmode=require")), database_ca=other)
        result = make("pass", using=using).execute(SLOT)
    assert result.outcome is Outcome.REFUSED
    assert "cannot be verified" in (result.error or "")


def test_an_authority_that_is_no_certificate_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="no certificate in PEM"):
        Database(replace(settings, database_ca="not a certificate"), "test")


def test_in_the_cloud_a_database_without_an_authority_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_CA"):
        Database(replace(settings, in_cloud=True), "test")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://x", "PostgreSQL only"),
        ("not a url hunter2", "not shown"),
        ("postgresql://h/d?x=1", "unknown options x"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        Database(settings_for(url), "test")
    assert "hunter2" not in str(refused.value)


# --- access tokens


class Credentials:
    """Google's credentials as google-auth has them: no token before `refresh`."""

    def __init__(self, *, broken: bool = False) -> None:
        self.token, self.valid, self._broken = None, False, broken

    def refresh(self, _request: object) -> None:
        if self._broken:
            from google.auth.exceptions import TransportError

            raise TransportError("http://metadata.google.internal said no to hunter2")
        self.token, self.valid = "ya29.a-token-of-a-test", True  # type: ignore[assignment]


def test_an_access_token_is_the_password_of_each_connection(
    db: Database, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    with db.transaction() as connection:
        connection.execute(text("drop role if exists by_token"))
        connection.execute(text("create role by_token login password 'ya29.a-token-of-a-test'"))
    credentials, scopes = Credentials(), []
    monkeypatch.setattr("google.auth.default", lambda scopes: (credentials, scopes_seen(scopes)))

    def scopes_seen(wanted: list[str]) -> None:
        scopes.extend(wanted)

    url = db.url.set(username="by_token", password=None, query={"iam": "1"}).render_as_string()
    by_token = Database(settings_for(url), "test")
    with by_token.transaction() as connection:
        assert connection.execute(text("select current_user")).scalar_one() == "by_token"
    by_token.close()
    assert scopes == ["https://www.googleapis.com/auth/sqlservice.login"]
    with db.transaction() as connection:
        connection.execute(text("drop role by_token"))


def test_a_token_that_does_not_come_means_try_again(
    make: MakeTask, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("google.auth.default", lambda scopes: (Credentials(broken=True), None))
    url = db.url.set(password=None, query={"iam": "1"}).render_as_string()
    result = make("pass", using=settings_for(url)).execute(SLOT)
    assert (result.outcome, "access token" in (result.error or "")) == (Outcome.RETRY, True)
    assert "hunter2" not in str(result)


def test_no_credentials_at_all_are_refused(make: MakeTask, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.auth.exceptions import DefaultCredentialsError

    def none(scopes: list[str]) -> None:
        raise DefaultCredentialsError("none")

    monkeypatch.setattr("google.auth.default", none)
    url = db.url.set(password=None, query={"iam": "1"}).render_as_string()
    result = make("pass", using=settings_for(url)).execute(SLOT)
    assert (result.outcome, "no Google credentials" in (result.error or "")) == (Outcome.REFUSED, True)


# --- a server that falls silent


def test_a_server_that_falls_silent_means_try_again_and_its_connection_is_given_up(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.database._GRACE_S", 0.2)

    def ask() -> None:
        with db.transaction(statement_timeout_ms=300) as connection:
            connection.exec_driver_sql("set local statement_timeout = 0")  # as if its own limit did not reach us
            connection.execute(text("select pg_sleep(20)"))

    began = time.monotonic()
    with pytest.raises(Retry, match="stopped answering"):
        ask()
    assert time.monotonic() - began < 5
    with db.transaction() as connection:
        assert connection.execute(text("select 1")).scalar_one() == 1


def test_a_network_that_breaks_in_the_middle_means_try_again(
    make: MakeTask, db: Database, authority: tuple[Path, Path], rows: Rows
) -> None:
    result = make(
        """
with ctx.begin() as connection:
    import socket
    connection.connection.dbapi_connection._usock.shutdown(socket.SHUT_RDWR)
    connection.execute(text("select 1"))
"""
    ).execute(SLOT)
    assert result.outcome is Outcome.RETRY, result.error
    assert rows("select outcome from groundskeeper.task_run")[0].outcome == "retry"


def test_a_statement_ends_with_the_deadline_and_the_run_is_stopped(make: MakeTask, rows: Rows) -> None:
    from shared.clock import SystemClock

    began = time.monotonic()
    result = make(
        "with ctx.begin() as connection:\n    ctx.count('done')\n    connection.execute(text('select pg_sleep(30)'))",
        timeout_s=1,
        at=SystemClock(),
    ).execute(SLOT)
    assert time.monotonic() - began < 10
    assert result.outcome is Outcome.STOPPED
    assert "the time was up" in (result.error or "")
    (run,) = rows("select outcome, counts from groundskeeper.task_run")
    assert (run.outcome, run.counts) == ("stopped", {})


def test_when_every_connection_is_in_use_the_run_comes_again(make: MakeTask, settings: Settings) -> None:
    runner = make("with ctx.begin(), ctx.read(), ctx.read(), ctx.read():\n    pass")
    runner.database().engine.pool._timeout = 0.2  # type: ignore[attr-defined]
    result = runner.execute(SLOT)
    assert (result.outcome, "in use" in (result.error or "")) == (Outcome.RETRY, True)


def test_what_is_missing_is_named(db: Database) -> None:
    with pytest.raises(DBAPIError) as found, db.transaction() as connection:
        connection.execute(text("select 1 from no_such_table"))
    assert 'relation "no_such_table" does not exist' in str(ending_of(found.value))
