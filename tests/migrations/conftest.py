"""An empty database for each test, on PostgreSQL 15 and 18 in turn, and one with both branches at their head."""

from collections.abc import Iterator
from itertools import count

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

from shared.backup.postgres_binaries import find_binaries
from shared.laptop.postgres import Postgres
from shared.migrations import run
from tests.conftest import memory

_numbers = count()


@pytest.fixture(scope="package", params=[15, 18], ids=["pg15", "pg18"])
def each_server(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """Servers of these tests' own: roles belong to a whole server, and here they are made and dropped."""
    with Postgres.temporary(binaries=find_binaries(request.param), parent=memory()) as started:
        yield started


@pytest.fixture
def empty(each_server: Postgres) -> Iterator[Engine]:
    name = f"m{next(_numbers)}"
    engine = create_engine(each_server.create_database(name, template="template0"), poolclass=NullPool)
    yield engine
    engine.dispose()
    each_server.drop_database(name)


@pytest.fixture(scope="package")
def template(each_server: Postgres) -> str:
    """A database at the head of both branches, to be copied: some twenty times quicker than migrating."""
    engine = create_engine(each_server.create_database("m_template", template="template0"), poolclass=NullPool)
    for branch in run.BRANCHES:
        run.upgrade(engine, branch)
    engine.dispose()
    return "m_template"


@pytest.fixture
def migrated(each_server: Postgres, template: str) -> Iterator[Engine]:
    name = f"m{next(_numbers)}"
    engine = create_engine(each_server.create_database(name, template=template), poolclass=NullPool)
    yield engine
    engine.dispose()
    each_server.drop_database(name)
