"""`keeper migrate` and `keeper up`: the schema of a database, and the whole plane on a laptop."""

import sys
from pathlib import Path

import click
from sqlalchemy import text

from shared.adoption import beside, read_adoption
from shared.keeper import show
from shared.keeper.session import session
from shared.wording import counted


@click.command()
@click.option("--grants", is_flag=True, help="Also create each task's role and grant it exactly its tables.")
@click.option("--platform", is_flag=True, help="Also create the demo's reference tables: never on a real platform.")
@click.option(
    "--adopt",
    "adopt_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What this database calls its tables (default: functions/adopt.yaml, if there).",
)
@click.option("--show", "show_only", is_flag=True, help="Print the grants as SQL and change nothing.")
def migrate(grants: bool, platform: bool, adopt_file: Path | None, show_only: bool) -> None:
    """Bring the schema groundskeeper to this version and stamp the database's environment."""
    from shared.migrations import grants as granting
    from shared.migrations import run as migrations

    with session() as at:
        engine = at.database.engine
        adoption = read_adoption(adopt_file) if adopt_file else beside(at.functions)
        statements = granting.grants(at.tasks(), role_of=granting.role_naming(at.settings), adoption=adoption)
        if show_only:
            for statement in statements:
                click.echo(statement.rstrip(";") + ";")
            return
        for branch in ("groundskeeper", "platform") if platform else ("groundskeeper",):
            before = migrations.current(engine, branch)
            migrations.upgrade(engine, branch)
            after = migrations.current(engine, branch)
            show.console.print(f"{branch}: {'at ' + str(after) if before == after else f'{before} -> {after}'}")
        migrations.stamp_environment(engine, at.settings.project, at.settings.livemode, at.clock.now())
        show.console.print(f"stamped for project {at.settings.project}, livemode {at.settings.livemode}")
        if grants:
            with at.database.transaction() as connection:
                for statement in statements:
                    connection.execute(text(statement))
            show.console.print(f"{counted(len(statements), 'grant')} in force")


@click.command()
@click.option("--once", is_flag=True, help="Run every scheduled task once, print the outcomes, stop.")
@click.option("--demo/--no-demo", default=True, help="Fill an empty database with demo data.")
@click.option("--isolated", is_flag=True, help="One process a function, as in the cloud.")
@click.option("--gcs", is_flag=True, help="Objects in fake-gcs-server instead of folders.")
def up(once: bool, demo: bool, isolated: bool, gcs: bool) -> None:
    """Run the whole plane here: database, bus, objects, functions, jobs, scheduler."""
    from shared.laptop import plane

    sys.exit(plane.up(once=once, demo=demo, isolated=isolated, gcs=gcs))
