"""A login in front of the broker: TLS and SASL as Kafka's protocol has them, then the broker's own bytes.

Tansu knows SCRAM, but one that demands it (`--authentication`) lets nobody in to make the first user, and its memory is
the only store that the wheel has. So the handshake is spoken here, with scramp's side of the server, and nothing but
what a broker allows before a login passes: https://kafka.apache.org/protocol#sasl_handshake
"""

import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from scramp import ScramException, ScramMechanism

from shared.laptop.ports import free_ports
from tests.relay.kafka_broker import KafkaBroker
from tests.telemetry.servers import Authority

_SASL_HANDSHAKE, _API_VERSIONS, _SASL_AUTHENTICATE = 17, 18, 36
_UNSUPPORTED_MECHANISM, _AUTHENTICATION_FAILED = 33, 58


@dataclass
class Login:
    """A task's `variables` and the password, and who came: by mechanism, the accepted and the refused."""

    variables: dict[str, str]
    user: str
    password: str
    broker: KafkaBroker
    accepted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class _Front(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    context: ssl.SSLContext
    login: Login

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not trust the certificate hangs up."""


class _Conversation(socketserver.BaseRequestHandler):
    server: _Front

    def handle(self) -> None:
        client = self.server.context.wrap_socket(self.request, server_side=True)
        with client, socket.create_connection(("127.0.0.1", self.server.login.broker.port)) as broker:
            if self._let_in(client, broker):
                threading.Thread(target=_pass_on, args=(broker, client), daemon=True).start()
                _pass_on(client, broker)

    def _let_in(self, client: socket.socket, broker: socket.socket) -> bool:
        mechanism = ""
        steps: Iterator[str] = iter(())
        while True:
            frame = _frame(client)
            api, _version, correlation, length = struct.unpack_from(">hhih", frame)
            body = frame[10 + max(length, 0) :]
            if api == _API_VERSIONS:
                broker.sendall(struct.pack(">i", len(frame)) + frame)
                answer = _frame(broker)
            elif api == _SASL_HANDSHAKE:
                mechanism = body[2:].decode()
                known = mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
                answer = struct.pack(">ihi", correlation, 0 if known else _UNSUPPORTED_MECHANISM, 1) + body
                self._said: list[str] = []
                steps = self._plain() if mechanism == "PLAIN" else self._scram(mechanism)
            elif api == _SASL_AUTHENTICATE and mechanism:
                self._said.append(body[4:].decode())
                try:
                    said = next(steps).encode()
                except (ScramException, PermissionError):
                    self.server.login.refused.append(mechanism)
                    said = b""
                    answer = struct.pack(">ihhiq", correlation, _AUTHENTICATION_FAILED, -1, 0, 0)
                else:
                    answer = struct.pack(">ihhi", correlation, 0, -1, len(said)) + said + struct.pack(">q", 0)
            else:
                return False  # what a broker does with whoever has not said who they are
            client.sendall(struct.pack(">i", len(answer)) + answer)
            if self._in:
                self.server.login.accepted.append(mechanism)
                return True

    _in = False

    def _plain(self) -> Iterator[str]:
        login = self.server.login
        if self._said[-1].split("\0")[1:] != [login.user, login.password]:
            raise PermissionError
        self._in = True
        yield ""

    def _scram(self, name: str) -> Iterator[str]:
        login, mechanism = self.server.login, ScramMechanism(name)
        scram = mechanism.make_server({login.user: mechanism.make_auth_info(login.password)}.__getitem__)
        scram.set_client_first(self._said[-1])
        yield scram.get_server_first()
        scram.set_client_final(self._said[-1])
        self._in = True
        yield scram.get_server_final()


def _frame(source: socket.socket) -> bytes:
    (length,) = struct.unpack(">i", _exactly(source, 4))
    return _exactly(source, length)


def _exactly(source: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        chunk = source.recv(length - len(received))
        if not chunk:
            raise ConnectionError
        received += chunk
    return received


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def kafka_with_login(folder: Path) -> Iterator[Login]:
    """A broker reached by TLS and a login only; its own `servers` are for nobody, since it names the front to all."""
    authority = Authority(folder)
    port = next(free_ports())
    with closing(KafkaBroker(folder, advertised=port)) as broker, _Front(("127.0.0.1", port), _Conversation) as front:
        servers, ca = f"127.0.0.1:{port}", authority.file.read_text()
        variables = {"KAFKA_SERVERS": servers, "KAFKA_CA": ca, "KAFKA_USER": "someone", "OUTBOX_TARGET": "kafka"}
        front.context = authority.context("127.0.0.1")
        front.login = Login(variables, "someone", "their=password,ü", broker)
        broker.settings = {
            "bootstrap.servers": servers,
            "security.protocol": "SASL_SSL",
            "ssl.ca.pem": ca,
            "sasl.mechanisms": "SCRAM-SHA-512",
            "sasl.username": "someone",
            "sasl.password": "their=password,ü",
        }
        thread = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield front.login
        finally:
            front.shutdown()
            thread.join(5)
