"""Hold the Stripe double to what Stripe publishes: every request and answer is checked against its types.

Stripe generates the types of its Python package from its OpenAPI document (which no registry carries by itself), so
they say which fields an object has, which may be null, what a request may hold, and which words a field may be. A
double that only agreed with our own code would prove nothing.
"""

import builtins
import functools
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, ForwardRef, Literal, Union, get_args, get_origin

import stripe


class Mismatch(Exception):
    """What was sent is not what Stripe publishes; the message has the path, and what was expected there."""


class _Names(dict[str, Any]):
    """The names an annotation may use: its module's, then the package's, which loads them when asked."""

    def __missing__(self, name: str) -> Any:
        for place in (builtins, stripe, stripe.checkout, typing):
            if hasattr(place, name):
                return getattr(place, name)
        return Any  # a type imported for type checkers only; what it is of is not judged


def check_answer(value: Mapping[str, Any], kind: type) -> None:
    """Raises Mismatch unless `value` is an object as `kind`, a class of the stripe package, describes it.

    The package has no class for what is deleted: of that Stripe gives the id and kind, and that it is gone.
    """
    if value.get("deleted") is True:
        if set(value) != {"id", "object", "deleted"}:
            _fail(kind.__name__, "id, object and deleted", value)
        return
    _object(value, kind, kind.__name__)


def check_request(value: Mapping[str, Any], params: type) -> None:
    """Raises Mismatch unless `value`, its leaves still text, is what `params`, a TypedDict of the package, allows."""
    _mapping(value, params, params.__name__)


def _fail(path: str, expected: object, got: object) -> typing.NoReturn:
    raise Mismatch(f"{path}: expected {expected}, got {type(got).__name__} {got!r:.80}")


def _resolved(hint: Any, owner: type) -> Any:
    """The type an annotation means; text is looked up where it was written."""
    if isinstance(hint, ForwardRef):
        hint = hint.__forward_arg__
    while isinstance(hint, str):
        names = _Names(vars(sys.modules[owner.__module__]))
        hint = eval(hint, {}, names)  # noqa: S307 # nosemgrep: code-from-data - annotations of an installed package
    return hint


def _annotations(kind: type) -> Iterator[tuple[str, Any, type]]:
    """The fields of `kind` and of the classes it inherits from, each with the class that says so."""
    for base in reversed(kind.__mro__):
        for name, hint in vars(base).get("__annotations__", {}).items():
            if not name.startswith("_") and get_origin(hint) is not typing.ClassVar:
                yield name, hint, base


@functools.cache
def _fields(kind: type) -> dict[str, tuple[Any, type]]:
    return {name: (_resolved(hint, owner), owner) for name, hint, owner in _annotations(kind)}


# --- answers


def _object(value: Any, kind: type, path: str) -> None:
    if not isinstance(value, Mapping):
        _fail(path, f"a {kind.__name__}", value)
    fields = _fields(kind)
    for name in value:
        if name not in fields:
            raise Mismatch(f"{path}.{name}: {kind.__name__} has no such field")
    for name, (hint, owner) in fields.items():
        if name in value:
            _value(value[name], hint, owner, f"{path}.{name}")
        elif not _optional(hint):
            raise Mismatch(f"{path}.{name}: is missing")


@functools.cache
def _optional(hint: Any) -> bool:
    return hint is Any or (get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint))


def _value(value: Any, hint: Any, owner: type, path: str) -> None:
    hint = _resolved(hint, owner)
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return
    if origin in (Union, types.UnionType):
        _one_of(value, hint, owner, path)
    elif origin is Literal:
        if value not in arguments:
            _fail(path, f"one of {', '.join(map(str, arguments))}", value)
    elif origin is list:
        if not isinstance(value, list):
            _fail(path, "a list", value)
        for number, item in enumerate(value):
            _value(item, arguments[0], owner, f"{path}[{number}]")
    elif origin is stripe.ListObject:
        _list(value, arguments[0], owner, path)
    elif origin is dict or (isinstance(origin, type) and issubclass(origin, stripe.StripeObject)):
        if not isinstance(value, Mapping):  # metadata and its like: any names
            _fail(path, "an object", value)
    elif isinstance(hint, type) and issubclass(hint, stripe.StripeObject):
        _object(value, hint, path)
    elif hint is Decimal:
        if not isinstance(value, str):
            _fail(path, "a decimal as text", value)
    elif hint is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            _fail(path, "a number", value)
    elif isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        _fail(path, hint.__name__, value)


