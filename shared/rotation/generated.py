"""Values that need nobody's service: random tokens made here, and keys that an operator fetches and adds."""

from secrets import token_urlsafe

import requests

from shared.errors import Refused, Retry
from shared.rotation.rotator import Details, Made, Target
from shared.secrets import Secret

_TIMEOUT_S = 10
_TOKEN_BYTES = 32


def _check(target: Target, value: str) -> None:
    """Ask the target's check address as a bearer of `value`. Raises Refused unless it answers 2xx."""
    if not target.check_url:
        return
    shown = {target.check_header: value} if target.check_header else {"Authorization": f"Bearer {value}"}
    try:
        answer = requests.get(target.check_url, headers=shown, timeout=_TIMEOUT_S, allow_redirects=False)
    except requests.RequestException:
        raise Retry("the consumer's check address does not answer") from None
    if not answer.ok or answer.is_redirect:
        raise Refused(f"the consumer's check address answered {answer.status_code} to the new value")


class Generated:
    """A random token. Its consumers read `latest`, and take the version before as well during the grace."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def prepare(self, old: str | None) -> Details:
        return {}

    def create(self, secret: Secret, old: str | None, details: Details) -> Made | None:
        return Made(token_urlsafe(_TOKEN_BYTES))

    def test(self, value: str, details: Details) -> None:
        """A consumer cannot know it yet."""

    def confirm(self, value: str, details: Details) -> None:
        _check(self._target, value)

    def disable(self, value: str, details: Details) -> str | None:
        return None

    def destroy(self, details: Details) -> None: ...

    def undo(self, details: Details) -> None: ...

    def revive(self, details: Details) -> None: ...


class Manual(Generated):
    """A key of a service without an API to make one: an operator adds the version, the rest is done here."""

    def create(self, secret: Secret, old: str | None, details: Details) -> Made | None:
        newest = secret.newest()
        if newest is None or newest <= details["added_after"]:
            return None
        value = secret.get(str(newest))
        if not value.strip() or value == old:
            raise Refused(f"version {newest} of {secret.name} is empty or the same as before: add another one")
        return Made(value, version=newest)

    def test(self, value: str, details: Details) -> None:
        _check(self._target, value)
