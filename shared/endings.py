"""What an exception means: the one place that turns whatever was raised into an outcome and words safe to show."""

import sys
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.call import BadCall
from shared.database import ending_of
from shared.errors import ConfigurationError, Ending, LeaseLost, Outcome
from shared.logs import log
from shared.redaction import describe, redact
from shared.strict_yaml import ManifestError

# What may be raised before there is a run, beside defects.
FORESEEN = (Ending, ConfigurationError, ManifestError, SQLAlchemyError)


_NO_CREDENTIALS = (
    "Google gives this process no credentials: in the cloud the service account is missing, elsewhere run "
    "`gcloud auth application-default login`"
)


class Ended(NamedTuple):
    """How a run ended: the outcome, and for all but the good ones what the ledger says of it."""

    outcome: Outcome
    error_class: str | None = None
    error: str | None = None


def ended(error: BaseException) -> Ended:
    """What `error` means. A defect is logged here with the way to it, and its message goes nowhere."""
    name = type(error).__name__
    match error:
        case Ending():
            return Ended(error.outcome, name, redact(str(error)))
        case LeaseLost():
            return Ended(Outcome.STOPPED, name, redact(str(error)))
        case ConfigurationError() | ManifestError() | BadCall():
            return Ended(Outcome.REFUSED, name, redact(str(error)))
        case KeyboardInterrupt():
            return Ended(Outcome.STOPPED, name, "interrupted by hand; progress is kept")
        case PoolTimeout():
            return Ended(Outcome.RETRY, name, "every database connection of this process is in use")
        case DBAPIError() if (meant := ending_of(error)) is not None:
            log.warning("the database refused", error=describe(error))
            return Ended(meant.outcome, name, str(meant))
    if isinstance(error, _without_credentials()):
        return Ended(Outcome.UNAVAILABLE, name, _NO_CREDENTIALS)
    log.defect("a defect", error)
    return Ended(Outcome.FAILED, name, describe(error))


def _without_credentials() -> tuple[type[Exception], ...]:
    """What any of Google's clients raises where there is no identity; asked only where one was loaded."""
    auth = sys.modules.get("google.auth.exceptions")
    return (auth.DefaultCredentialsError,) if auth else ()
