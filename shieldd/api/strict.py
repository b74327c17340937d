"""Bytes from the socket to a request model: strict JSON, bounded depth, no duplicate keys, no unknown ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

from pydantic import ValidationError

from shieldd.api.requests import Request
from shieldd.errors import ShieldError

BODY_MAX: Final = 1 << 20  # bytes; 10,000 paths of 100 bytes fit, a client with more sends more requests
DEPTH_MAX: Final = 32  # our deepest request has four levels; the parser would recurse
QUERY_FIELDS_MAX: Final = 32
R = TypeVar("R", bound=Request)


def check_depth(body: bytes) -> None:
    """Refuse nesting beyond `DEPTH_MAX` before any parser recurses into it.

    Raises:
        ShieldError: `api.depth`.
    """
    depth = 0
    inside = escaped = False
    for byte in body:
        if inside:
            if escaped:
                escaped = False
            elif byte == 0x5C:  # backslash
                escaped = True
            elif byte == 0x22:  # quote
                inside = False
        elif byte == 0x22:
            inside = True
        elif byte in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise ShieldError("api.depth")
        elif byte in b"]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ShieldError("api.json", "a key stands twice in one object")
    return out


def _no_constant(name: str) -> Any:
    raise ShieldError("api.json", f"{name} is not JSON")


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object (RFC 8259, UTF-8, no BOM); an empty body stands for `{}`.

    Raises:
        ShieldError: `api.json`, `api.depth`.
    """
    if not body:
        return {}
    check_depth(body)
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ShieldError("api.json", "body is not UTF-8") from error
    except (json.JSONDecodeError, ValueError) as error:
        # ValueError: an integer of more digits than the interpreter converts
        where = f" at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise ShieldError("api.json", f"not JSON{where}") from error
    if not isinstance(value, dict):
        raise ShieldError("api.json", "body is not an object")
    return value


def parse_query(query: bytes) -> dict[str, Any]:
    """Parameters of a query string; each at most once. Bytes that are not UTF-8 arrive as `{"path_b64"}` would.

    Raises:
        ShieldError: `api.invalid`.
    """
    out: dict[str, Any] = {}
    if not query:
        return out
    parts = query.split(b"&")
    if len(parts) > QUERY_FIELDS_MAX:
        raise ShieldError("api.invalid", "too many parameters")
    for part in parts:
        name, _, value = part.partition(b"=")
        key = unquote_to_bytes(name.replace(b"+", b" ")).decode("utf-8", "replace")
        if key in out:
            raise ShieldError("api.invalid", "a parameter stands twice in the query")
        out[key] = unquote_to_bytes(value.replace(b"+", b" ")).decode("utf-8", "surrogateescape")
    return out


def from_json(model: type[R], body: bytes, path_params: Mapping[str, str]) -> R:
    """Validate a POST: body and path parameters together; strict types.

    Raises:
        ShieldError: `api.json`, `api.depth`, `api.invalid`.
    """
    value = parse_object(body)
    if value.keys() & path_params.keys():
        raise ShieldError("api.invalid", "a parameter of the path stands in the body too")
    try:
        return model.model_validate_json(json.dumps({**value, **path_params}), strict=True)
    except ValidationError as error:
        raise ShieldError("api.invalid", _sentence(error)) from error


def from_query(model: type[R], query: bytes, path_params: Mapping[str, str]) -> R:
    """Validate a GET: query and path parameters, numbers as text.

    Raises:
        ShieldError: `api.invalid`.
    """
    value = parse_query(query)
    if value.keys() & path_params.keys():
        raise ShieldError("api.invalid", "a parameter of the path stands in the query too")
    try:
        return model.model_validate({**value, **path_params})
    except ValidationError as error:
        raise ShieldError("api.invalid", _sentence(error)) from error


def _sentence(error: ValidationError) -> str:
    """The first fault, by place and rule; never the value (it may be a patient's name)."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(str(part) for part in faults[0]["loc"]) or "request"
    text = faults[0]["msg"].removeprefix("Value error, ")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where[:80]!r}: {text[:1].lower()}{text[1:]}{more}"
