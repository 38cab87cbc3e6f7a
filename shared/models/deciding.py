"""One model's day: try it, keep its version, write down the decision, and make it current where it is better."""

import json
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import text

from shared.clock import rfc3339
from shared.context import Context
from shared.manifest import code_version
from shared.models.dataset import Fitness, TooLittle, Unfit
from shared.models.registry import Registry
from shared.models.trial import Part, Trial, hold

_KNOWN = text("select version, decision from training_run where id = :id")

_WRITE = text("""
    insert into training_run (id, model, version, decision, reason, metrics, baselines, data_hash, code_version,
                              location, started_at, finished_at)
    values (:id, :model, :version, :decision, :reason, cast(:metrics as jsonb), cast(:baselines as jsonb), :data_hash,
            :code_version, :location, :started, :finished)""")


class Decision(NamedTuple):
    """How a model's day ended. `unfit` is why its data must be looked at; None where time mends it, or all is well."""

    model: str
    decision: str
    reason: str
    unfit: str | None = None


def decide(ctx: Context, registry: Registry, model: str, parts: Mapping[str, Part], fitness: Fitness) -> Decision:
    """Try a model once a run; an attempt that goes on after a kill finishes what was begun."""
    run = uuid.uuid5(ctx.run_id, model)
    with ctx.read() as connection:
        known = connection.execute(_KNOWN, {"id": run}).one_or_none()
    if known is not None:
        if known.decision == "promoted" and not any(p.version == known.version for p in registry.pointers(model)):
            _promote(ctx, registry, model, known.version)
        return Decision(model, known.decision, "decided by an attempt before this one")
    started = ctx.clock.now()
    code = code_version(ctx.task)
    about = {"trained_at": rfc3339(ctx.now), "code_version": code, "run": str(ctx.run_id)}
    row = {"id": run, "model": model, "version": "", "code_version": code, "started": started}
    try:
        trial = hold(model, parts, registry.champion(model), fitness, now=int(ctx.now.timestamp()), about=about)
    except Unfit as unfit:
        _write(ctx, row, "refused", str(unfit), {"data_hash": "", "location": None})
        return Decision(model, "refused", str(unfit), None if isinstance(unfit, TooLittle) else str(unfit))
    ctx.check()
    version = f"{ctx.now:%Y%m%dT%H%M%S}-{run.hex[:8]}-{ctx.attempt}"
    registry.store(model, version, trial.files, {**about, "decision": trial.decision, "data_hash": trial.data_hash})
    kept = {
        "version": version,
        "metrics": json.dumps(trial.metrics),
        "baselines": json.dumps(trial.baselines),
        "data_hash": trial.data_hash,
        "location": registry.location(model, version),
    }
    _write(ctx, row, trial.decision, trial.reason, kept, losses=_losses(model, trial))
    if trial.decision == "promoted":
        _promote(ctx, registry, model, version)
    return Decision(model, trial.decision, trial.reason)


def _promote(ctx: Context, registry: Registry, model: str, version: str) -> None:
    registry.point(model, version, by=ctx.task.name, why="better than every baseline and the champion", now=ctx.now)


def _losses(model: str, trial: Trial) -> dict[str, int]:
    """Each part's loss and those it was tried against, in millionths, as counts of the run."""
    found: dict[str, int] = {}
    for part, compared in trial.baselines.items():
        under = model if part == model else f"{model}.{part}"
        said = {"model": trial.metrics[part]["loss"], **{name: one["loss"] for name, one in compared.items()}}
        found |= {f"{under}.{name.replace(' ', '_')}.loss_e6": round(1e6 * loss) for name, loss in said.items()}
    return found


def _write(
    ctx: Context,
    row: Mapping[str, Any],
    decision: str,
    reason: str,
    more: Mapping[str, Any],
    *,
    losses: Mapping[str, int] = MappingProxyType({}),
) -> None:
    empty = {"metrics": "{}", "baselines": "{}"}
    binds = {**row, **empty, **more, "decision": decision, "reason": reason, "finished": ctx.clock.now()}
    with ctx.begin() as connection:
        connection.execute(_WRITE, binds)
        ctx.count(decision)
        for name, by in {f"{row['model']}.{decision}": 1, **losses}.items():
            ctx.count(name, by)
    ctx.log.info("decided about a model", model=row["model"], decision=decision, reason=reason)
