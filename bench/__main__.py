"""`python -m bench NAME [--json]`: run one benchmark and show its figures, or its JSON document."""

import argparse
import importlib
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

_NAMES = sorted(f.stem for f in Path(__file__).parent.glob("*.py") if f.stem not in ("__init__", "__main__", "measure"))


def main() -> None:
    """Parse the command line, run, show."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=_NAMES)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    chosen = parser.parse_args()
    result = importlib.import_module(f"bench.{chosen.name}").run()
    if chosen.json:
        print(json.dumps(result))
        return
    table = Table("what", "unit", "median", "min", "max", "n", title=result["name"])
    for row in result["results"]:
        table.add_row(row["what"], row["unit"], *(_figure(row[k]) for k in ("median", "min", "max")), str(row["n"]))
    console = Console()
    console.print(table)
    for name, ratio in result["ratios"].items():
        mark = "[green]met[/]" if ratio["met"] else "[red]not met[/]"
        console.print(f"{name}: {ratio['value']:.2f} (goal {ratio['goal']}) {mark}")


def _figure(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.4g}"


if __name__ == "__main__":
    main()