def _one_of(value: Any, hint: Any, owner: type, path: str) -> None:
    arguments = get_args(hint)
    # `Literal[...] | str` is a closed set that may grow: the double itself stays within what is known today.
    if any(get_origin(_resolved(a, owner)) is Literal for a in arguments):
        arguments = tuple(a for a in arguments if a is not str)
    reasons = []
    for argument in arguments:
        try:
            _value(value, argument, owner, path)
        except Mismatch as mismatch:
            reasons.append(str(mismatch))
        else:
            return
    raise Mismatch(reasons[0] if value is not None else f"{path}: may not be null")


def _list(value: Any, item: Any, owner: type, path: str) -> None:
    if not isinstance(value, Mapping) or set(value) != {"object", "data", "has_more", "url"}:
        _fail(path, "a list object", value)
    if value["object"] != "list" or not isinstance(value["has_more"], bool) or not isinstance(value["url"], str):
        _fail(path, "a list object", value)
    for number, one in enumerate(value["data"]):
        _value(one, item, owner, f"{path}.data[{number}]")


def check_page(value: Mapping[str, Any], kind: type) -> None:
    """Raises Mismatch unless `value` is a list object of `kind`."""
    _list(value, kind, stripe.StripeObject, f"list of {kind.__name__}")


# --- requests


def _mapping(value: Any, params: type, path: str) -> None:
    if not isinstance(value, Mapping):
        _fail(path, "an object", value)
    fields = {name: (hint, owner) for name, hint, owner in _typed(params)}
    for name, given in value.items():
        if name not in fields:
            raise Mismatch(f"{path}.{name}: there is no such parameter")
        hint, owner = fields[name]
        _text(given, hint, owner, f"{path}.{name}")
    for name in getattr(params, "__required_keys__", ()):
        if name in fields and name not in value and get_origin(_resolved(*fields[name])) is not typing.NotRequired:
            raise Mismatch(f"{path}.{name}: is required")


def _typed(params: type) -> Iterator[tuple[str, Any, type]]:
    options = set(stripe.RequestOptions.__annotations__)
    for name, hint in params.__annotations__.items():
        if name not in options:
            yield name, hint, params


def _text(value: Any, hint: Any, owner: type, path: str) -> None:
    """`value` as a form brought it: text, a list of such, or a mapping."""
    hint = _resolved(hint, owner)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is typing.NotRequired:
        _text(value, arguments[0], owner, path)
    elif hint is Any:
        return
    elif origin in (Union, types.UnionType):
        reasons = []
        closed = any(get_origin(_resolved(a, owner)) is Literal for a in arguments)
        for argument in arguments:
            if closed and argument is str:
                continue
            try:
                _text(value, argument, owner, path)
            except Mismatch as mismatch:
                reasons.append(str(mismatch))
            else:
                return
        raise Mismatch(reasons[0])
    elif origin is Literal:
        if value not in arguments:
            _fail(path, f"one of {', '.join(map(str, arguments))}", value)
    elif origin is list:
        if not isinstance(value, list):
            _fail(path, "a list", value)
        for number, item in enumerate(value):
            _text(item, arguments[0], owner, f"{path}[{number}]")
    elif origin is dict:
        if not isinstance(value, Mapping):
            _fail(path, "an object", value)
    elif hasattr(hint, "__required_keys__"):  # a TypedDict, whichever module it is from
        _mapping(value, hint, path)
    elif not isinstance(value, str):
        _fail(path, getattr(hint, "__name__", hint), value)
    elif hint is bool and value not in ("true", "false"):
        _fail(path, "true or false", value)
    elif hint is int and not value.removeprefix("-").isdecimal():
        _fail(path, "a whole number", value)
