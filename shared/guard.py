"""Is this database the one this process was made for? Asked once a process, before its first run."""

from sqlalchemy import Connection, select, text

from shared.errors import ConfigurationError
from shared.schema import VERSION, environment, serves
from shared.settings import Settings


def check_version(connection: Connection) -> None:
    """Raises ConfigurationError unless this code fits the schema: its own version, or a newer one that still serves it,
    as while a deployment replaces the code."""
    found, says = connection.execute(_VERSION).one()
    if found == VERSION:
        return
    _, promised, oldest = (says or "").partition(serves(found or "", ""))
    if promised and oldest <= VERSION < found:
        return
    raise ConfigurationError(
        f"the schema groundskeeper is at version {found or 'none'}, this code needs {VERSION}: run `keeper migrate` "
        "(or deploy the code that fits)"
    )


_VERSION = text("""
    select (select max(version_num) from groundskeeper.schema_version),
           obj_description(cast('groundskeeper.schema_version' as regclass), 'pg_class')""")


def check_stamp(connection: Connection, settings: Settings) -> None:
    row = connection.execute(select(environment.c.project, environment.c.livemode)).one_or_none()
    if row is None:
        raise ConfigurationError("the database bears no environment stamp: run `keeper migrate`, which writes it")
    if (row.project, row.livemode) != (settings.project, settings.livemode):
        raise ConfigurationError(
            f"the database is stamped for project {row.project!r} (livemode {row.livemode}), this process is "
            f"configured for {settings.project!r} (livemode {settings.livemode}): correct DATABASE_URL or "
            "GOOGLE_CLOUD_PROJECT and KEEPER_STRIPE_LIVEMODE"
        )
