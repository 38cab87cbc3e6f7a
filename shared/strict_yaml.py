"""YAML that every reader understands alike, taken apart key by key, with errors in words.

PyYAML and Terraform's yamldecode read some plain scalars differently (octals, dates, `yes`, `1_000`, `1e3`), and
both keep the last of two equal keys in silence; here each of these is an error that says what to write instead.
"""

import re
from typing import Any

import yaml


class ManifestError(ValueError):
    """A declaration that cannot be used. The message names the file, the key, the value and the remedy."""


_INT = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+")
# Plain scalars that PyYAML and Terraform's yamldecode read differently, or that look like another type.
_AMBIGUOUS = re.compile(r"(?i)[-+.]?[0-9].*|y|n|yes|no|on|off|true|false|null|~|=|<<|\.inf|\.nan|[-+]\.inf")


# libyaml's reader is ten times as fast where PyYAML was built with it.
_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[valid-type, misc]
    """YAML of which every reader has the same understanding: no duplicates, anchors, dates, octals or yes/no."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is not text: write it in quotes", key_node.start_mark
            )
        if key in result:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} stands twice: remove one", key_node.start_mark
            )
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def _scalar(loader: _Loader, node: yaml.ScalarNode) -> str | int | float | bool | None:
    text = node.value
    if node.style:  # quoted; a plain scalar has None or nothing, as the reader is
        return str(text)
    if text in ("true", "false"):
        return bool(text == "true")
    if text in ("null", ""):
        return None
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _AMBIGUOUS.fullmatch(text):
        raise yaml.constructor.ConstructorError(
            None,
            None,
            f"{text!r} is read differently by different YAML readers: write it in quotes",
            node.start_mark,
        )
    return str(text)


_Loader.yaml_implicit_resolvers = {}
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:str", _scalar)


def parse(text: str, where: str) -> Any:
    """The YAML document in `text`. Raises ManifestError, naming `where` and the line."""
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise ManifestError(
                    f"{where}: line {(event.start_mark.line if event.start_mark else 0) + 1}: anchors and aliases are "
                    "not allowed: write the value out"
                )
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ManifestError(f"{where}: line {line}: {error.problem}") from error


class Fields:
    """One mapping of the file, taken apart key by key; what nobody asked for is an error."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise ManifestError(f"{where}: expected a mapping, got {value!r}")
        self.rest = dict(value)
        self.where = where
        self.known: list[str] = []

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        self.known.append(key)
        if key not in self.rest:
            if default is ...:
                raise ManifestError(f"{self.where}.{key}: is missing: add it")
            return default
        value = self.rest.pop(key)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        # bool is an int to Python, never to the reader of a manifest
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(_KIND_NAMES[k] for k in kinds)
            raise ManifestError(f"{self.where}.{key}: expected {wanted}, got {value!r}")
        return value

    def number(self, key: str, low: int, high: int, default: Any = ...) -> int:
        value = self.take(key, int, default)
        if value is not default and not low <= value <= high:
            raise ManifestError(f"{self.where}.{key}: expected {low} to {high}, got {value!r}")
        return value  # type: ignore[no-any-return]

    def choice(self, key: str, options: tuple[str, ...], default: Any = ...) -> str:
        value = self.take(key, str, default)
        if value not in options:
            raise ManifestError(f"{self.where}.{key}: expected one of {', '.join(options)}, got {value!r}")
        return value  # type: ignore[no-any-return]

    def names(self, key: str, default: Any = ..., pattern: str = r"\S+") -> tuple[str, ...]:
        value = self.take(key, list, default)
        for i, item in enumerate(value):
            if not isinstance(item, str) or not re.fullmatch(pattern, item):
                raise ManifestError(f"{self.where}.{key}[{i}]: expected a name like {pattern}, got {item!r}")
        if len(set(value)) != len(value):
            raise ManifestError(f"{self.where}.{key}: {value!r} names something twice: remove one")
        return tuple(value)

    def done(self) -> None:
        if self.rest:
            key = next(iter(self.rest))
            raise ManifestError(
                f"{self.where}.{key}: is not a key of task.yaml here: known keys are {', '.join(sorted(self.known))}"
            )


_KIND_NAMES: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}
