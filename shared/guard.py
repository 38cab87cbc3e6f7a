"""Is this database the one this process was made for? Asked once a process, before its first run."""

from sqlalchemy import Connection, select, text

from shared.errors import ConfigurationError
from shared.schema import VERSION, environment
from shared.settings import Settings


def check_version(connection: Connection) -> None:
    found = connection.execute(text("select version_num from groundskeeper.schema_version")).scalars().all()
    if list(found) != [VERSION]:
        raise ConfigurationError(
            f"the schema groundskeeper is at version {', '.join(found) or 'none'}, this code "
            f"needs {VERSION}: run `keeper migrate` (or deploy the code that fits)"
        )


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
