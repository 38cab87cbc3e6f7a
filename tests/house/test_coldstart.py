"""What a task's start may load: no Google client before it is used, and torch for training alone."""

import subprocess
import sys

import pytest

from shared.manifest import ROOT, Task, load_all

LISTED = """
import sys
from pathlib import Path
from shared.task import load
load(Path({folder!r}))
heavy = ("grpc", "torch", "pyarrow", "stripe", "firebase_admin", "google.cloud.storage")
print(*[m for m in heavy if m in sys.modules])
"""


@pytest.mark.parametrize("task", load_all().values(), ids=lambda t: t.name)
def test_starting_a_task_loads_no_client_it_may_not_need(task: Task) -> None:
    program = LISTED.format(folder=str(task.folder))
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
