"""What rotators promise on the oldest PostgreSQL served too, where CREATEROLE and membership mean other things."""

from collections.abc import Iterator

import pytest

from shared.backup.postgres_binaries import find_binaries
from shared.laptop.postgres import Postgres
from tests.conftest import memory, prepare
from tests.functions import test_rotate_secrets
from tests.rotating import clock as clock
from tests.rotating import database_login as database_login
from tests.rotating import rotate as rotate
from tests.rotating import store as store
from tests.rotating import web as web


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with Postgres.temporary(binaries=find_binaries(15), parent=memory()) as started:
        yield started


@pytest.fixture(scope="session")
def template(server: Postgres) -> str:
    prepare(server, "template_migrated_15")
    return "template_migrated_15"


test_turns = test_rotate_secrets.test_a_database_login_changes_turns_and_what_it_makes_belongs_to_the_owner
test_back = test_rotate_secrets.test_a_database_login_goes_back_with_its_password
test_given_to_nobody = test_rotate_secrets.test_a_new_login_that_does_not_pass_its_test_is_given_to_nobody
