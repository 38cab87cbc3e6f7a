"""A bus of our own behind the Pub/Sub emulator's port: google.pubsub.v1 by gRPC, remembered in PostgreSQL.

It speaks the part of the API the product uses: create, get, list and delete topics and subscriptions, change a push
endpoint, publish, pull, acknowledge, change a deadline. Delivery is at least once, in the order of an ordering key
where the subscription asks for it; what fails comes again after the retry policy's backoff and goes to the
dead-letter topic after its attempts. Unlike the official emulator it survives a restart.
"""

import base64
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import grpc
import requests
import sqlalchemy as sa
from google.protobuf import empty_pb2
from google.pubsub_v1 import types as pb

from shared.clock import Clock, SystemClock, rfc3339
from shared.laptop.bus_store import ExistsError, Store, Taken, UnknownError
from shared.laptop.ports import free_ports
from shared.logs import log
from shared.redaction import describe

# https://cloud.google.com/pubsub/docs/push#receive_push: these acknowledge, everything else does not.
_ACKNOWLEDGED = {102, 200, 201, 202, 204}
_USER_AGENT = "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)"

# https://cloud.google.com/pubsub/quotas#resource_limits and /docs/pubsub-basics#resource_names
_NAME = re.compile(r"projects/[^/]+/(topics|subscriptions)/(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
_MOST_BYTES, _MOST_MESSAGES, _MOST_KEY_BYTES = 10_000_000, 1000, 1024

_PUSHERS = 16
_PULL_WAIT_S = 5.0
_IDLE_S, _RECOVER_S = 30.0, 1.0


class PostgresBus:
    """The bus, serving on 127.0.0.1:`port`. `stop` ends it; what is owed stays in the database."""

    def __init__(self, url: str, *, port: int | None = None, clock: Clock | None = None) -> None:
        """Start serving. `url` is the SQLAlchemy URL of the database whose schema `bus` remembers everything."""
        self.clock: Clock = clock or SystemClock()
        self.store = Store(url, self.clock.now())
        self._news = threading.Condition()
        self._changes = 0
        self._stopping = threading.Event()
        self._pushers = ThreadPoolExecutor(_PUSHERS, thread_name_prefix="push")
        self._idle = threading.BoundedSemaphore(_PUSHERS)
        self._web = requests.Session()
        self._web.trust_env = False  # a proxy of the machine has no business between us and 127.0.0.1
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=_PUSHERS)
        self._web.mount("http://", adapter)
        # reuse would let two servers share a port without a word
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 2 * _MOST_BYTES)]
        self._server = grpc.server(ThreadPoolExecutor(16, thread_name_prefix="bus"), options=options)
        for service, methods in _Api(self).services().items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        self.port = self._bind(port)
        self._server.start()
        self._dispatcher = threading.Thread(target=self._dispatch, name="bus-dispatch")
        self._dispatcher.start()

    def _bind(self, wish: int | None) -> int:
        for candidate in free_ports(wish):
            try:
                return int(self._server.add_insecure_port(f"127.0.0.1:{candidate}"))
            except RuntimeError:  # grpcio's word for a taken port
                continue
        raise RuntimeError("no free port on 127.0.0.1 for the bus: end some of the programs that listen there")

    def stop(self) -> None:
        """End serving and pushing; a push under way is waited for at most a second, then owed again."""
        self._stopping.set()
        self.wake()
        self._server.stop(grace=0.2).wait()
        self._web.close()
        self._dispatcher.join()
        self._pushers.shutdown(wait=True, cancel_futures=True)
        self.store.close()

    def wake(self) -> None:
        """Tell the dispatcher and every pull that there may be something to deliver."""
        with self._news:
            self._changes += 1
            self._news.notify_all()

    def changes(self) -> int:
        """How often there was something new; taken before looking, it makes `wait` miss nothing."""
        return self._changes

    def wait(self, since: int, seconds: float) -> None:
        """Wait until something changed `since`, at most `seconds`."""
        with self._news:
            self._news.wait_for(lambda: self._changes != since, timeout=seconds)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    # --- push

    def _dispatch(self) -> None:
        while not self.stopping:
            since = self.changes()
            try:
                wait = self._push_all()
            except sa.exc.DBAPIError as error:
                log.warning("the bus's database did not answer", error=describe(error))
                wait = _RECOVER_S
            self.wait(since, wait)

    def _push_all(self) -> float:
        """Hand out everything that is due; seconds until there may be more."""
        while not self.stopping:
            pushed = [s for s in self.store.subscriptions() if s.push_config.push_endpoint]
            if sum(self._push_due(subscription) for subscription in pushed):
                continue
            due = self.store.next_due([s.name for s in pushed])
            wait = _IDLE_S if due is None else (due - self.clock.now()).total_seconds()
            # what is due and was not taken waits for its predecessor or for a pusher, and either wakes us
            return min(wait, _IDLE_S) if wait > 0 else _RECOVER_S
        return 0.0

    def _push_due(self, subscription: pb.Subscription) -> int:
        """Hand what is due to idle pushers; how many."""
        idle = 0
        while idle < _PUSHERS and self._idle.acquire(blocking=False):
            idle += 1
        taken = self.store.take(subscription, idle, self.clock.now()) if idle else []
        for _ in range(idle - len(taken)):
            self._idle.release()
        for one in taken:
            self._pushers.submit(self._push, subscription, one)
        return len(taken)

    def _push(self, subscription: pb.Subscription, taken: Taken) -> None:
        try:
            if not self.stopping and self._delivered(subscription, taken):
                self.store.acknowledge([taken.lease])
            else:
                due = self.clock.now() + backoff(subscription, taken.attempt)
                self.store.owe_at([taken.lease], due, lease_ends=True)
        except sa.exc.DBAPIError as error:  # its lease ends, and then it is owed again
            log.warning("the bus could not note a delivery", error=describe(error))
        finally:
            self._idle.release()
            self.wake()

    def _delivered(self, subscription: pb.Subscription, taken: Taken) -> bool:
        try:
            answer = self._web.post(
                subscription.push_config.push_endpoint,
                json=envelope(subscription, taken),
                headers={"User-Agent": _USER_AGENT},
                timeout=subscription.ack_deadline_seconds,
                allow_redirects=False,
            )
        except requests.RequestException:
            return False
        return answer.status_code in _ACKNOWLEDGED


