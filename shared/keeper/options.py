"""Options that mean the same wherever a command takes them."""

import uuid

import click

from shared.errors import Refused

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
ASKS = click.option("--as", "actor", help="Who asks (default: you).")
DECIDES = click.option("--as", "actor", help="Who decides (default: you).")

# Of what acts on chosen things: these ids or everything, and looked at first.
IDS = click.argument("ids", nargs=-1, type=click.UUID)
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
