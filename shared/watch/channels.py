"""Where alerts go: Slack, a webhook, e-mail. Each is configured by one secret; without any, the log line itself is
the alert, since Cloud Monitoring mails what is logged as an error."""

import smtplib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from urllib.parse import parse_qs, unquote, urlsplit

import requests

from shared.errors import Unavailable
from shared.logs import log

_TIMEOUT_S = 10


@dataclass(frozen=True)
class Alert:
    """What is sent. `key` makes two deliveries of the same thing recognisable."""

    key: str
    severity: str
    over: bool
    text: str
    link: str

    @property
    def title(self) -> str:
        return f"{'over' if self.over else self.severity}: {self.text}"


Channel = Callable[[Alert], None]


class NotDeliveredError(Exception):
    """The channel did not take the alert; the message names the channel only."""


# Secret name -> how its value sends.
SECRETS = ("alert-slack-url", "alert-webhook-url", "alert-smtp-url")


def channels(secret: Callable[[str], str]) -> dict[str, Channel]:
    """The channels that are configured: those whose secret has a value."""
    return dict(_configured(secret))


def _configured(secret: Callable[[str], str]) -> Iterator[tuple[str, Channel]]:
    makers = {"alert-slack-url": _slack, "alert-webhook-url": _webhook, "alert-smtp-url": _mail}
    for name, make in makers.items():
        try:
            value = secret(name).strip()
        except Unavailable:
            continue
        if value:
            yield name, make(value)


def tell(to: dict[str, Channel], alert: Alert) -> bool:
    """Send `alert` everywhere; whether anybody got it. What no channel took is logged as an error, which is an alert
    of its own; what was taken is logged for the record."""
    delivered = []
    for name, send in to.items():
        try:
            send(alert)
            delivered.append(name)
        except NotDeliveredError as error:
            log.warning("an alert was not delivered", channel=name, error=str(error), key=alert.key)
    said = log.info if delivered or alert.over else log.error
    said(alert.title, key=alert.key, over=alert.over, link=alert.link, delivered=delivered)
    # without a channel the log line is the delivery; with one that failed it comes again
    return bool(delivered) or not to


def _post(name: str, url: str, body: dict[str, object], key: str) -> None:
    if urlsplit(url).scheme not in ("https", "http"):
        raise NotDeliveredError(f"{name}: its secret is no URL")
    try:
        answer = requests.post(
            url, json=body, headers={"Idempotency-Key": key}, timeout=_TIMEOUT_S, allow_redirects=False
        )
    except requests.RequestException:
        raise NotDeliveredError(f"{name} does not answer") from None
    if answer.status_code >= 300:
        raise NotDeliveredError(f"{name} answered {answer.status_code}")


def _slack(url: str) -> Channel:
    def send(alert: Alert) -> None:
        sign = ":white_check_mark:" if alert.over else ":rotating_light:"
        _post("Slack", url, {"text": f"{sign} {alert.title}\n<{alert.link}|Runbook>"}, alert.key)

    return send


def _webhook(url: str) -> Channel:
    def send(alert: Alert) -> None:
        body: dict[str, object] = {
            "key": alert.key,
            "state": "over" if alert.over else "open",
            "severity": alert.severity,
            "summary": alert.text,
            "runbook": alert.link,
        }
        _post("the webhook", url, body, alert.key)

    return send


def _mail(url: str) -> Channel:
    """smtps://user:password@host:465/?from=a@x&to=b@y (or smtp://… with STARTTLS where the server offers it)."""
    at = urlsplit(url)
    query = parse_qs(at.query)

    def send(alert: Alert) -> None:
        message = EmailMessage()
        message["Subject"] = f"[Groundskeeper] {alert.title}"[:200].replace("\n", " ")
        message["From"], message["To"] = query["from"][0], ", ".join(query["to"])
        message.set_content(f"{alert.title}\n\nRunbook: {alert.link}\n")
        try:
            with _server() as server:
                if at.username:
                    server.login(unquote(at.username), unquote(at.password or ""))
                server.send_message(message)
        except (OSError, smtplib.SMTPException):
            raise NotDeliveredError("the mail server did not take it") from None

    def _server() -> smtplib.SMTP:
        host, context = at.hostname or "", ssl.create_default_context()
        if at.scheme == "smtps":
            return smtplib.SMTP_SSL(host, at.port or 465, timeout=_TIMEOUT_S, context=context)
        server = smtplib.SMTP(host, at.port or 587, timeout=_TIMEOUT_S)
        if server.has_extn("starttls") or (server.ehlo() and server.has_extn("starttls")):
            server.starttls(context=context)
        return server

    if not {"from", "to"} <= set(query):
        raise Unavailable("secret alert-smtp-url: expected smtps://user:password@host/?from=ADDRESS&to=ADDRESS")
    return send
