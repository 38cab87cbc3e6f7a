"""What Google publishes of the Identity Toolkit's requests and answers, so that our double cannot merely agree with us.

identitytoolkit.json is cut from Google's discovery document: the methods the double has, and what they refer to.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("identitytoolkit.json")

# Sent by every client library and taken by the service, but published for some of the methods only.
_TAKEN_ALL_THE_SAME = {"returnSecureToken"}


class Unpublished(ValueError):
    """A request or an answer that the published document does not know; the message names the field."""


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return document


def methods() -> Mapping[str, Mapping[str, str]]:
    """The published methods by name: {path, httpMethod, request, response}."""
    found: Mapping[str, Mapping[str, str]] = _document()["methods"]
    return found


def check_request(method: str, body: Mapping[str, Any]) -> None:
    """Raises Unpublished where `method` knows no such request."""
    schema = methods()[method]["request"]
    _check({"$ref": schema}, {k: v for k, v in body.items() if k not in _TAKEN_ALL_THE_SAME}, "")


def check_answer(method: str, body: Mapping[str, Any]) -> None:
    """Raises Unpublished where `method` gives no such answer."""
    _check({"$ref": methods()[method]["response"]}, body, "")


def _check(schema: Mapping[str, Any], value: Any, at: str) -> None:
    if "$ref" in schema:
        schema = _document()["schemas"][schema["$ref"]]
    match schema["type"]:
        case "object":
            _expect(isinstance(value, dict), at, "an object")
            own, rest = schema.get("properties", {}), schema.get("additionalProperties")
            for name, part in value.items():
                if name not in own and rest is None:
                    raise Unpublished(f'Unknown name "{name}"' + (f" at '{at}'" if at else "") + ": Cannot find field.")
                _check(own.get(name, rest), part, f"{at}.{name}".lstrip("."))
        case "array":
            _expect(isinstance(value, list), at, "a list")
            for number, part in enumerate(value):
                _check(schema["items"], part, f"{at}[{number}]")
        case "boolean":
            _expect(isinstance(value, bool), at, "true or false")
        case "integer" | "number":
            _expect(isinstance(value, int | float) and not isinstance(value, bool), at, "a number")
        case "string" if "int64" in schema.get("format", ""):
            # proto3's JSON takes both and writes text
            _expect(str(value).removeprefix("-").isdecimal() and not isinstance(value, bool), at, "a whole number")
        case "string":
            _expect(isinstance(value, str), at, "text")
            if "enum" in schema:
                _expect(value in schema["enum"], at, f"one of {', '.join(schema['enum'])}")


def _expect(holds: bool, at: str, what: str) -> None:
    if not holds:
        raise Unpublished(f"Invalid value at '{at}': expected {what}")
