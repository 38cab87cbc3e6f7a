"""Options that mean the same wherever a command takes them."""

import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import click

from shared.errors import Refused

F = TypeVar("F", bound=Callable[..., Any])

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
ASKS = click.option("--as", "actor", help="Who asks (default: you).")
DECIDES = click.option("--as", "actor", help="Who decides (default: you).")


class Id(click.ParamType[uuid.UUID]):
    """An id as `shown_by` prints it."""

    name = "id"

    def __init__(self, shown_by: str) -> None:
        self._shown_by = shown_by

    def convert(self, value: str, parameter: click.Parameter | None, context: click.Context | None) -> uuid.UUID:
        try:
            return uuid.UUID(value)
        except ValueError:
            self.fail(f"{value!r} is no id: `{self._shown_by}` shows them", parameter, context)


# Of what acts on chosen things: these ids or everything, and looked at first.
def ids(shown_by: str) -> Callable[[F], F]:
    """The argument IDS."""
    return click.argument("ids", nargs=-1, type=Id(shown_by))


PLAN = click.option("--plan", "planning", is_flag=True, help="Show what would be done; write nothing.")
REASON = click.option("--reason", help="Why; needed unless --plan.")


def chosen(command: str, ids: tuple[uuid.UUID, ...], everything: bool, planning: bool, reason: str | None) -> str:
    """The reason of a command that takes IDS or --all. Raises Refused for both or neither, and where it is missing."""
    if bool(ids) == everything:
        raise Refused(f"say which: `{command}` takes ids, or --all")
    given = (reason or "").strip()
    if not (planning or given):
        raise Refused(f"`{command}` needs --reason, or --plan to look only")
    return given
