"""The API as its own description tells it: every answer fits its schema, whatever is asked, valid or not."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from shieldd.api.access import Permission
from shieldd.api.openapi import openapi
from shieldd.api.routes import ROUTES, Route, Shape
from shieldd.errors import CODES
from tests.api.conftest import Served, serve

DOCUMENT = openapi(ROUTES, "0.1.0")
PROBE = [route for route in ROUTES if route.shape is not Shape.FOLLOW]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all examples; actions change it, which is part of the game."""
    running = serve(tmp_path_factory.mktemp("api"))
    yield running
    running.server.stop()


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator that knows the document's components."""
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that fit a schema (the part of JSON schema that our requests use)."""
    if "$ref" in schema:
        return values(DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    if "anyOf" in schema:
        return st.one_of(*(values(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum", 0), min(schema.get("maximum", 100), 10**19))
        case "null":
            return st.none()
        case "array":
            return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=4)
        case "object":
            needed = set(schema.get("required", ()))
            fixed = {name: values(one) for name, one in schema["properties"].items() if name in needed}
            free = {name: values(one) for name, one in schema["properties"].items() if name not in needed}
            return st.fixed_dictionaries(fixed, optional=free)
        case "string":
            return texts(schema)
    return st.none()


def texts(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    """Strings by pattern; paths mostly of files that exist."""
    known = ["/srv/phi/scan.dcm", "/srv/phi/old.csv.shield", "/srv/phi/none", "/srv/phi", "/", "/etc/passwd"]
    if schema.get("contentEncoding") == "base64":
        return st.sampled_from(["L3Nydi9waGkvAf8=", "L3Nydi9waGkvc2Nhbi5kY20="])
    pattern = schema.get("pattern", "")
    if pattern == "^/":
        return st.sampled_from(known) | st.from_regex(r"\A/[a-z]{1,8}(/[^/\x00]{1,12}){0,3}\Z")
    if pattern:
        ids = ["i1a2b3c4d5e6", "q1a2b3c4", "q1a2", "files", "write"]
        return st.sampled_from(ids).filter(lambda one: _fits(schema, one)) | st.from_regex(pattern, fullmatch=True)
    return st.text(max_size=min(schema.get("maxLength", 50), 50))


def _fits(schema: dict[str, Any], value: object) -> bool:
    return Draft202012Validator(schema).is_valid(value)


def operation(route: Route) -> dict[str, Any]:
    """The description of a route."""
    found: dict[str, Any] = DOCUMENT["paths"][route.path][route.method.lower()]
    return found


def send(
    served: Served, route: Route, inside: dict[str, Any], query: dict[str, Any], data: bytes | None
) -> tuple[int, Any]:
    """Ask as the description says."""
    target = route.path
    for name, value in inside.items():
        target = target.replace(f"{{{name}}}", quote(str(value), safe=""))
    pairs = [f"{quote(key)}={quote(str(value))}" for key, value in query.items() if value is not None]
    if pairs:
        target += "?" + "&".join(pairs)
    return served.ask(route.method, target, data)


def check(route: Route, status: int, answer: Any) -> None:
    """Whatever came back is described: the answer's schema, or a problem with a code of the table."""
    if status != 200:
        validator(DOCUMENT["components"]["schemas"]["Problem"]).validate(answer)
        assert answer["status"] == status
        assert CODES[answer["code"]].http == status
        assert status != 500, answer
        return
    (content,) = operation(route)["responses"]["200"]["content"].values()
    if route.shape is Shape.JSON:
        validator(content["schema"]).validate(answer)
    elif route.shape is Shape.ACTION:
        lines = [json.loads(line) for line in answer.splitlines()]
        assert lines[0]["type"] == "begun"
        assert lines[-1]["type"] == "end"
        for line in lines[1:-1]:
            assert line.pop("type") == "file"
            validator(content["schema"]).validate(line)


@pytest.mark.parametrize("route", PROBE, ids=lambda route: f"{route.method} {route.path}")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_valid_requests_get_described_answers(shared: Served, route: Route, data: st.DataObject) -> None:
    described = operation(route)
    inside: dict[str, Any] = {}
    query: dict[str, Any] = {}
    for parameter in described.get("parameters", ()):
        value = data.draw(values(parameter["schema"]), parameter["name"])
        (inside if parameter["in"] == "path" else query)[parameter["name"]] = value
    body = None
    if "requestBody" in described:
        value = data.draw(values(described["requestBody"]["content"]["application/json"]["schema"]), "body")
        body = json.dumps(value).encode()
    query = {key: value["path_b64"] if isinstance(value, dict) else value for key, value in query.items()}
    status, answer = send(shared, route, inside, query, body)
    check(route, status, answer)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("route", [one for one in PROBE if one.method == "POST"], ids=lambda route: route.path)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_invalid_bodies_get_described_problems(shared: Served, route: Route, data: st.DataObject) -> None:
    schema = operation(route)["requestBody"]["content"]["application/json"]["schema"]
    body = data.draw(ANYTHING.filter(lambda value: not validator(schema).is_valid(value)))
    status, answer = send(shared, route, {"id": "i1a2b3c4d5e6"}, {}, json.dumps(body).encode())
    assert 400 <= status < 500
    check(route, status, answer)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    target=st.text(string.printable.translate({ord(c): None for c in string.whitespace}), max_size=60),
    method=st.sampled_from(["GET", "POST"]),
    body=st.none() | st.binary(max_size=200),
)
def test_any_target_with_any_bytes_gets_a_described_answer(
    shared: Served, target: str, method: str, body: bytes | None
) -> None:
    status, answer = shared.ask(method, f"/{target}", body)
    if status != 200:
        assert answer["code"] in CODES
        assert status < 500


@pytest.mark.parametrize("route", [one for one in ROUTES if one.shape is Shape.FOLLOW], ids=lambda route: route.path)
def test_streamed_records_fit_their_schema(served: Served, route: Route) -> None:
    with served.connect() as sock:
        sock.sendall(f"GET {route.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        raw = b""
        while raw.count(b"\n{") < 1 and b'"seq":1' not in raw:
            raw += sock.recv(65536)
    line = next(part for part in raw.split(b"\r\n") if part.startswith(b"{")).splitlines()[0]
    record = json.loads(line)
    assert record.pop("type") in ("event", "alert")
    (content,) = operation(route)["responses"]["200"]["content"].values()
    validator(content["schema"]).validate(record)


def test_the_document_is_what_the_server_serves(served: Served) -> None:
    assert served.ask("GET", "/openapi.json") == (200, DOCUMENT)


def test_the_document_holds_together() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = [one["operationId"] for path in DOCUMENT["paths"].values() for one in path.values()]
    assert len(names) == len(set(names)) == len(ROUTES)
    text = json.dumps(DOCUMENT)
    for reference in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in DOCUMENT["components"]["schemas"]


def test_every_route_names_one_permission_and_every_permission_has_a_route() -> None:
    assert {route.permission for route in ROUTES} == set(Permission)
    for route in ROUTES:
        assert operation(route)["x-permission"] == route.permission.value
