"""One message to Slack about what a run did. Slack being down fails nothing."""

from collections.abc import Sequence

import requests

_TIMEOUT_S = 5


def tell(url: str, lines: Sequence[str]) -> bool:
    """Post `lines`; whether Slack took them. https://api.slack.com/messaging/webhooks"""
    try:
        return requests.post(url, json={"text": "\n".join(lines)}, timeout=_TIMEOUT_S, allow_redirects=False).ok
    except requests.RequestException:
        return False
