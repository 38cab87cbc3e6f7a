"""An account's objects: those below its own prefix, and the reports its rows speak of."""

from collections.abc import Iterator
from urllib.parse import quote

from shared.errors import Retry
from shared.objects import Changed, Missing, Objects


def prefix(account: str) -> str:
    """Below which an account's objects are, in every bucket: never the beginning of another account's."""
    encoded = quote(account, safe="")
    return f"accounts/{encoded.replace('.', '%2E') if encoded in ('.', '..') else encoded}/"


def names(place: Objects, account: str) -> Iterator[str]:
    """The account's objects below its prefix."""
    return (stat.name for stat in place.list(prefix(account)))


def remove(place: Objects, name: str) -> int:
    """Delete one object; 0 when it was gone. Raises Retry when somebody wrote it meanwhile."""
    try:
        place.delete(name, generation=place.stat(name).generation)
    except Missing:
        return 0
    except Changed:
        raise Retry("an object of the account was written while it was deleted") from None
    return 1


def below(location: str, report: str) -> str | None:
    """The name of `report` (a name, or a location) below `location`; None when it is no object there."""
    root = location.rstrip("/") + "/"
    if report.startswith("gs://") and not report.startswith(root):
        return None
    name = report.removeprefix(root)
    return None if any(part in ("", ".", "..") for part in name.split("/")) else name
