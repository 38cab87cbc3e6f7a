"""`keeper models list`, `show`, `promote`, `rollback`, `export`: the registry of models. Deeds are in the audit."""

from pathlib import Path
from typing import Any

import click

from shared import audit, objects
from shared import settings as settings_module
from shared.errors import Refused
from shared.keeper import options, show
from shared.keeper.session import Session, session
from shared.models.registry import MODELS, Registry

_MODEL = click.argument("model", type=click.Choice(MODELS))
_REASON = click.option("--reason", required=True, help="Why, for the audit and the registry.")


@click.group()
def models() -> None:
    """The models: their versions, and which of them score."""


@models.command("list")
@options.JSON
def list_models(as_json: bool) -> None:
    """Every whole version of each model, and which is current."""
    with session() as at:
        registry = _registry(at)
        rows = [row for model in MODELS for row in _versions(registry, model)]
    if as_json:
        show.document(models=rows)
        return
    show.table(
        "Models (times in UTC)",
        ["model", "version", "trained", "decided", "current"],
        ((r["model"], r["version"], r["trained_at"], r["decision"], "yes" if r["current"] else "") for r in rows),
        empty="No version yet: `keeper run train_all_models` makes some.",
    )


@models.command("show")
@_MODEL
@click.argument("version", required=False)
def show_model(model: str, version: str | None) -> None:
    """The card of a version (default: the current one), as Markdown."""
    with session() as at:
        registry = _registry(at)
        current = registry.current(model)
        if version is None and current is None:
            raise Refused(f"no version of {model} is current: name one of `keeper models list`")
        files = registry.files(model, version or (current.version if current else ""))
    click.echo(files["card.md"].decode())


@models.command()
@_MODEL
@click.argument("version")
@_REASON
@options.DECIDES
def promote(model: str, version: str, reason: str, actor: str | None) -> None:
    """Make VERSION current, once it has loaded and scored."""
    with session(actor) as at:
        registry = _registry(at)
        registry.load(model, version)
        _record(at, "model_promote", model, reason, version)
        pointer = registry.point(model, version, by=at.actor, why=reason, now=at.clock.now())
    click.echo(f"{model}: {pointer.version} is current")


@models.command()
@_MODEL
@_REASON
@options.DECIDES
def rollback(model: str, reason: str, actor: str | None) -> None:
    """Make the version current that was before, once it has loaded and scored."""
    with session(actor) as at:
        _record(at, "model_rollback", model, reason, "")
        pointer = _registry(at).rollback(model, by=at.actor, why=reason, now=at.clock.now())
    click.echo(f"{model}: {pointer.version} is current")


@models.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def export(folder: Path) -> None:
    """Write the current version of each model below FOLDER, which must be empty. Needs no database."""
    if folder.exists() and any(folder.iterdir()):
        raise Refused(f"{folder} is not empty: an export holds the current versions and nothing else")
    settings = settings_module.read()
    if "models" in settings.buckets:
        written = Registry(objects.at(settings.bucket("models"))).export(folder)
    else:  # the laptop's own
        with session() as at:
            written = _registry(at).export(folder)
    for model, version in written:
        click.echo(f"{model}: {version}")


def _registry(at: Session) -> Registry:
    return Registry(objects.at(at.settings.bucket("models")))


def _versions(registry: Registry, model: str) -> list[dict[str, Any]]:
    current = registry.current(model)
    return [
        {
            "model": model,
            "version": one["version"],
            "trained_at": one.get("trained_at"),
            "decision": one.get("decision"),
            "current": current is not None and current.version == one["version"],
        }
        for one in registry.versions(model)
    ]


def _record(at: Session, action: str, model: str, reason: str, version: str) -> None:
    with at.database.transaction() as connection:
        audit.record(
            connection,
            actor=at.actor,
            action=action,
            subject=model,
            why=reason,
            now=at.clock.now(),
            details={"version": version},
        )
