"""Moments, spans and numbers as a page says them."""

import re
from datetime import UTC, datetime, timedelta

from markupsafe import Markup

from shared.clock import rfc3339


def moment(value: datetime | None, form: str = "%d %b %H:%M") -> Markup:
    """A time element in UTC; the page's script adds the reader's own zone."""
    if value is None:
        return Markup("–")
    at = value.astimezone(UTC).replace(microsecond=0)
    return Markup('<time datetime="{iso}">{said} UTC</time>').format(iso=rfc3339(at), said=at.strftime(form))


def far(value: datetime | None) -> Markup:
    """A time element of a moment that may lie years away."""
    return moment(value, "%d %b %Y %H:%M")


def shorter(text: str) -> str:
    """A task's words with their moments to the minute."""
    return re.sub(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):[\d.]+(?:\+00:00|Z)", r"\1 \2 UTC", text)


def span(value: timedelta | float | None) -> str:
    """A span as people say it."""
    if value is None:
        return "–"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def number(value: int | None) -> str:
    """A whole number with thin groups."""
    return "–" if value is None else f"{value:,}"
