"""A bus of our own behind the Pub/Sub emulator's port: google.pubsub.v1 by gRPC, remembered in PostgreSQL.

It speaks the part of the API the product uses: create, get, list and delete topics and subscriptions, change a push
endpoint, publish, pull, acknowledge, change a deadline. Delivery is at least once, in the order of an ordering key
where the subscription asks for it; what fails comes again after the retry policy's backoff and goes to the
dead-letter topic after its attempts. Unlike the official emulator it survives a restart.
"""

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import grpc
import requests
import sqlalchemy as sa
from google.pubsub_v1 import types as pb

from shared.clock import Clock, SystemClock, rfc3339
from shared.laptop.bus_api import MOST_BYTES, RECOVER_S, Api, News
from shared.laptop.bus_store import Store, Taken
from shared.laptop.ports import free_ports
from shared.logs import log
from shared.redaction import describe

# https://cloud.google.com/pubsub/docs/push#receive_push: these acknowledge, everything else does not.
_ACKNOWLEDGED = {102, 200, 201, 202, 204}
_USER_AGENT = "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)"

_PUSHERS = 16
_IDLE_S, _LAST_PUSHES_S = 30.0, 1.0


class PostgresBus:
    """The bus, serving on 127.0.0.1:`port`. `stop` ends it; what is owed stays in the database."""

    def __init__(self, url: str, *, port: int | None = None, clock: Clock | None = None) -> None:
        """Start serving. `url` is the SQLAlchemy URL of the database whose schema `bus` remembers everything."""
        self.clock: Clock = clock or SystemClock()
        self.store = Store(url, self.clock.now())
        self._news = News()
        self._idle = threading.BoundedSemaphore(_PUSHERS)
        self._web = requests.Session()
        self._web.trust_env = False  # a proxy of the machine has no business between us and 127.0.0.1
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=_PUSHERS)
        self._web.mount("http://", adapter)
        # reuse would let two servers share a port without a word
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 2 * MOST_BYTES)]
        self._server = grpc.server(ThreadPoolExecutor(16, thread_name_prefix="bus"), options=options)
        for service, methods in Api(self.store, self._news, self.clock).services().items():
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
        self._news.close()
        self._server.stop(grace=0.2).wait()
        self._web.close()
        self._dispatcher.join()
        limit = self.clock.monotonic() + _LAST_PUSHES_S
        for _ in range(_PUSHERS):
            self._idle.acquire(timeout=max(0.0, limit - self.clock.monotonic()))
        self.store.close()

    # --- push

    def _dispatch(self) -> None:
        while not self._news.closed:
            since = self._news.seen()
            try:
                wait = self._push_all()
            except sa.exc.DBAPIError as error:
                log.warning("the bus's database did not answer", error=describe(error))
                wait = RECOVER_S
            self._news.wait(since, wait)

    def _push_all(self) -> float:
        """Hand out everything that is due; seconds until there may be more."""
        while not self._news.closed:
            pushed = [s for s in self.store.subscriptions() if s.push_config.push_endpoint]
            if sum(self._push_due(subscription) for subscription in pushed):
                continue
            due = self.store.next_due([s.name for s in pushed])
            wait = _IDLE_S if due is None else (due - self.clock.now()).total_seconds()
            # what is due and was not taken waits for its predecessor or for a pusher, and either wakes us
            return min(wait, _IDLE_S) if wait > 0 else RECOVER_S
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
            threading.Thread(target=self._push, args=(subscription, one), name="push", daemon=True).start()
        return len(taken)

    def _push(self, subscription: pb.Subscription, taken: Taken) -> None:
        try:
            if not self._news.closed and self._delivered(subscription, taken):
                self.store.acknowledge([taken.lease])
            else:
                due = self.clock.now() + backoff(subscription, taken.attempt)
                self.store.owe_at([taken.lease], due, lease_ends=True)
        except sa.exc.DBAPIError as error:  # its lease ends, and then it is owed again
            log.warning("the bus could not note a delivery", error=describe(error))
        finally:
            self._idle.release()
            self._news.tell()

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
