"""`keeper costs`: what the plane costs a month, from task.yaml and public prices, at three sizes of platform."""

from collections.abc import Mapping
from datetime import timedelta

import click
from sqlalchemy import text

from shared.costs.compare import Way, ways
from shared.costs.estimate import SIZES, Bill, estimate
from shared.keeper import options, show
from shared.keeper.session import functions_folder, session
from shared.manifest import load_all

# Runs that found nothing to hold on to (skipped, busy) are calls too, and paid.
_SECONDS = text("""
    select task, avg(extract(epoch from finished_at - started_at)) as seconds
      from groundskeeper.task_run
     where started_at >= :since
       and finished_at is not null
     group by task""")
_LOOKED_BACK = timedelta(days=30)


@click.command()
@click.option("--measured", is_flag=True, help="With the time that the last 30 days' runs took, where there are any.")
@options.JSON
def costs(measured: bool, as_json: bool) -> None:
    """What a month costs, each task and all, for a small, a medium and a large platform, before and after what is
    free; and the relay sweeping, ticking, as a doorbell, or as one of four workers that are always on."""
    tasks = load_all(functions_folder())
    seconds = _measured() if measured else {}
    bills = [estimate(tasks, size, measured=seconds) for size in SIZES]
    choices = {size.name: ways(size) for size in SIZES}
    if as_json:
        show.document(**_document(bills, choices))
    else:
        _print(bills, choices)


def _measured() -> dict[str, float]:
    """The mean seconds of each task's runs, from the ledger."""
    with session() as at, at.database.transaction(read_only=True) as connection:
        rows = connection.execute(_SECONDS, {"since": at.clock.now() - _LOOKED_BACK})
        return {row.task: float(row.seconds) for row in rows}


def _document(bills: list[Bill], choices: Mapping[str, tuple[Way, ...]]) -> dict[str, object]:
    return {
        "currency": "USD",
        "sizes": [
            {
                "size": bill.size.name,
                "users": bill.size.users,
                "events_per_day": bill.size.events_per_day,
                "requests_per_day": bill.size.requests_per_day,
                "tasks": [
                    {
                        "task": line.task,
                        "calls": line.calls,
                        "seconds_a_call": round(line.seconds, 3),
                        "measured": line.measured,
                        "vcpu_s": round(line.vcpu_s),
                        "gib_s": round(line.gib_s),
                        "dollars": round(line.dollars, 2),
                    }
                    for line in bill.lines
                ],
                "free": round(bill.free, 2),
                "dollars": round(bill.dollars, 2),
                "ways": [
                    {"way": way.name, "dollars": round(way.dollars, 2), "what": way.what}
                    for way in choices[bill.size.name]
                ],
            }
            for bill in bills
        ],
    }


def _print(bills: list[Bill], choices: Mapping[str, tuple[Way, ...]]) -> None:
    sizes = [bill.size for bill in bills]
    show.table(
        "US dollars a month by public list prices",
        ["task", *(f"{size.name}: calls, s each, $" for size in sizes)],
        (
            *(
                (
                    lines[0].task,
                    *(
                        f"{x.calls:,} x {x.seconds:.3g}{'' if x.measured else ' (assumed)'}: {x.dollars:.2f}"
                        for x in lines
                    ),
                )
                for lines in zip(*(bill.lines for bill in bills), strict=True)
            ),
            ("free of charge", *(f"-{bill.free:.2f}" for bill in bills)),
            ("all", *(f"{bill.dollars:.2f}" for bill in bills)),
        ),
        empty="No task yet: `keeper new NAME` makes one.",
    )
    show.table(
        "The same events relayed in other ways, after what is free",
        ["way", *(f"{size.name}: $" for size in sizes), "what"],
        (
            (kinds[0].name, *(f"{way.dollars:.2f}" for way in kinds), kinds[-1].what)
            for kinds in zip(*(choices[size.name] for size in sizes), strict=True)
        ),
        empty="",
    )
    for size in sizes:
        show.console.print(
            f"{size.name}: {size.users:,} users, {size.events_per_day:,} events and {size.requests_per_day:,} requests "
            "a day",
            highlight=False,
        )
    show.console.print(
        "Without the database, stored bytes and traffic out, which cost the same whatever runs the tasks."
    )
