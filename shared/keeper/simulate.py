"""`keeper simulate`: a month of the plane in minutes, what it did, whether it kept its promises, what it would cost."""

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from shared.costs.estimate import SIZES, Line, estimate
from shared.keeper import options, show
from shared.keeper.session import functions_folder
from shared.manifest import load_all

if TYPE_CHECKING:
    from shared.laptop.simulation import Simulated

# The first simulated day: a whole month of 30 days lies behind and before it.
_START = datetime(2026, 6, 1, tzinfo=UTC)


@click.command()
@click.option("--days", default=31, show_default=True, type=click.IntRange(1, 400), help="How long.")
@click.option("--chaos", "seed", type=int, metavar="SEED", help="Triggers double, late, lost; kills; outages.")
@options.JSON
def simulate(days: int, seed: int | None, as_json: bool) -> None:
    """Run the real tasks for a month under a clock that runs ahead, on a database of their own. Exits 1 when a
    promise was not kept."""
    # gRPC would guard each fork of ours, and every one of them becomes another program at once. Read when it is loaded.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # The migrate job has this command too, and no laptop.
    from shared.laptop import simulation

    tasks = load_all(functions_folder())
    with simulation.workplace() as folder:
        done = simulation.simulate(tasks, start=_START, days=days, seed=seed, folder=folder)
    costs = {line.task: line for line in estimate(tasks, SIZES[0]).lines}
    if as_json:
        show.document(**_document(done, costs, days, seed))
    else:
        _print(done, costs, days, seed)
    sys.exit(any(not one.held for one in done.invariants))


def _document(done: "Simulated", costs: dict[str, Line], days: int, seed: int | None) -> dict[str, object]:
    return {
        "days": days,
        "chaos": seed,
        "seconds": round(done.seconds, 1),
        "tasks": [
            {
                "task": name,
                "slots": t.slots,
                "density": t.density,
                "outcomes": dict(sorted(t.outcomes.items())),
                "counts": dict(sorted(t.counts.items())),
                "chaos": dict(sorted(t.chaos.items())),
                "seconds": round(t.seconds, 2),
                "dollars_a_month": round(costs[name].dollars, 2),
                "error": t.error,
            }
            for name, t in done.tallies.items()
        ],
        "left_out": [{"task": name, "reason": reason} for name, reason in done.left_out.items()],
        "invariants": [{"name": one.name, "held": one.held, "seen": one.seen} for one in done.invariants],
    }


def _print(done: "Simulated", costs: dict[str, Line], days: int, seed: int | None) -> None:
    show.table(
        f"{days} simulated days{'' if seed is None else f' with mishaps of seed {seed}'}, in {done.seconds:.0f} s",
        ["task", "slots", "density", "ended", "mishaps", "did", "$ a month", "said last"],
        (
            (
                name,
                t.slots,
                t.density,
                show.counts(dict(t.outcomes)),
                show.counts(dict(t.chaos)) if t.chaos else "",
                show.counts(dict(t.counts)),
                f"{costs[name].dollars:.2f}",
                t.error or "",
            )
            for name, t in done.tallies.items()
        ),
        empty="No task has a schedule.",
    )
    for name, reason in done.left_out.items():
        show.console.print(f"  not simulated: {name} ({reason})", soft_wrap=True)
    for one in done.invariants:
        show.console.print(f"{'[green]kept[/]' if one.held else '[bold red]broken[/]'}: {one.name} ({one.seen})",
                           soft_wrap=True)  # fmt: skip
