"""Pub/Sub's Publish over its real wire protocol, failing as told: what no emulator does on demand."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.pubsub_v1.types import PublishRequest, PublishResponse

from shared.laptop.ports import free_ports

OK = grpc.StatusCode.OK


@dataclass(frozen=True)
class Sent:
    """A message as it came: its topic's short name, key, event id and data."""

    topic: str
    key: str
    id: str
    data: bytes
    attributes: dict[str, str] = field(hash=False)


Answer = Callable[[str, Sequence[Sent]], grpc.StatusCode]


class PubSubServer:
    """Takes what is published; `answer` (topic, messages) decides each request's status, before it is taken."""

    def __init__(self) -> None:
        self.taken: list[Sent] = []
        """Every message taken, in the order in which its request was answered."""
        self.requests: list[list[Sent]] = []
        """Every request, refused ones too."""
        self.answer: Answer = lambda _topic, _messages: OK
        self._lock = threading.Lock()
        self._server = grpc.server(
            ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 1 << 25)]
        )
        method = grpc.unary_unary_rpc_method_handler(
            self._publish,
            request_deserializer=PublishRequest.deserialize,
            response_serializer=PublishResponse.serialize,
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", {"Publish": method}),)
        )
        for port in free_ports():
            if self._server.add_insecure_port(f"127.0.0.1:{port}"):
                self.port = port
                break
        self._server.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def ids(self) -> list[str]:
        """The event ids taken, in order, repeats included."""
        return [message.id for message in self.taken]

    def in_order(self, key: str) -> list[str]:
        """The event ids of a key in the order in which each was taken first."""
        return list(dict.fromkeys(message.id for message in self.taken if message.key == key))

    def _publish(self, request: Any, context: grpc.ServicerContext) -> Any:
        topic = request.topic.rsplit("/", 1)[1]
        messages = [
            Sent(topic, m.ordering_key, m.attributes["event_id"], m.data, dict(m.attributes)) for m in request.messages
        ]
        assert len({message.key for message in messages}) == 1, "one ordering key a request"
        with self._lock:
            self.requests.append(messages)
        status = self.answer(topic, messages)
        if status is not OK:
            context.abort(status, "as told")
        with self._lock:
            self.taken.extend(messages)
        return PublishResponse(message_ids=[str(n) for n in range(len(messages))])

    def stop(self) -> None:
        self._server.stop(grace=None).wait()


@contextmanager
def pubsub_server() -> Iterator[PubSubServer]:
    server = PubSubServer()
    try:
        yield server
    finally:
        server.stop()
