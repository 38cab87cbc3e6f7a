"""The retention benchmark waits for nobody who is gone."""

import pytest

from bench.retention import Bench
from shared.laptop.postgres import Postgres


def test_a_benchmark_whose_inserting_process_dies_says_so(server: Postgres, capfd: pytest.CaptureFixture[str]) -> None:
    at = Bench.__new__(Bench)
    at.url = server.database_url("nowhere")
    with pytest.raises(RuntimeError, match=r"inserts meanwhile ended by itself \(exit code 1\)"), at.load([]):
        pass
    assert 'database "nowhere" does not exist' in capfd.readouterr().err
