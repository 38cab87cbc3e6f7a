"""Stripe's way of writing nested parameters: `items[0][price]=p&metadata[k]=v`."""

import itertools
import re
from collections.abc import Iterable
from typing import Any

_PART = re.compile(r"\[([^\]]*)\]")


def parsed(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The parameters as a tree whose leaves are text; numbered and empty brackets make lists.

    Raises ValueError where a name is used as two different things.
    """
    tree: dict[str, Any] = {}
    for name, value in pairs:
        path = [name.partition("[")[0], *_PART.findall(name)]
        place = tree
        for step, following in itertools.pairwise(path):
            place = place.setdefault(_step(step, place), {})
            if not isinstance(place, dict):
                raise ValueError(f"{name}: {following!r} is below a value")
        place[_step(path[-1], place)] = value
    return {name: _listed(value) for name, value in tree.items()}


def _step(step: str, place: dict[str, Any]) -> str:
    return step or str(len(place))


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _listed(one) for name, one in value.items()}
    if inner and all(name.isdecimal() for name in inner):
        return [inner[name] for name in sorted(inner, key=int)]
    return inner
