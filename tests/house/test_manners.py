"""What no file does: read the environment or the clock on its own, swallow everything, name a machine or a registry."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.house.source import EDGES, ROOT, SHARED, core, tree

DEPLOYED = [
    *core(),
    *sorted((ROOT / "functions").rglob("*.py")),
    *(
        f
        for p in sorted(SHARED.iterdir())
        if p.is_dir() and p.name not in EDGES - {"platform"}
        for f in sorted(p.rglob("*.py"))
    ),
]
_CLOCKS = re.compile(r"\b(datetime|date)\.(now|utcnow|today)\(|\btime\.(time|monotonic|sleep|perf_counter)\(")


def _calls(file: Path) -> list[str]:
    return [ast.unparse(n) for n in ast.walk(tree(file)) if isinstance(n, ast.Call | ast.Attribute | ast.Subscript)]


@pytest.mark.parametrize("file", DEPLOYED, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_only_settings_reads_the_environment_and_only_clock_the_clock(file: Path) -> None:
    for call in _calls(file):
        if file != SHARED / "settings.py":
            assert not re.match(r"os\.(environ|getenv)", call), f"{file.name}: {call}"
        if file != SHARED / "clock.py":
            assert not _CLOCKS.match(call), f"{file.name}: {call}"


@pytest.mark.parametrize("file", DEPLOYED, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_only_the_ledger_uses_the_databases_clock(file: Path) -> None:
    if file == SHARED / "ledger.py":
        return
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not re.search(r"\b(now|clock_timestamp|statement_timestamp)\(\)|current_timestamp", node.value)


@pytest.mark.parametrize(
    "file", [f for f in DEPLOYED if f != SHARED / "run.py"], ids=lambda f: f.relative_to(ROOT).as_posix()
)
def test_only_the_wrapper_catches_everything(file: Path) -> None:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            ends_in_raise = isinstance(node.body[-1], ast.Raise)
            assert caught not in ("everything", "Exception", "BaseException") or ends_in_raise, f"{file.name}: {caught}"


@pytest.mark.parametrize("file", DEPLOYED, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_a_file_fits_its_room(file: Path) -> None:
    lines = len(file.read_text().splitlines())
    assert lines <= (200 if "functions" in file.relative_to(ROOT).parts[0] else 500)


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


REGISTRIES = re.compile(
    "|".join(
        (
            "pypi" + r"\.org",
            "python" + "hosted",
            "registry" + r"\.npmjs",
            r"index" + "-url[ =]",
            "download" + r"\.pytorch",
        )
    )
)


def test_no_file_names_a_package_registry() -> None:
    for file in _tracked():
        if file.suffix in (".png", ".gz", ".parquet", ".pt"):
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            assert not REGISTRIES.search(line), f"{file.relative_to(ROOT)}:{number}"


def test_no_file_is_larger_than_a_mebibyte() -> None:
    assert not [f for f in _tracked() if f.stat().st_size > 1 << 20]
