"""What a rotator does, step by step, and which secret it does it for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from shared.secrets import Secret

Details = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A secret to rotate. `consumers` says who reads it and how they come to read it anew."""

    secret: str
    rotator: Literal["postgres", "generated", "stripe_webhook", "manual"]
    consumers: str
    check_url: str = ""  # generated, manual: answers 2xx to whoever bears a good value
    check_header: str = ""  # what bears it; empty: Authorization, as a bearer token
    owner: str = ""  # postgres: the role that owns everything and cannot log in
    logins: tuple[str, ...] = ()  # postgres: two logins, in turns
    endpoint_url: str = ""  # stripe_webhook: where Stripe posts its events; empty: whatever has this path
    endpoint_path: str = "/api/v1/stripe/webhook"

    def __post_init__(self) -> None:
        if self.rotator == "postgres" and (not self.owner or len(self.logins) != 2):
            raise ValueError(f"secret {self.secret}: the rotator postgres needs an owner and two logins")


@dataclass(frozen=True)
class Made:
    """A new value, and the version that holds it already, where an operator added it."""

    value: str = field(repr=False)
    details: Mapping[str, Any] = field(default_factory=dict)
    version: int | None = None


class Rotator(Protocol):
    """One kind of secret. `details` are what `prepare` and `create` told, and hold no value.

    Each method may be repeated after a kill, and raises Refused, Retry or Unavailable in words.
    """

    def prepare(self, old: str | None) -> Details:
        """What is to be known before anything is made."""
        ...

    def create(self, secret: Secret, old: str | None, details: Details) -> Made | None:
        """Make the new value where it will be used; None: an operator has still to add it."""
        ...

    def test(self, value: str, details: Details) -> None:
        """Prove that the new value works, before anybody is given it."""
        ...

    def confirm(self, value: str, details: Details) -> None:
        """Prove, when the grace is over, that nobody needs the old value any more."""
        ...

    def disable(self, value: str, details: Details) -> str | None:
        """Make the old value useless; the value to be stored from now on, if it is another."""
        ...

    def destroy(self, details: Details) -> None:
        """Remove what is left of the old value."""
        ...

    def undo(self, details: Details) -> None:
        """The way back while the old value works: remove what is new."""
        ...

    def revive(self, details: Details) -> None:
        """The way back while the old value is disabled: make it work again."""
        ...
