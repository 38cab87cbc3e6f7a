"""The methods of google.pubsub.v1 that the laptop's bus speaks, over what its store remembers."""

import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import grpc
from google.protobuf import empty_pb2
from google.pubsub_v1 import types as pb

from shared.clock import Clock
from shared.laptop.bus_store import ExistsError, Store, UnknownError

# https://cloud.google.com/pubsub/quotas#resource_limits and /docs/pubsub-basics#resource_names
_NAME = re.compile(r"projects/[^/]+/(topics|subscriptions)/(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
MOST_BYTES = 10_000_000
_MOST_MESSAGES, _MOST_KEY_BYTES = 1000, 1024

# How long a pull of nothing waits, and whoever waits for what should already be there.
_PULL_WAIT_S, RECOVER_S = 5.0, 1.0


class News:
    """Tells threads that there may be something to deliver, without any of them missing it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self.closed = False

    def tell(self) -> None:
        """Wake everybody who waits."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Wake everybody for good."""
        self.closed = True
        self.tell()

    def seen(self) -> int:
        """How often there was news; taken before looking, it makes `wait` miss nothing."""
        return self._count

    def wait(self, seen: int, seconds: float) -> None:
        """Wait until there is news since `seen`, at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._count != seen, timeout=seconds)


class UnsupportedError(Exception):
    """What Pub/Sub can do and this bus leaves out."""


@contextmanager
def _in_words(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except UnknownError as error:
        context.abort(grpc.StatusCode.NOT_FOUND, f"Resource not found (resource={error}).")
    except ExistsError as error:
        context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Resource already exists (resource={error}).")
    except UnsupportedError as error:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, str(error))
    except ValueError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


class Api:
    """The methods of google.pubsub.v1.Publisher and .Subscriber, request to answer."""

    def __init__(self, store: Store, news: News, clock: Clock) -> None:
        self._store = store
        self._news = news
        self._clock = clock

    def services(self) -> dict[str, dict[str, "grpc.RpcMethodHandler[Any, Any]"]]:
        publisher: dict[str, tuple[Callable[..., Any], Any, Any]] = {
            "CreateTopic": (self._create_topic, pb.Topic, pb.Topic),
            "GetTopic": (self._get_topic, pb.GetTopicRequest, pb.Topic),
            "ListTopics": (self._list_topics, pb.ListTopicsRequest, pb.ListTopicsResponse),
            "DeleteTopic": (self._delete_topic, pb.DeleteTopicRequest, None),
            "Publish": (self._publish, pb.PublishRequest, pb.PublishResponse),
        }
        subscriber: dict[str, tuple[Callable[..., Any], Any, Any]] = {
            "CreateSubscription": (self._create_subscription, pb.Subscription, pb.Subscription),
            "GetSubscription": (self._get_subscription, pb.GetSubscriptionRequest, pb.Subscription),
            "ListSubscriptions": (
                self._list_subscriptions,
                pb.ListSubscriptionsRequest,
                pb.ListSubscriptionsResponse,
            ),
            "DeleteSubscription": (self._delete_subscription, pb.DeleteSubscriptionRequest, None),
            "ModifyPushConfig": (self._modify_push_config, pb.ModifyPushConfigRequest, None),
            "Pull": (self._pull, pb.PullRequest, pb.PullResponse),
            "Acknowledge": (self._acknowledge, pb.AcknowledgeRequest, None),
            "ModifyAckDeadline": (self._modify_ack_deadline, pb.ModifyAckDeadlineRequest, None),
        }
        return {
            f"google.pubsub.v1.{service}": {name: _handler(*method) for name, method in methods.items()}
            for service, methods in (("Publisher", publisher), ("Subscriber", subscriber))
        }

    def _create_topic(self, topic: pb.Topic, _context: grpc.ServicerContext) -> pb.Topic:
        _check_name(topic.name)
        self._store.add_topic(topic.name)
        return pb.Topic(name=topic.name)

    def _get_topic(self, request: pb.GetTopicRequest, _context: grpc.ServicerContext) -> pb.Topic:
        self._store.require_topic(request.topic)
        return pb.Topic(name=request.topic)

    def _list_topics(self, request: pb.ListTopicsRequest, _context: grpc.ServicerContext) -> pb.ListTopicsResponse:
        return pb.ListTopicsResponse(topics=[pb.Topic(name=name) for name in self._store.topics(request.project)])

    def _delete_topic(self, request: pb.DeleteTopicRequest, _context: grpc.ServicerContext) -> None:
        self._store.remove_topic(request.topic)

    def _publish(self, request: pb.PublishRequest, _context: grpc.ServicerContext) -> pb.PublishResponse:
        _check_messages(request)
        ids = self._store.publish(request.topic, request.messages, self._now())
        self._news.tell()
        return pb.PublishResponse(message_ids=ids)

    def _create_subscription(self, subscription: pb.Subscription, _context: grpc.ServicerContext) -> pb.Subscription:
        _check_name(subscription.name)
        if subscription.filter or subscription.enable_exactly_once_delivery:
            raise UnsupportedError("the laptop's bus has no filter and no exactly-once delivery: leave them out")
        subscription.ack_deadline_seconds = subscription.ack_deadline_seconds or 10
        if not 10 <= subscription.ack_deadline_seconds <= 600:
            raise ValueError(f"ack_deadline_seconds: expected 10 to 600, got {subscription.ack_deadline_seconds}")
        policy = subscription.dead_letter_policy
        if policy.dead_letter_topic:
            policy.max_delivery_attempts = policy.max_delivery_attempts or 5
            if not 5 <= policy.max_delivery_attempts <= 100:
                raise ValueError(f"max_delivery_attempts: expected 5 to 100, got {policy.max_delivery_attempts}")
            self._store.require_topic(policy.dead_letter_topic)
        self._store.add_subscription(subscription)
        self._news.tell()
        return subscription

    def _get_subscription(self, request: pb.GetSubscriptionRequest, _context: grpc.ServicerContext) -> pb.Subscription:
        return self._store.subscription(request.subscription)

    def _list_subscriptions(
        self, request: pb.ListSubscriptionsRequest, _context: grpc.ServicerContext
    ) -> pb.ListSubscriptionsResponse:
        return pb.ListSubscriptionsResponse(subscriptions=self._store.subscriptions(request.project))

    def _delete_subscription(self, request: pb.DeleteSubscriptionRequest, _context: grpc.ServicerContext) -> None:
        self._store.remove_subscription(request.subscription)

    def _modify_push_config(self, request: pb.ModifyPushConfigRequest, _context: grpc.ServicerContext) -> None:
        self._store.modify_push(request.subscription, request.push_config)
        self._news.tell()

    def _pull(self, request: pb.PullRequest, context: grpc.ServicerContext) -> pb.PullResponse:
        """What is due, at once; when nothing is, wait a moment for something, as the cloud does."""
        subscription = self._store.subscription(request.subscription)
        if request.max_messages < 1:
            raise ValueError(f"max_messages: expected at least 1, got {request.max_messages}")
        limit = self._clock.monotonic() + min(_PULL_WAIT_S, (context.time_remaining() or _PULL_WAIT_S) / 2)
        since = self._news.seen()
        taken = self._store.take(subscription, request.max_messages, self._now())
        while not taken and not self._news.closed and (wait := limit - self._clock.monotonic()) > 0:
            due = self._store.next_due([subscription.name])
            until_due = (due - self._now()).total_seconds() if due else wait
            self._news.wait(since, min(wait, until_due if until_due > 0 else RECOVER_S))
            since = self._news.seen()
            taken = self._store.take(subscription, request.max_messages, self._now())
        counted = bool(subscription.dead_letter_policy.dead_letter_topic)
        return pb.PullResponse(
            received_messages=[
                pb.ReceivedMessage(
                    ack_id=str(one.lease), message=one.message, delivery_attempt=one.attempt if counted else 0
                )
                for one in taken
            ]
        )

    def _acknowledge(self, request: pb.AcknowledgeRequest, _context: grpc.ServicerContext) -> None:
        self._store.acknowledge(_leases(request.ack_ids))
        self._news.tell()

    def _modify_ack_deadline(self, request: pb.ModifyAckDeadlineRequest, _context: grpc.ServicerContext) -> None:
        due = self._now() + timedelta(seconds=request.ack_deadline_seconds)
        self._store.owe_at(_leases(request.ack_ids), due, lease_ends=request.ack_deadline_seconds == 0)
        self._news.tell()

    def _now(self) -> datetime:
        return self._clock.now()


def _handler(method: Callable[..., Any], request: Any, answer: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    def serve(message: Any, context: grpc.ServicerContext) -> Any:
        with _in_words(context):
            result = method(message, context)
        return empty_pb2.Empty() if answer is None else result

    return grpc.unary_unary_rpc_method_handler(
        serve,
        request_deserializer=request.deserialize,
        response_serializer=empty_pb2.Empty.SerializeToString if answer is None else answer.serialize,
    )


def _leases(ids: Iterable[str]) -> list[uuid.UUID]:
    return [uuid.UUID(ack_id) for ack_id in ids]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"Invalid resource name given (name={name}): expected projects/P/topics/T or projects/P/subscriptions/S, "
            "T and S of 3 to 255 letters, digits and -_.~+%, a letter first and not goog"
        )


def _check_messages(request: pb.PublishRequest) -> None:
    messages = request.messages
    if not 1 <= len(messages) <= _MOST_MESSAGES:
        raise ValueError(f"a request holds 1 to {_MOST_MESSAGES} messages, got {len(messages)}")
    if len({message.ordering_key for message in messages}) > 1:
        raise ValueError("the messages of one request must all have the same ordering key, or none")
    if pb.PublishRequest.pb(request).ByteSize() > MOST_BYTES:
        raise ValueError(f"a request holds at most {MOST_BYTES} bytes")
    for message in messages:
        if not message.data and not message.attributes:
            raise ValueError("a message needs data or at least one attribute")
        if len(message.ordering_key.encode()) > _MOST_KEY_BYTES:
            raise ValueError(f"an ordering key has at most {_MOST_KEY_BYTES} bytes")
