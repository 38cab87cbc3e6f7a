"""A stateful Stripe at 127.0.0.1 for the real stripe library: paging, idempotency keys, rate limits, faults.

Each request is checked against the parameters and each answer against the objects that Stripe publishes
(stripe_types.py), so that it cannot merely agree with us. What it lacks is answered 404 in words.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import stripe
import stripe.params as params
import stripe.params.checkout as checkout_params
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from shared.laptop import stripe_objects as make
from shared.laptop import stripe_pages
from shared.laptop.ports import free_ports
from shared.laptop.stripe_form import parsed
from shared.laptop.stripe_objects import Object
from shared.laptop.stripe_store import NoSuch, NotPossible, Store
from shared.laptop.stripe_types import Mismatch, check_answer, check_page, check_request

Given = Mapping[str, Any]
_KEY = re.compile(r"(sk|rk)_(test|live)_[A-Za-z0-9]+")


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose path starts with `path`: 429, 500, hang, truncated,
    empty (a list without its items), cut (has_more, and nothing more comes), last (there is more, and it does not say
    so), wrong_mode, slow (the answer is made at
    once and sent when `release` is set; `reached` says that one waits)."""

    kind: str
    path: str = "/v1/"
    times: int = 1
    skip: int = 0  # let this many through first


@dataclass(frozen=True)
class _Route:
    """What answers a method and path; `takes` are Stripe's parameters, `gives` its object, `many` a page of them."""

    method: str
    path: re.Pattern[str]
    takes: Any
    gives: Any
    act: Callable[..., Any]
    many: bool = False


class _Answer(Exception):
    """Ends a request with Stripe's error object. https://docs.stripe.com/api/errors"""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.body = (
            status,
            {"error": {"message": message, "type": kind} | ({"code": code} if code else {})},
        )


@dataclass
class _Bucket:
    """A rate limit: so many requests a second, as many at once."""

    per_second: float
    left: float = field(default=0.0)
    at: float = field(default=0.0)

    def take(self, now: float) -> bool:
        self.left = min(self.per_second, self.left + (now - self.at) * self.per_second)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # the library keeps its connection

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...


