"""Cold start: importing a task's main.py in a fresh process against the bare import of what it needs.

A floor, not a cold start in the cloud: warm bytecode, no container. In processor time, since an import waits for little
else and a shared machine's clock says more about its neighbours. Goal: at most 1.15 of the bare import.
"""

import os
import subprocess
import sys
from typing import Any

from bench.measure import Ratio, Series, alternate, report
from shared.manifest import ROOT, Task, load_all

# The modules behind the names of core.yaml and `requires` that a start has to load: all of the first, and of the others
# those that this task's start does load.
_CORE = ["functions_framework", "flask", "sqlalchemy.dialects.postgresql.pg8000", "pg8000.dbapi", "yaml", "cronsim"]
_OF_THE_CORE = ["requests"]
_MODULES = {
    "requests": "requests",
    "numpy": "numpy",
    "pyarrow": "pyarrow.parquet",
    "google-cloud-pubsub": "google.cloud.pubsub_v1",
    "google-cloud-storage": "google.cloud.storage",
    "stripe": "stripe",
    "torch": "torch",
    "pycurl": "pycurl",
    "pycares": "pycares",
    "idna": "idna",
    "certifi": "certifi",
    "firebase-admin": "firebase_admin.auth",
    "cryptography": "cryptography.hazmat.primitives.ciphers.aead",
    "maxminddb": "maxminddb",
    "ua-parser": "ua_parser",
}
# The first round, which is not counted, leaves bytecode for those after it, whatever the shell says.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _timed(code: str) -> float:
    """Milliseconds of processor time `code` takes in a fresh process, without the interpreter's own start."""
    return float(_said(f"import time; t = time.process_time(); {code}; print((time.process_time() - t) * 1000)"))


def _said(program: str) -> str:
    """The last line a program says in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=_ENVIRONMENT, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def _bare(task: Task) -> str:
    eager = [
        _MODULES[name] for name in (*_OF_THE_CORE, *task.requires) if name in _MODULES and _loads(task, _MODULES[name])
    ]
    return "import " + ", ".join([*_CORE, *eager])


def _start(task: Task) -> str:
    folder = task.folder.relative_to(ROOT)
    imports = "import functions_framework; from pathlib import Path; from shared.task import load"
    return f"{imports}; load(Path({str(folder)!r}))"


def _loads(task: Task, module: str) -> bool:
    """Whether starting the task loads `module` at all (many are imported only when they are used)."""
    return _said(f"{_start(task)}; import sys; print({module!r} in sys.modules)") == "True"


def run() -> dict[str, Any]:
    """A table of every task: its start, the bare import, the ratio."""
    series: list[Series] = []
    ratios: dict[str, Ratio] = {}
    for task in load_all().values():
        bare, start = _bare(task), _start(task)
        pair = alternate(
            {f"{task.name}: bare import": lambda b=bare: _timed(b), f"{task.name}: start": lambda s=start: _timed(s)},
            unit="ms",
            rounds=7,
        )
        series += pair.values()
        first, second = pair.values()
        ratios[task.name] = Ratio(second.median / first.median, 1.15)
    return report("coldstart", series, ratios)
