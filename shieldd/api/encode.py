"""Answers to JSON values, by the rules that `answers.py` states; compiled once per type, since streams are hot.

The same walk gives the JSON schema (2020-12) of an answer, so that `/openapi.json` cannot drift from what is sent.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, cast, get_args, get_origin

from shieldd.api.answers import INSTANT
from shieldd.model.decision import Severity
from shieldd.model.names import path_json

Encoder = Callable[[Any], Any]
Schema = dict[str, Any]
MILLISECOND_NS: Final = 1_000_000


def rfc3339(at_ns: int) -> str | None:
    """Wall clock, ns, as UTC with milliseconds; None for 0 (has not happened)."""
    if at_ns <= 0:
        return None
    seconds, rest_ns = divmod(at_ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest_ns // MILLISECOND_NS:03d}Z"


def encode(answer: object) -> Any:
    """A JSON value for an answer (a dataclass of `answers.py`)."""
    return _of_class(cast("type", type(answer)))(answer)


def dumps(answer: object, **extra: object) -> bytes:
    """One line of JSON for an answer, `extra` keys first; no newline inside, none at the end."""
    value = {**extra, **cast("dict[str, Any]", encode(answer))}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def json_name(name: str, hint: object) -> str:
    """Key of a field: instants lose their `_ns`."""
    return name.removesuffix("_ns") if _is_instant(hint) else name


@cache
def _of_class(cls: type) -> Encoder:
    hints = typing.get_type_hints(cls, include_extras=True)
    plain: list[tuple[str, str, Encoder]] = []
    names: list[str] = []
    for field in fields(cls):
        hint = hints[field.name]
        if hint is bytes:
            names.append(field.name)
        plain.append((field.name, json_name(field.name, hint), _encoder(hint)))

    def encode_class(value: Any) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for attribute, key, of in plain:
            if attribute in names:
                out.update(path_json(getattr(value, attribute), key))
            else:
                out[key] = of(getattr(value, attribute))
        return out

    return encode_class


def _same(value: Any) -> Any:
    return value


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124


def _severity(value: Any) -> Any:
    return Severity(value).name.lower()


def _enum(value: Any) -> Any:
    return value.value


def _of_object(value: Any) -> Any:
    """A value of unknown type (configuration): what JSON has stays, names and paths are made printable."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, bytes):
        return path_json(value)["path"]
    if isinstance(value, Mapping):
        return {str(key): _of_object(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_of_object(inner) for inner in value]
    if isinstance(value, Enum):
        return value.value
    return str(value)


def _is_instant(hint: object) -> bool:
    return get_origin(hint) is Annotated and INSTANT in get_args(hint)[1:]


def _encoder(hint: Any) -> Encoder:
    if _is_instant(hint):
        return rfc3339
    if is_dataclass(hint):
        return _of_class(cast("type", hint))
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        item = _encoder(arguments[0])
        return lambda values: [item(value) for value in values]
    if origin in (UnionType, typing.Union):
        (inner,) = [one for one in arguments if one is not NoneType]
        of = _encoder(inner)
        return lambda value: None if value is None else of(value)
    if origin is not None and issubclass(origin, Mapping):
        item = _encoder(arguments[1])
        return lambda values: {str(key): item(value) for key, value in values.items()}
    if hint is Severity:
        return _severity
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum
    if hint is float:
        return _finite
    return _of_object if hint is object else _same


def schema_of(cls: type, definitions: dict[str, Schema]) -> Schema:
    """JSON schema of an answer; the class and all that it holds are added to `definitions`."""
    if cls.__name__ not in definitions:
        definitions[cls.__name__] = {}  # first, so that a class may hold itself
        hints = typing.get_type_hints(cls, include_extras=True)
        properties: dict[str, Schema] = {}
        required: list[str] = []
        for field in fields(cls):
            hint = hints[field.name]
            key = json_name(field.name, hint)
            properties[key] = _schema(hint, definitions)
            required.append(key)
            if hint is bytes:
                properties[f"{key}_b64"] = {"type": "string", "contentEncoding": "base64"}
        text = (cls.__doc__ or "").strip()
        definitions[cls.__name__] = {
            "type": "object",
            "description": text,
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
    return {"$ref": f"#/components/schemas/{cls.__name__}"}


_SIMPLE: Final[dict[object, Schema]] = {
    bytes: {"type": "string"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},
    object: {},
}


def _schema(hint: Any, definitions: dict[str, Schema]) -> Schema:
    if _is_instant(hint):
        return {"type": ["string", "null"], "format": "date-time"}
    if is_dataclass(hint):
        return schema_of(cast("type", hint), definitions)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin in (UnionType, typing.Union):
        (inner,) = [one for one in arguments if one is not NoneType]
        return {"anyOf": [_schema(inner, definitions), {"type": "null"}]}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if hint is Severity:
        return {"type": "string", "enum": [one.name.lower() for one in Severity]}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"type": "string", "enum": [one.value for one in hint]}
    return dict(_SIMPLE[hint])
