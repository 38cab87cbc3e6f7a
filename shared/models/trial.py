"""One model's trial: check its data, backtest it, decide, and make the files of its version."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from shared.models import backtest
from shared.models.backtest import Backtest
from shared.models.baselines import Baseline
from shared.models.card import card
from shared.models.dataset import Dataset, Fitness, check
from shared.models.measures import flat, measures
from shared.models.net import Net
from shared.models.registry import Loaded
from shared.models.training import fit, from_state, state


class Part(NamedTuple):
    """What one part of a model learns from and must beat."""

    data: Dataset
    baselines: Mapping[str, Baseline]


class Trial(NamedTuple):
    """How it went: promoted or kept, why, and everything of the version but its name."""

    decision: str
    reason: str
    metrics: Mapping[str, Any]
    baselines: Mapping[str, Any]
    data_hash: str
    files: Mapping[str, bytes]


def hold(
    model: str,
    parts: Mapping[str, Part],
    champion: Loaded | None,
    fitness: Fitness,
    *,
    now: int,
    about: Mapping[str, str],
) -> Trial:
    """Try a model; `about` is what its card says of code and time. Raises Unfit where its data must not be learned.

    It is promoted when each part beats each of its baselines and the champion with 95 % confidence, at the newest
    origin too: what was better once and is not any more has drifted.
    """
    for part in parts.values():
        check(part.data, fitness, now=now)
    tested = {
        name: backtest.run(part.data, part.baselines, champion.parts.get(name) if champion else None)
        for name, part in parts.items()
    }
    nets = {name: fit(part.data, np.ones(len(part.data), dtype=bool)) for name, part in parts.items()}
    lost = [reason for name, one in tested.items() for reason in losses(name if len(parts) > 1 else "", one)]
    decision = "kept" if lost else "promoted"
    reason = "; ".join(lost) or "better than every baseline and the champion, with 95 % confidence"
    metrics = {name: flat(one, measures(parts[name].data.kind, one)) for name, one in tested.items()}
    compared = {name: _compared(parts[name], one) for name, one in tested.items()}
    hashes = {name: part.data.hash() for name, part in parts.items()}
    data_hash = next(iter(hashes.values())) if len(hashes) == 1 else "+".join(h[:32] for h in hashes.values())
    files = {f"{name}.npz": net.save() for name, net in nets.items()}
    for name, net in nets.items():
        suffix = f"_{name}" if len(nets) > 1 else ""
        files[f"platform_{model}_model{suffix}.pt"] = _proven(net)
    files["metrics.json"] = json.dumps({"metrics": metrics, "baselines": compared}, sort_keys=True, indent=1).encode()
    rows = {name: len(part.data) for name, part in parts.items()}
    seen = {"decision": decision, "reason": reason, "data_hash": data_hash, **about}
    files["card.md"] = card(model, seen, rows=rows, metrics=metrics, compared=compared).encode()
    return Trial(decision, reason, metrics, compared, data_hash, files)


def losses(part: str, tested: Backtest) -> list[str]:
    """Why a part is not better, in words with numbers; empty where it is."""
    named = f"{part}: " if part else ""
    said = [
        f"{named}not better than {c.other} ({tested.loss:.4f} to {c.other_loss:.4f}, difference {c.difference:+.4f} "
        f"[{c.low:+.4f}, {c.high:+.4f}])"
        for c in tested.comparisons
        if not c.better
    ]
    newest = tested.by_origin[-1]
    best = min((loss, other) for other, loss in newest.items() if other != "model")
    if not said and newest["model"] > best[0]:
        said.append(
            f"{named}drifted: {best[1]} is better at the newest origin ({newest['model']:.4f} to {best[0]:.4f})"
        )
    return said


def _compared(part: Part, tested: Backtest) -> dict[str, Any]:
    return {
        c.other: {
            "what": part.baselines[c.other].what if c.other in part.baselines else "the current version",
            "loss": c.other_loss,
            "difference": c.difference,
            "low": c.low,
            "high": c.high,
            "beaten": c.better,
        }
        for c in tested.comparisons
    }


def _proven(net: Net) -> bytes:
    """The .pt file, read again as weights only and found to say the same."""
    content = state(net)
    again = from_state(content, net.kind, net.features)
    asked = np.tile(net.center, (3, 1)) + np.array([[-1.0], [0.0], [1.0]]) * net.scale
    if not np.allclose(again.predict(asked), net.predict(asked)):
        raise ArithmeticError("the weights do not say the same once they are read again")
    return content
