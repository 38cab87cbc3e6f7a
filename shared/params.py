"""Turn `params` of a task.yaml into the frozen dataclass the task's `run` asks for.

Values live in YAML, types in Python, no defaults in Python: a missing, unknown or mistyped key fails when the
task is loaded. `{env: NAME, default: x}` is resolved here and nowhere else; the default's type is the type.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from shared.strict_yaml import ManifestError

T = TypeVar("T")


def variables(value: Any) -> Iterator[str]:
    """The names of the variables that `value` reads its `{env, default}` from."""
    if isinstance(value, dict):
        if set(value) == {"env", "default"}:
            yield value["env"]
        for inner in value.values():
            yield from variables(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from variables(inner)


def resolve(value: Any, environ: Mapping[str, str], where: str) -> Any:
    """`value` with every `{env, default}` replaced by the variable's value, as the default's type."""
    if isinstance(value, dict) and set(value) == {"env", "default"}:
        text, default = environ.get(value["env"]), value["default"]
        if text is None or text == "":
            return default
        where = f"{where} (from ${value['env']})"
        if isinstance(default, bool):
            if text not in ("true", "false"):
                raise ManifestError(f"{where}: expected true or false, got {text!r}")
            return text == "true"
        try:
            return type(default)(text)
        except ValueError:
            raise ManifestError(f"{where}: expected {type(default).__name__}, got {text!r}") from None
    if isinstance(value, dict):
        return {k: resolve(v, environ, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list):
        return [resolve(v, environ, f"{where}[{i}]") for i, v in enumerate(value)]
    return value


def build(wanted: type[T], value: Any, where: str) -> T:
    """`value` as `wanted`: a dataclass, tuple[X, ...], dict[str, X], Literal, X | None, str, int, float or bool.

    Dataclass fields with a default may be left out of nested records (an optional key of a rule).
    Raises ManifestError naming the key, the value and the remedy.
    """
    return typing.cast(T, _build(wanted, value, where))


def _build(wanted: Any, value: Any, where: str) -> Any:
    origin = get_origin(wanted)
    if dataclasses.is_dataclass(wanted):
        return _record(wanted, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ManifestError(f"{where}: expected a list, got {value!r}")
        return tuple(_build(get_args(wanted)[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ManifestError(f"{where}: expected a mapping, got {value!r}")
        return {k: _build(get_args(wanted)[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is Literal:
        if value not in get_args(wanted):
            raise ManifestError(f"{where}: expected one of {', '.join(map(str, get_args(wanted)))}, got {value!r}")
        return value
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _build(next(a for a in get_args(wanted) if a is not type(None)), value, where)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ManifestError(f"{where}: expected {wanted.__name__}, got {value!r}")
    return value


def _record(wanted: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ManifestError(f"{where}: expected a mapping, got {value!r}")
    hints = typing.get_type_hints(wanted)
    fields = {f.name: f for f in dataclasses.fields(wanted)}
    for key in value:
        if key not in fields:
            raise ManifestError(f"{where}.{key}: is not a parameter here: known are {', '.join(sorted(fields))}")
    found = {}
    for name, field in fields.items():
        if name in value:
            found[name] = _build(hints[name], value[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ManifestError(f"{where}.{name}: is missing: add it")
    try:
        return wanted(**found)
    except ValueError as error:  # a record's own check in __post_init__
        raise ManifestError(f"{where}: {error}") from error
