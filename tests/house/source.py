"""What the laws read: the repository's Python files and their imports, by syntax."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from shared.manifest import ROOT

SHARED = ROOT / "shared"
# Edges may import everything; a function's source holds none of them.
EDGES = frozenset({"keeper", "laptop", "migrations", "platform"})


def rooms() -> list[str]:
    """The domains: the sub-packages of shared/ that are no edge."""
    return sorted(p.name for p in SHARED.iterdir() if (p / "__init__.py").is_file() and p.name not in EDGES)


def core() -> list[Path]:
    """The core's modules."""
    return sorted(SHARED.glob("*.py"))


@cache
def tree(file: Path) -> ast.Module:
    """The file's syntax."""
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path, *, lazy: bool = True) -> Iterator[str]:
    """The dotted names a file imports; with `lazy`, those inside functions too, and never those for types alone."""
    for node in _nodes(tree(file), lazy=lazy):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _nodes(node: ast.AST, *, lazy: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield child
        yield from _nodes(child, lazy=lazy)


def rooms_of(file: Path) -> set[str]:
    """The rooms (edges too) a file imports."""
    found = {name.split(".")[1] for name in imports(file) if name.startswith("shared.") and name.count(".") >= 1}
    return {name for name in found if (SHARED / name / "__init__.py").is_file()}
