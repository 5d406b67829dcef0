"""`GET /openapi.json`: the routes of a service as OpenAPI 3.1, generated.

Schemas come from msgspec; every refusal has the one `Problem` schema; each guarded route says which proof
a caller has to show. Comes after the table of routes (`web.surface`, `web.userroutes`) and depends on nothing else;
it is made once, together with the app. (OpenAPI 3.1.0.)
"""

import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from holdfast.core.wire.problem import MEDIA_TYPE
from holdfast.core.wire.signature import HEADER
from holdfast.web.routes import Parameter, Route
from holdfast.web.trust import Trust

SCHEMAS = "#/components/schemas/{name}"
PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Of a rejected command: why, for programs."},
        "facts": {"type": "object", "description": "Of a rejected command: what it was decided on."},
        "errors": {
            "type": "array",
            "description": "Of invalid input: each path that does not fit, and why.",
            "items": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "transaction": {"type": "string", "description": "Of a pending command: ask /transactions/{tx} later."},
    },
}
REFUSALS: Mapping[str, str] = {
    "400": "The request cannot be read",
    "401": "The signature or token is missing or wrong",
    "404": "There is no such thing",
    "405": "The path does not take this method",
    "409": "The service decided against it, or the position is of another history",
    "413": "The body is too large",
    "415": "The media type is not taken",
    "421": "The frame is for another service",
    "422": "The input is invalid, or the idempotency key was used for something else",
    "500": "The handler failed; nothing was recorded",
    "503": "Busy or not available now; see Retry-After",
    "504": "Not known in time; ask with the same key, or for the transaction",
}
PROOFS: Mapping[str, Mapping[str, str]] = {
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": HEADER,
        "description": "t=SECONDS,v1=HEX: HMAC-SHA256 with the secret over time, method, path with query, body.",
    },
    "operator": {"type": "http", "scheme": "bearer", "description": "The operator's token."},
}
OBJECT = {"type": "object"}
TEXT: dict[str, Any] = {"type": "string"}


def document(title: str, owner: str, routes: Sequence[Route], trust: Trust) -> dict[str, Any]:
    """The OpenAPI document of a service that answers these routes."""
    types = [one for route in routes for one in _types(route)]
    schemas, components = msgspec.json.schema_components(types, ref_template=SCHEMAS)
    # The same class may occur several times; each of its schemas is the same.
    schema = {id(found): one for found, one in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema, trust)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": "1",
            "description": f"Owned by {owner}." if owner else "A service of a holdfast system.",
        },
        "paths": paths,
        "components": {
            "schemas": {**components, "Problem": PROBLEM},
            "securitySchemes": PROOFS,
            "responses": {
                f"Refusal{status}": {
                    "description": text,
                    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
                for status, text in REFUSALS.items()
            },
        },
    }


def _types(route: Route) -> list[Any]:
    """All types that a route names."""
    found = [route.body, *_members(route.answer), *(parameter.type for parameter in route.parameters)]
    return [one for one in found if one is not None]


def _members(answer: Any) -> tuple[Any, ...]:
    """The types of a union, each by itself: msgspec has no schema for several structs in one place."""
    return get_args(answer) if get_origin(answer) in (Union, UnionType) else (answer,)


def _operation(route: Route, schema: Mapping[int, Any], trust: Trust) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": route.summary, "tags": [route.tag], "parameters": _parameters(route, schema)}
    if route.name:
        found["operationId"] = route.name
    if route.body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema[id(route.body)]}}}
    proofs = trust.proofs(route.guard)
    if proofs:
        found["security"] = [{proof: []} for proof in proofs]
    refusals = {
        status: {"$ref": f"#/components/responses/Refusal{status}"} for status in REFUSALS if status != "401" or proofs
    }
    return found | {"responses": {**_answers(route, schema), **refusals}}


def _answers(route: Route, schema: Mapping[int, Any]) -> dict[str, Any]:
    """The answers by status: the first of them has the route's own type, the others are plain objects."""
    found: dict[str, Any] = {}
    for status, text in route.statuses.items():
        first = not found
        content = {route.media_type if first else "application/json": {"schema": _answer(route, schema, first)}}
        found[str(status)] = {"description": text, "content": content}
    return found


def _answer(route: Route, schema: Mapping[int, Any], first: bool) -> Any:
    if route.answer is None or not first:
        return OBJECT
    several = [schema[id(one)] for one in _members(route.answer)]
    return several[0] if len(several) == 1 else {"anyOf": several}


def _parameters(route: Route, schema: Mapping[int, Any]) -> list[dict[str, Any]]:
    """The path's parameters in their order, then the others; a path parameter without a declaration is text."""
    declared = {one.name: one for one in route.parameters if one.place == "path"}
    named: list[str] = re.findall(r"\{(\w+)\}", route.path)
    path = [declared.get(name) or Parameter(name, place="path") for name in named]
    return [_parameter(one, schema) for one in (*path, *(one for one in route.parameters if one.place != "path"))]


def _parameter(one: Parameter, schema: Mapping[int, Any]) -> dict[str, Any]:
    on_path = one.place == "path"
    found = schema.get(id(one.type), TEXT)
    if on_path and found == TEXT:
        found = TEXT | {"minLength": 1}
    described = {"description": one.text} if one.text else {}
    return {"name": one.name, "in": one.place, "required": on_path, "schema": found} | described
