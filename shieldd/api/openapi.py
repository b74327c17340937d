"""OpenAPI 3.1 from the route table: what is served and what is described cannot differ."""

from __future__ import annotations

from typing import Any, Final

from shieldd.api.encode import schema_of
from shieldd.api.problem import MEDIA_TYPE, SCHEMA
from shieldd.api.routes import Route, Shape

_MEDIA: Final = {
    Shape.JSON: "application/json",
    Shape.ACTION: "application/x-ndjson",
    Shape.FOLLOW: "application/x-ndjson",
    Shape.CONTENT: "application/octet-stream",
    Shape.METRICS: "text/plain",
    Shape.OPENAPI: "application/json",
}
_NOTE: Final = {
    Shape.ACTION: "one JSON object a line: {type: begun, total}, {type: file, …} each, {type: alive} while it takes "
    "long, then {type: end, done, failed, skipped, pending}, or a problem with type: problem",
    Shape.FOLLOW: "one JSON object a line: records with type: event or alert, {type: missed, count} where this reader "
    "was too slow, {type: alive} while nothing happens",
}


def openapi(routes: tuple[Route, ...], version: str) -> dict[str, Any]:
    """The description of a route table."""
    definitions: dict[str, Any] = {"Problem": SCHEMA}
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, definitions)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "shieldd",
            "version": version,
            "license": {"name": "MIT", "identifier": "MIT"},
            "description": "Served on a Unix socket; the kernel's credentials of the caller decide what is allowed.",
        },
        "servers": [{"url": "http://shieldd"}],
        "paths": paths,
        "components": {"schemas": definitions},
    }


def _operation(route: Route, definitions: dict[str, Any]) -> dict[str, Any]:
    model = route.request.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions.update(model.pop("$defs", {}))
    properties: dict[str, Any] = model.get("properties", {})
    required = set(model.get("required", ()))
    in_path = {name for name in properties if f"{{{name}}}" in route.path}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": properties[name]} for name in sorted(in_path)
    ]
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{route.path.replace('/', '_').replace('{', '').replace('}', '')}",
        "summary": route.summary,
        "x-permission": route.permission.value,
        "responses": {
            "200": {
                "description": _NOTE.get(route.shape, "ok"),
                "content": {_MEDIA[route.shape]: {"schema": _answer(route, definitions)}},
            },
            "default": {
                "description": "refused or failed",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    if route.method == "GET":
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": schema}
            for name, schema in properties.items()
            if name not in in_path
        ]
    else:
        body = {name: schema for name, schema in properties.items() if name not in in_path}
        needed = sorted(required - in_path)
        schema = {"type": "object", "properties": body, "required": needed, "additionalProperties": False}
        operation["requestBody"] = {"required": bool(needed), "content": {"application/json": {"schema": schema}}}
    if parameters:
        operation["parameters"] = parameters
    return operation


def _answer(route: Route, definitions: dict[str, Any]) -> dict[str, Any]:
    if route.answer is not None:
        return schema_of(route.answer, definitions)
    return {} if route.shape is Shape.OPENAPI else {"type": "string"}
