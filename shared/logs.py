"""JSON lines for Cloud Logging: a constant message, data in fields, severity, trace and run id on each.

Format: https://cloud.google.com/logging/docs/structured-logging (severity, message,
logging.googleapis.com/trace, /labels). Everything passes `redact` on its way out.
"""

import contextvars
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from shared.redaction import redact, stack

_fields: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("log_fields", default={})  # noqa: B039


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "severity": record.levelname,
            "message": record.getMessage(),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            **_fields.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            entry["exception"] = record.exc_info[0].__name__
            entry["stack"] = stack(record.exc_info[2])
        return redact(json.dumps(entry, default=str, ensure_ascii=False))


JSON_LINES = _Json()


class _CurrentStream(logging.StreamHandler[TextIO]):
    """Writes to whatever the stream is when it writes: functions-framework replaces sys.stdout to add the
    execution id, and a handler that kept the first one would lose it."""

    def __init__(self, name: str) -> None:
        logging.Handler.__init__(self)
        self._name = name

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return getattr(sys, self._name)  # type: ignore[no-any-return]


_logger = logging.getLogger("groundskeeper")

# What these say would go out as it is: a broken connection's traceback with the statement it broke in, a URL.
_LIBRARIES = ("google", "grpc", "sqlalchemy", "urllib3")


def configure(stream: str = "stdout", level: int = logging.INFO) -> None:
    """Send the product's log lines, and its libraries' warnings, to `stream` (stdout in the cloud, stderr under
    `keeper`)."""
    handler = _CurrentStream(stream)
    handler.setFormatter(JSON_LINES)
    _logger.setLevel(level)
    for logger in (_logger, *map(logging.getLogger, _LIBRARIES)):
        logger.handlers[:] = [handler]
        logger.propagate = False


def configured() -> bool:
    """Whether somebody said already where the log lines go."""
    return bool(_logger.handlers)


class Log:
    """What a task logs with: `ctx.log.info("kept manual grant", account="a1")`."""

    def debug(self, message: str, **fields: Any) -> None:
        _logger.debug(message, extra={"fields": fields})

    def info(self, message: str, **fields: Any) -> None:
        _logger.info(message, extra={"fields": fields})

    def warning(self, message: str, **fields: Any) -> None:
        _logger.warning(message, extra={"fields": fields})

    def error(self, message: str, **fields: Any) -> None:
        _logger.error(message, extra={"fields": fields})

    def defect(self, message: str, error: BaseException, **fields: Any) -> None:
        """An error nobody foresaw: its kind and the way to it, without its message."""
        _logger.error(message, extra={"fields": fields}, exc_info=error)


log = Log()


@contextmanager
def fields(**values: Any) -> Iterator[None]:
    """Put `values` on every line logged inside, on this thread."""
    token = _fields.set({**_fields.get(), **{k: v for k, v in values.items() if v is not None}})
    try:
        yield
    finally:
        _fields.reset(token)


def trace_fields(header: str | None, project: str) -> dict[str, str]:
    """The trace fields of a request from its X-Cloud-Trace-Context header (TRACE_ID/SPAN_ID;o=1)."""
    if not header:
        return {}
    trace, _, rest = header.partition("/")
    found = {"logging.googleapis.com/trace": f"projects/{project}/traces/{trace}"}
    if span := rest.partition(";")[0]:
        found["logging.googleapis.com/spanId"] = span
    return found