class StripeServer:
    """Serves `store` at `url`; `calls` lists the requests it answered as (method, path)."""

    def __init__(
        self, store: Store, *, key: str, per_second: float | None = None, checked: bool = True, port: int | None = None
    ) -> None:
        """`key` is the API key it takes; a key of the other mode is answered as Stripe does. `checked=False` spares
        the validation, for benchmarks."""
        self._key, self._checked = key, checked
        self._limit = _Bucket(per_second) if per_second else None
        self._clock = store.clock
        self.faults: list[Fault] = []
        self.calls: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self.reset(store)
        self.release, self.reached = threading.Event(), threading.Event()
        self._server = next(server for port in free_ports(port) if (server := _bind(self._serve, port)) is not None)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="stripe", daemon=True)
        self._thread.start()

    def reset(self, store: Store) -> None:
        """Serve another store from now on."""
        self.store = store
        self._done: dict[str, tuple[str, int, Object]] = {}  # by idempotency key
        self._routes = _routes(self)

    def stop(self) -> None:
        """Answer no more."""
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # --- one request

    def _serve(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        if not request.path.startswith("/v1/"):
            return stripe_pages.answer(self.store, request)(environ, start_response)
        with self._lock:
            self.calls.append((request.method, request.path))
            fault = self._fault(request.path)
        try:
            status, body = self._answer(request, fault)
        except _Answer as error:
            status, body = error.status, error.body
        except NoSuch as error:
            status, body = 404, _Answer(404, str(error), code="resource_missing").body
            if request.method == "GET" and request.args:  # a filter that names nothing
                status = 400
        except NotPossible as error:
            status, body = 400, _Answer(400, str(error)).body
        except KeyError as error:
            status, body = 400, _Answer(400, f"Missing required param: {error.args[0]}.").body
        except (Mismatch, ValueError) as error:
            status, body = 400, _Answer(400, f"Received unknown or wrong parameter: {error}").body
        text = json.dumps(body)
        if fault == "slow":
            self.reached.set()
            self.release.wait(60)
        if fault == "truncated":
            text = text[: len(text) // 2]
        headers = {"Request-Id": f"req_{len(self.calls)}", "Stripe-Version": stripe.api_version}
        if status >= 429:
            headers["Stripe-Should-Retry"] = "false"  # the caller's own patience is what is tried
        return Response(text, status, headers, content_type="application/json")(environ, start_response)

    def _fault(self, path: str) -> str | None:
        for fault in self.faults:
            if path.startswith(fault.path):
                if fault.skip:
                    fault.skip -= 1
                    continue
                if fault.times:
                    fault.times -= 1
                    return fault.kind
        return None

    def _answer(self, request: Request, fault: str | None) -> tuple[int, Object]:
        self._allow(request)
        if fault == "429" or (self._limit and not self._limit.take(time.monotonic())):
            raise _Answer(429, "Request rate limit exceeded.", "invalid_request_error", "rate_limit")
        if fault == "500":
            raise _Answer(500, "An unknown error occurred.", "api_error")
        if fault == "hang":
            self.release.wait(60)
            raise _Answer(500, "An unknown error occurred.", "api_error")
        given = parsed([*request.args.items(multi=True), *request.form.items(multi=True)])
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        if key is None:
            return self._act(request, given, fault)
        asked = json.dumps([request.path, given], sort_keys=True)
        with self.store.lock:
            if key in self._done:
                before, status, body = self._done[key]
                if before != asked:
                    raise _Answer(
                        400,
                        "Keys for idempotent requests can only be used with the same parameters they were first "
                        "used with.",
                        "idempotency_error",
                    )
                return status, body
            status, body = self._act(request, given, fault)
            self._done[key] = asked, status, body
            return status, body

    def _allow(self, request: Request) -> None:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        mode = "live" if self.store.livemode else "test"
        if not _KEY.fullmatch(shown):
            raise _Answer(401, "You did not provide an API key, or it is none.")
        if shown != self._key:
            raise _Answer(401, f"Invalid API Key provided: {shown[:8]}****", code="api_key_invalid")
        if f"_{mode}_" not in shown:
            raise _Answer(401, "The API key is of the other mode.")

    def _act(self, request: Request, given: Given, fault: str | None) -> tuple[int, Object]:
        for route in self._routes:
            match = route.path.fullmatch(request.path)
            if match is None or request.method != route.method:
                continue
            if self._checked and route.takes is not None:
                check_request(given, route.takes)
            with self.store.lock:
                body = route.act(given, *match.groups())
                if route.many:
                    body = _paged(body, given, request.path)
                if self._checked:
                    (check_page if route.many else check_answer)(body, route.gives)
                body = json.loads(json.dumps(body))
            if route.many and fault in ("empty", "cut"):
                body = {**body, "data": [], "has_more": fault == "cut"}
            if route.many and fault == "last":
                body = {**body, "has_more": False}
            if fault == "wrong_mode":
                for one in body["data"] if route.many else [body]:
                    one["livemode"] = not one["livemode"]
            return 200, body
        raise _Answer(404, f"Unrecognized request URL ({request.method}: {request.path}): the double does not have it.")


def _bind(app: Callable[..., Any], port: int) -> Any:
    try:
        return make_server("127.0.0.1", port, app, threaded=True, request_handler=_Quiet)
    except SystemExit:  # werkzeug's word for a port taken since
        return None


def _paged(found: list[Object], given: Given, url: str) -> Object:
    """The page of `found` that limit, starting_after and ending_before ask for."""
    limit = int(given.get("limit", 10))
    if not 1 <= limit <= 100:
        raise _Answer(400, "Invalid integer: limit must be from 1 to 100.")
    ids = [one["id"] for one in found]
    for cursor in ("starting_after", "ending_before"):
        if given.get(cursor) and given[cursor] not in ids:
            raise NoSuch(f"No such object: '{given[cursor]}'")
    if before := given.get("ending_before"):
        first = max(0, ids.index(before) - limit)
        return make.page(found[first : ids.index(before)], url, has_more=first > 0)
    first = ids.index(given["starting_after"]) + 1 if given.get("starting_after") else 0
    return make.page(found[first : first + limit], url, has_more=len(found) > first + limit)


def _within(one: Object, given: Given) -> bool:
    """Whether it was created when `created` asks for."""
    wanted = given.get("created")
    if not isinstance(wanted, Mapping):
        return wanted is None or one["created"] == int(wanted)
    compare = {"gt": int.__gt__, "gte": int.__ge__, "lt": int.__lt__, "lte": int.__le__}
    return all(compare[how](int(one["created"]), int(moment)) for how, moment in wanted.items())


def _routes(server: StripeServer) -> list[_Route]:
    store = server.store

    def route(method: str, path: str, takes: Any, gives: Any, act: Callable[..., Any], *, many: bool = False) -> _Route:
        return _Route(method, re.compile(path.replace("{id}", "([A-Za-z0-9_]+)")), takes, gives, act, many)

    def subscriptions(given: Given) -> list[Object]:
        if given.get("customer"):
            store.get("customer", given["customer"])
        status = given.get("status")
        return store.newest(
            "subscription",
            lambda one: (
                given.get("customer") in (None, one["customer"])
                and _within(one, given)
                and (
                    status == "all"
                    or one["status"] == status
                    or (status is None and one["status"] not in make.ENDED)
                    or (status == "ended" and one["status"] in make.ENDED)
                )
                and given.get("price") in (None, *(item["price"]["id"] for item in one["items"]["data"]))
            ),
        )

    def create(given: Given) -> Object:
        prices = [str(item["price"]) for item in given.get("items", [])]
        return store.subscription(given["customer"], prices, metadata=given.get("metadata"))

    def update(given: Given, subscription_id: str) -> Object:
        store.get("subscription", subscription_id)
        if prices := [str(item["price"]) for item in given.get("items", []) if "price" in item]:
            store.switch(subscription_id, prices)
        fields: dict[str, Any] = {}
        if "cancel_at_period_end" in given:
            fields["cancel_at_period_end"] = given["cancel_at_period_end"] == "true"
        if "metadata" in given:
            fields["metadata"] = {**store.get("subscription", subscription_id)["metadata"], **given["metadata"]}
        return store.change(subscription_id, **fields)

    def sessions(given: Given) -> list[Object]:
        return store.newest(
            "checkout.session",
            lambda one: (
                all(given.get(name) in (None, one[name]) for name in ("customer", "subscription", "status"))
                and _within(one, given)
            ),
        )

    def events(given: Given) -> list[Object]:
        wanted = given.get("types") or ([given["type"]] if "type" in given else None)
        return store.newest("event", lambda one: (wanted is None or one["type"] in wanted) and _within(one, given))

    def got(kind: str) -> Callable[[Given, str], Object]:
        return lambda _given, object_id: store.get(kind, object_id)

    subscription, customer, session = stripe.Subscription, stripe.Customer, stripe.checkout.Session
    hooks = stripe.WebhookEndpoint
    return [
        route("GET", "/v1/subscriptions", params.SubscriptionListParams, subscription, subscriptions, many=True),
        route("POST", "/v1/subscriptions", params.SubscriptionCreateParams, subscription, create),
        route("GET", "/v1/subscriptions/{id}", params.SubscriptionRetrieveParams, subscription, got("subscription")),
        route("POST", "/v1/subscriptions/{id}", params.SubscriptionModifyParams, subscription, update),
        route("DELETE", "/v1/subscriptions/{id}", params.SubscriptionCancelParams, subscription,
              lambda _, one: store.cancel(one)),
        route("GET", "/v1/customers", params.CustomerListParams, customer,
              lambda given: store.newest("customer", lambda one: not one.get("deleted") and _within(one, given)
                                         and given.get("email") in (None, one["email"])), many=True),
        route("POST", "/v1/customers", params.CustomerCreateParams, customer, lambda given: store.customer(given)),
        route("GET", "/v1/customers/{id}", params.CustomerRetrieveParams, customer,
              lambda _, one: (c := store.get("customer", one)) and ({k: c[k] for k in ("id", "object", "deleted")}
                                                                    if c.get("deleted") else c)),
        route("DELETE", "/v1/customers/{id}", params.CustomerDeleteParams, customer,
              lambda _, one: store.delete_customer(one)),
        route("GET", "/v1/prices", params.PriceListParams, stripe.Price,
              lambda given: store.newest("price", lambda one: not given.get("lookup_keys")
                                         or one["lookup_key"] in given["lookup_keys"]), many=True),
        route("POST", "/v1/prices", params.PriceCreateParams, stripe.Price, lambda given: store.price(given)),
        route("GET", "/v1/prices/{id}", params.PriceRetrieveParams, stripe.Price, got("price")),
        route("GET", "/v1/checkout/sessions", checkout_params.SessionListParams, session, sessions, many=True),
        route("POST", "/v1/checkout/sessions", checkout_params.SessionCreateParams, session,
              lambda given: store.session(given, server.url)),
        route("GET", "/v1/checkout/sessions/{id}", checkout_params.SessionRetrieveParams, session,
              got("checkout.session")),
        route("POST", "/v1/checkout/sessions/{id}/expire", checkout_params.SessionExpireParams, session,
              lambda _, one: store.expire(one)),
        route("GET", "/v1/events", params.EventListParams, stripe.Event, events, many=True),
        route("GET", "/v1/events/{id}", params.EventRetrieveParams, stripe.Event, got("event")),
        route("GET", "/v1/webhook_endpoints", params.WebhookEndpointListParams, hooks,
              lambda _: store.newest("webhook_endpoint"), many=True),
        route("POST", "/v1/webhook_endpoints", params.WebhookEndpointCreateParams, hooks,
              lambda given: store.endpoint(given["url"], given["enabled_events"], version=given.get("api_version"))),
        route("DELETE", "/v1/webhook_endpoints/{id}", params.WebhookEndpointDeleteParams, hooks,
              lambda _, one: store.delete_endpoint(one)),
    ]  # fmt: skip
