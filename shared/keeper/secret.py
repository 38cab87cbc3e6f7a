"""`keeper secret`: the versions of the secrets that tasks name. A value is typed or piped in, never an argument."""

import sys
from typing import Any

import click

from shared import audit, secrets
from shared.errors import Refused
from shared.keeper import options, show
from shared.keeper.session import Session, session


@click.group()
def secret() -> None:
    """Secrets: which there are, their versions, and new values."""


@secret.command("add")
@click.argument("name")
@click.option("--reason", "why", default="by hand", show_default=True, help="Why, for the audit.")
@options.ASKS
def add_secret(name: str, why: str, actor: str | None) -> None:
    """Add a version of NAME: from standard input, or asked for without showing it."""
    with session(actor) as at:
        _known(at, name)
        value = click.prompt("Value", hide_input=True) if sys.stdin.isatty() else sys.stdin.read().strip("\r\n")
        if not value.strip():
            raise Refused("the value is empty: type it, or pipe it in like `keeper secret add NAME < file`")
        number = secrets.store(at.settings).add(name, value)
        with at.database.transaction() as connection:
            audit.record(
                connection,
                actor=at.actor,
                action="add_secret",
                subject=name,
                why=why,
                now=at.clock.now(),
                details={"version": number},
            )
    show.console.print(f"{name}: version {number} added")


@secret.command("list")
@options.JSON
def list_secrets(as_json: bool) -> None:
    """Every secret a task names, who reads it, and how many versions can be read."""
    with session() as at:
        store = secrets.store(at.settings)
        found: list[dict[str, Any]] = [
            {"secret": name, "tasks": tasks, "enabled": sum(v.state == "enabled" for v in store.versions(name))}
            for name, tasks in sorted(_named(at).items())
        ]
    if as_json:
        show.document(secrets=found)
        return
    show.table(
        "Secrets",
        ["secret", "read by", "versions"],
        ((s["secret"], ", ".join(s["tasks"]), s["enabled"] or "none") for s in found),
        empty="No task names a secret.",
    )


@secret.command("versions")
@click.argument("name")
@options.JSON
def list_versions(name: str, as_json: bool) -> None:
    """The versions of NAME and their states; never their values."""
    with session() as at:
        _known(at, name)
        found = secrets.store(at.settings).versions(name)
    if as_json:
        show.document(versions=[{"number": v.number, "state": v.state} for v in found])
        return
    empty = f"{name} has no version: `keeper secret add {name}`"
    show.table(f"Versions of {name}", ["version", "state"], ((v.number, v.state) for v in found), empty=empty)


def _named(at: Session) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for task in at.tasks().values():
        for name in task.secrets:
            named.setdefault(name, []).append(task.name)
    return named


def _known(at: Session, name: str) -> None:
    if name not in _named(at):
        raise Refused(f"no task names a secret {name!r}: `keeper secret list` shows those there are")
