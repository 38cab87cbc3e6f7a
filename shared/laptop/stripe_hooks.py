"""The Stripe double's webhooks: signed as Stripe signs, tried again until the endpoint answers with success."""

import heapq
import itertools
import json
import threading
from collections.abc import Sequence

import requests
import stripe

from shared.clock import Clock
from shared.laptop.stripe_objects import Object
from shared.laptop.stripe_store import Store

# Stripe tries for three days in live mode; nobody waits that long at a laptop.
FIRST_WAIT_S, MOST_WAIT_S, MOST_TRIES = 1.0, 60.0, 12
_TIMEOUT_S = 30.0
_LOOK_S = 0.25


def signed(event: Object, secrets: Sequence[str], moment: int) -> tuple[bytes, dict[str, str]]:
    """The body and headers of a delivery at `moment` (seconds since 1970); a signature for each secret."""
    text = json.dumps(event, indent=2)
    lines = [stripe.WebhookSignature.generate_signature_header(text, secret, moment) for secret in secrets]
    marks = [line.partition(",")[2] for line in lines]
    headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": f"t={moment},{','.join(marks)}"}
    return text.encode(), headers


class Deliveries:
    """Posts every event to the endpoints that ask for its type, each on its own; a thread does it."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._web = requests.Session()
        self._web.trust_env = False
        self._waiting: list[tuple[float, int, int, str, str]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        store.listeners.append(self._note)
        self._thread = threading.Thread(target=self._run, name="stripe-webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Deliver no more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()
        self._web.close()

    def _note(self, event: Object) -> None:
        for endpoint in self._store.newest("webhook_endpoint"):
            if {"*", event["type"]} & set(endpoint["enabled_events"]):
                self._later(0.0, 1, event["id"], endpoint["id"])

    def _later(self, wait: float, number: int, event_id: str, endpoint_id: str) -> None:
        with self._changed:
            due = self._clock.monotonic() + wait
            heapq.heappush(self._waiting, (due, next(self._number), number, event_id, endpoint_id))
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and not (self._waiting and self._waiting[0][0] <= self._clock.monotonic()):
                    self._changed.wait(_LOOK_S)
                if self._stopped:
                    return
                _, _, number, event_id, endpoint_id = heapq.heappop(self._waiting)
            if not self._deliver(event_id, endpoint_id) and number < MOST_TRIES:
                self._later(min(MOST_WAIT_S, FIRST_WAIT_S * 2 ** (number - 1)), number + 1, event_id, endpoint_id)

    def _deliver(self, event_id: str, endpoint_id: str) -> bool:
        """Whether the endpoint took it, or is gone."""
        secret = self._store.webhook_secrets.get(endpoint_id)
        if secret is None:
            return True
        endpoint = self._store.get("webhook_endpoint", endpoint_id)
        body, headers = signed(self._store.get("event", event_id), [secret], int(self._clock.now().timestamp()))
        try:
            answer = self._web.post(
                endpoint["url"], data=body, headers=headers, timeout=_TIMEOUT_S, allow_redirects=False
            )
        except requests.RequestException:
            return False
        return 200 <= answer.status_code < 300
