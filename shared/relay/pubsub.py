"""Google Pub/Sub as a broker, below its high-level client: one Publish request a parcel, as many under way as allowed.

The high-level client makes a future an event and stops a key on error by itself; here the sweep holds the key, and a
request is protobuf filled once. https://cloud.google.com/pubsub/quotas#resource_limits
"""

import json
import queue
import re
from collections.abc import Sequence
from typing import Any

import grpc
from google.pubsub_v1.types import PublishRequest

from shared.relay.event import ID_ATTRIBUTE, LONGEST, TYPE_ATTRIBUTE, Blame, Event, Failure, Parcel

_TOPIC = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
_REQUEST_BYTES, _REQUEST_EVENTS = LONGEST, 1000
_KEY_BYTES, _ATTRIBUTE_BYTES = 1024, 1024

_ANSWER_S = 15.0
_SCOPE = "https://www.googleapis.com/auth/pubsub"

# What a moment's disturbance looks like; five attempts are the most gRPC makes.
_RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "google.pubsub.v1.Publisher"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE", "ABORTED", "INTERNAL", "RESOURCE_EXHAUSTED"],
            },
        }
    ]
}
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.per_rpc_retry_buffer_size", 2 * _REQUEST_BYTES),  # a request larger than it would not be retried
    ("grpc.service_config", json.dumps(_RETRIES)),
]

_Code = grpc.StatusCode
_UNANSWERED = {
    _Code.UNAVAILABLE: "Pub/Sub was not available",
    _Code.DEADLINE_EXCEEDED: "Pub/Sub did not answer in time",
    _Code.CANCELLED: "the request was given up",
    _Code.RESOURCE_EXHAUSTED: "the project's Pub/Sub quota is used up",
    _Code.UNAUTHENTICATED: "Pub/Sub did not accept our credentials",
}
_TOPIC_REFUSED = {
    _Code.NOT_FOUND: "the topic does not exist",
    _Code.PERMISSION_DENIED: "publishing to the topic is not permitted",
    _Code.FAILED_PRECONDITION: "the topic is not in a state to take messages",
}

# The plain protobuf class: filling it costs a tenth of filling the client's own type.
_Request: Any = type(PublishRequest.pb(PublishRequest()))


class PubSub:
    """A channel to Pub/Sub, kept for as long as the run lasts."""

    name = "Pub/Sub"
    most_events = _REQUEST_EVENTS
    most_bytes = _REQUEST_BYTES
    most_flights = 200

    def __init__(self, *, project: str, endpoint: str, emulator: str) -> None:
        """`endpoint` is the host and port of one region, since ordering holds within one; an `emulator`'s host and
        port, where given, is used instead and without credentials.
        """
        self._path = f"projects/{project}/topics/"
        self._channel = grpc.insecure_channel(emulator, _OPTIONS) if emulator else _authorized(endpoint)
        self._publish: Any = self._channel.unary_unary(
            "/google.pubsub.v1.Publisher/Publish", request_serializer=_Request.SerializeToString
        )
        self._ended: queue.SimpleQueue[tuple[Parcel, Any]] = queue.SimpleQueue()

    def flaw(self, event: Event) -> str | None:
        if not _TOPIC.fullmatch(event.topic):
            return "Pub/Sub allows no topic of this name"
        if event.key is not None and len(event.key.encode()) > _KEY_BYTES:
            return f"the ordering key is longer than {_KEY_BYTES} bytes"
        if event.kind is not None and len(event.kind.encode()) > _ATTRIBUTE_BYTES:
            return f"the payload's type is longer than {_ATTRIBUTE_BYTES} bytes"
        if event.size > _REQUEST_BYTES and (
            event.body is None or self._request(event.topic, [event]).ByteSize() > _REQUEST_BYTES
        ):
            return f"the message with its attributes is larger than {_REQUEST_BYTES} bytes"
        return None

    def send(self, parcel: Parcel) -> None:
        future = self._publish.future(self._request(parcel.topic, parcel.events), timeout=_ANSWER_S)
        future.add_done_callback(lambda done: self._ended.put((parcel, done)))

    def wait(self, seconds: float) -> Sequence[tuple[Parcel, Failure | None]]:
        found = []
        try:
            found.append(self._ended.get(timeout=seconds))
            while True:
                found.append(self._ended.get_nowait())
        except queue.Empty:
            return [(parcel, failure_of(done.code())) for parcel, done in found]

    def close(self) -> None:
        self._channel.close()

    def _request(self, topic: str, events: Sequence[Event]) -> Any:
        """The Publish request of `events`, which all have the same key: the service takes one a request."""
        request = _Request(topic=self._path + topic)
        for event in events:
            # made in its place: the request would copy a message it is given
            message = request.messages.add(data=event.body, ordering_key=event.key or "")
            message.attributes[ID_ATTRIBUTE] = event.id
            if event.kind is not None:
                message.attributes[TYPE_ATTRIBUTE] = event.kind
        return request


def failure_of(code: grpc.StatusCode) -> Failure | None:
    """What a status says about a parcel; None for success. The server's own words may quote, so they are not used."""
    if code is _Code.OK:
        return None
    if code in _UNANSWERED:
        return Failure(_UNANSWERED[code], Blame.NOBODY)
    if code in _TOPIC_REFUSED:
        return Failure(_TOPIC_REFUSED[code], Blame.TOPIC)
    return Failure(f"Pub/Sub refused the message ({code.name})", Blame.EVENT)


def _authorized(endpoint: str) -> grpc.Channel:
    import google.auth
    import google.auth.transport.grpc
    import google.auth.transport.requests

    credentials, _ = google.auth.default(scopes=[_SCOPE])
    request = google.auth.transport.requests.Request()
    channel: grpc.Channel = google.auth.transport.grpc.secure_authorized_channel(  # type: ignore[no-untyped-call]
        credentials, request, endpoint, options=_OPTIONS
    )
    return channel
