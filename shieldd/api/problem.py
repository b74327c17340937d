"""Errors as `application/problem+json` (RFC 9457), with our stable `code` and the next command as `hint`."""

from __future__ import annotations

import json
from typing import Any, Final

from shieldd.errors import CODES, ShieldError
from shieldd.model.names import path_json

MEDIA_TYPE: Final = "application/problem+json"


def problem(error: ShieldError) -> dict[str, Any]:
    """The JSON value of an error; it never holds file content or key material, as no `ShieldError` does."""
    body: dict[str, Any] = {
        "type": f"urn:shieldd:error:{error.code}",
        "title": CODES[error.code].title,
        "status": error.http_status,
        "detail": error.message,
        "code": error.code,
        "hint": error.hint,
    }
    if error.path is not None:
        body.update(path_json(error.path))
    return body


def problem_bytes(error: ShieldError) -> bytes:
    """The same as one line of JSON."""
    return json.dumps(problem(error), ensure_ascii=False, separators=(",", ":")).encode()


SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "An error (RFC 9457). `code` is stable, `hint` the next command or empty.",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(CODES)},
        "hint": {"type": "string"},
        "path": {"type": "string"},
        "path_b64": {"type": "string", "contentEncoding": "base64"},
    },
    "required": ["type", "title", "status", "detail", "code", "hint"],
    "additionalProperties": False,
}