def backoff(subscription: pb.Subscription, attempt: int) -> timedelta:
    """How long to wait after the failed `attempt`: doubling from the policy's minimum to its maximum."""
    policy = subscription.retry_policy
    least = policy.minimum_backoff.total_seconds() if policy.minimum_backoff else 0.1
    most = policy.maximum_backoff.total_seconds() if policy.maximum_backoff else 60.0
    if attempt >= (subscription.dead_letter_policy.max_delivery_attempts or attempt + 1):
        return timedelta()  # dead-lettered at once
    return timedelta(seconds=min(most, least * 2 ** min(attempt - 1, 20)))


def envelope(subscription: pb.Subscription, taken: Taken) -> dict[str, Any]:
    """The body of a push, as https://cloud.google.com/pubsub/docs/push#receive_push has it."""
    message = taken.message
    published = rfc3339(message.publish_time)
    body: dict[str, Any] = {
        "data": base64.b64encode(message.data).decode(),
        "messageId": message.message_id,
        "message_id": message.message_id,
        "publishTime": published,
        "publish_time": published,
    }
    if message.attributes:
        body["attributes"] = dict(message.attributes)
    if message.ordering_key:
        body["orderingKey"] = message.ordering_key
    document = {"message": body, "subscription": subscription.name}
    # the cloud counts attempts only under a dead-letter policy
    return document | ({"deliveryAttempt": taken.attempt} if subscription.dead_letter_policy.dead_letter_topic else {})


# --- the API -------------------------------------------------------------------------------------------------


@contextmanager
def _in_words(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except UnknownError as error:
        context.abort(grpc.StatusCode.NOT_FOUND, f"Resource not found (resource={error}).")
    except ExistsError as error:
        context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Resource already exists (resource={error}).")
    except NotImplementedError as error:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, str(error))
    except ValueError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


class _Api:
    """The methods of google.pubsub.v1.Publisher and .Subscriber, request to answer."""

    def __init__(self, bus: PostgresBus) -> None:
        self._bus = bus
        self._store = bus.store

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
        self._bus.wake()
        return pb.PublishResponse(message_ids=ids)

    def _create_subscription(self, subscription: pb.Subscription, _context: grpc.ServicerContext) -> pb.Subscription:
        _check_name(subscription.name)
        if subscription.filter or subscription.enable_exactly_once_delivery:
            raise NotImplementedError("the laptop's bus has no filter and no exactly-once delivery: leave them out")
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
        self._bus.wake()
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
        self._bus.wake()

    def _pull(self, request: pb.PullRequest, context: grpc.ServicerContext) -> pb.PullResponse:
        """What is due, at once; when nothing is, wait a moment for something, as the cloud does."""
        subscription = self._store.subscription(request.subscription)
        if request.max_messages < 1:
            raise ValueError(f"max_messages: expected at least 1, got {request.max_messages}")
        limit = self._bus.clock.monotonic() + min(_PULL_WAIT_S, (context.time_remaining() or _PULL_WAIT_S) / 2)
        since = self._bus.changes()
        taken = self._store.take(subscription, request.max_messages, self._now())
        while not taken and not self._bus.stopping and (wait := limit - self._bus.clock.monotonic()) > 0:
            due = self._store.next_due([subscription.name])
            until_due = (due - self._now()).total_seconds() if due else wait
            self._bus.wait(since, min(wait, until_due if until_due > 0 else _RECOVER_S))
            since = self._bus.changes()
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
        self._bus.wake()

    def _modify_ack_deadline(self, request: pb.ModifyAckDeadlineRequest, _context: grpc.ServicerContext) -> None:
        due = self._now() + timedelta(seconds=request.ack_deadline_seconds)
        self._store.owe_at(_leases(request.ack_ids), due, lease_ends=request.ack_deadline_seconds == 0)
        self._bus.wake()

    def _now(self) -> datetime:
        return self._bus.clock.now()


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
    if pb.PublishRequest.pb(request).ByteSize() > _MOST_BYTES:
        raise ValueError(f"a request holds at most {_MOST_BYTES} bytes")
    for message in messages:
        if not message.data and not message.attributes:
            raise ValueError("a message needs data or at least one attribute")
        if len(message.ordering_key.encode()) > _MOST_KEY_BYTES:
            raise ValueError(f"an ordering key has at most {_MOST_KEY_BYTES} bytes")
