"""What a user agent says of itself: device, system, browser, and whether it is a bot. By ua-parser's rules."""

import re
from dataclasses import dataclass
from functools import lru_cache

import ua_parser

# Longer ones are nobody's browser, and rules of patterns take their time.
_LONGEST = 1000

_BOT = re.compile(
    r"bot\b|crawl|spider|slurp|scrap|headless|phantom|curl/|wget/|python|java/|go-http|okhttp|libwww|httpclient|scan"
    r"|monitor|probe|axios|node-fetch|postman",
    re.IGNORECASE,
)
_DESKTOPS = ("Windows", "Mac OS X", "Linux", "Ubuntu", "Fedora", "Debian", "Chrome OS", "FreeBSD")


@dataclass(frozen=True, slots=True)
class Agent:
    """What is known of a client; None is not known."""

    device: str | None  # desktop, mobile, tablet, bot
    system: str | None
    browser: str | None
    is_bot: bool


NOBODY = Agent(None, None, None, False)


def agent_of(text: str | None) -> Agent:
    """The client behind a User-Agent header."""
    return _parse(text[:_LONGEST]) if text else NOBODY


@lru_cache(maxsize=4096)
def _parse(text: str) -> Agent:
    found = ua_parser.parse(text)
    system = found.os.family if found.os else None
    browser = found.user_agent.family if found.user_agent else None
    family = found.device.family if found.device else None
    if family == "Spider" or _BOT.search(text):
        return Agent("bot", system, browser, True)
    return Agent(_device(text, system, family), system, browser, False)


def _device(text: str, system: str | None, family: str | None) -> str | None:
    if system in _DESKTOPS:
        return "desktop"
    if family == "iPad" or "Tablet" in text or (system == "Android" and "Mobile" not in text):
        return "tablet"
    return "mobile" if system in ("iOS", "Android", "Windows Phone", "KaiOS") or "Mobile" in text else None
