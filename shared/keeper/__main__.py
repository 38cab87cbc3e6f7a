"""`keeper`: the plane from a terminal. Each command's own module says what it does; this one gathers them.

Shell completion: `eval "$(_KEEPER_COMPLETE=bash_source keeper)"` (zsh_source, fish_source).
"""

import logging
import sys

import click
from sqlalchemy.exc import DBAPIError

from shared import logs
from shared.database import ending_of
from shared.errors import OUTCOMES, ConfigurationError, Ending, Outcome
from shared.keeper import (
    backup,
    costs,
    docs,
    doctor,
    grant,
    inbox,
    models,
    new,
    operate,
    outbox,
    queries,
    restore,
    secret,
    setup,
    show,
    simulate,
    tasks,
)
from shared.redaction import describe, redact
from shared.strict_yaml import ManifestError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="groundskeeper")
@click.option("--verbose", is_flag=True, help="Show every log line, not only warnings.")
def keeper(verbose: bool) -> None:
    """Groundskeeper: see, plan, run and undo the plane's tasks."""
    # A task's import configures logging for the cloud; here standard output belongs to the answer.
    logs.configure("stderr", logging.INFO if verbose else logging.WARNING)


for command in (
    tasks.list_tasks,
    tasks.run,
    tasks.history,
    tasks.cancel,
    restore.restore,
    backup.backup,
    queries.queries,
    new.new,
    setup.migrate,
    setup.up,
    operate.pause,
    operate.resume,
    operate.approvals,
    operate.hold,
    grant.grant,
    models.models,
    outbox.outbox,
    inbox.inbox,
    secret.secret,
    doctor.doctor,
    simulate.simulate,
    costs.costs,
    docs.docs,
):
    keeper.add_command(command)


def main() -> None:
    """Run `keeper`; every error in words, with the exit code of the outcome it means."""
    try:
        keeper(prog_name="keeper")
    except Ending as ending:
        show.complain(redact(str(ending)))
        sys.exit(OUTCOMES[ending.outcome].exit)
    except (ConfigurationError, ManifestError) as error:
        show.complain(redact(str(error)))
        sys.exit(OUTCOMES[Outcome.REFUSED].exit)
    except DBAPIError as error:
        meant = ending_of(error)
        show.complain(str(meant) if meant else describe(error))
        sys.exit(OUTCOMES[meant.outcome if meant else Outcome.FAILED].exit)


if __name__ == "__main__":
    main()
