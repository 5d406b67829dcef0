"""`GET /openapi.json`: what a service answers, as OpenAPI 3.1, generated from its messages, views and routes.

Schemas come from msgspec; every refusal is the one `Problem` schema. Comes after the service is compiled; made once,
when the app is. (OpenAPI 3.1.0.)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast.core.declare.message import MessageType
from holdfast.core.declare.service import Service
from holdfast.core.wire.cloudevent import BATCH_TYPE, CloudEvent
from holdfast.core.wire.problem import MEDIA_TYPE
from holdfast.web.commands import WAIT_SECONDS_MAX
from holdfast.web.events import EVENTS_DEFAULT, EVENTS_MAX
from holdfast.web.userroutes import UserRoute

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
    "405": "The method is not taken here",
    "409": "The service decided against it, or the position is of another history",
    "413": "The body is too large",
    "415": "The media type is not taken",
    "422": "The input is invalid, or the idempotency key was used for something else",
    "500": "The handler failed; nothing was recorded",
    "503": "Busy or not available now; see Retry-After",
    "504": "Not known in time; ask with the same key, or for the transaction",
}


def document(service: Service, users: Sequence[UserRoute]) -> dict[str, Any]:
    """The OpenAPI document of a service."""
    commands = [message for message in service.contract.by_name.values() if message.kind == "command"]
    answers = [answer for message in commands for answer in message.answers]
    views = {name: view.shape.struct for name, view in service.views.items()}
    bodies = [user.body for user in users if user.body is not None]
    types: list[Any] = [*(message.cls for message in commands), *answers, *views.values(), *bodies, CloudEvent]
    schemas, components = msgspec.json.schema_components(types, ref_template=SCHEMAS)
    # The same class may stand there several times: each of its schemas says the same.
    schema = {id(found): one for found, one in zip(types, schemas, strict=True)}
    paths: dict[str, Any] = {}
    for message in commands:
        paths[f"/commands/{message.stored}"] = {"post": _command(message, schema)}
    for name, struct in views.items():
        path = [_parameter("key", "path", {"type": "string", "minLength": 1})]
        paths[f"/views/{name}/{{key}}"] = {"get": _view(name, schema[id(struct)], path)}
    for user in users:
        paths.setdefault(user.route.path, {})[user.route.method.lower()] = _user(user, schema, service)
    return {
        "openapi": "3.1.0",
        "info": {"title": service.name, "version": "1", "description": _description(service)},
        "paths": paths | _own(schema[id(CloudEvent)]),
        "components": {
            "schemas": {**components, "Problem": PROBLEM},
            "responses": {
                f"Refusal{status}": {
                    "description": text,
                    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
                for status, text in REFUSALS.items()
            },
        },
    }


def _description(service: Service) -> str:
    return f"Owned by {service.owner}." if service.owner else "A service of a holdfast system."


def _operation(
    summary: str, ok: Mapping[str, Any], *, parameters: Sequence[Any] = (), body: Any = None, tag: str
) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": summary, "tags": [tag], "parameters": list(parameters)}
    if body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    refusals = {status: {"$ref": f"#/components/responses/Refusal{status}"} for status in REFUSALS}
    return found | {"responses": {**ok, **refusals}}


def _answer(schema: Any, text: str = "What was asked for", kind: str = "application/json") -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": schema}}}


def _parameter(name: str, where: str, schema: Any, text: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "in": where, "required": where == "path", "schema": schema}
    return found | ({"description": text} if text else {})


def _asking() -> list[dict[str, Any]]:
    label = {
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "pattern": "^[\\x21-\\x7e]([\\x20-\\x7e]*[\\x21-\\x7e])?$",
    }
    return [
        _parameter("Idempotency-Key", "header", label, "The same key gets the recorded answer."),
        _parameter("X-Correlation-Id", "header", label, "A label that all that follows carries."),
        _parameter(
            "Prefer", "header", {"type": "string"},
            f"respond-async: a 202 at once; wait=SECONDS (at most {WAIT_SECONDS_MAX:g}): how long to wait.",
        ),
    ]  # fmt: skip


def _command(message: MessageType, schema: Mapping[int, Any]) -> dict[str, Any]:
    answers = [schema[id(answer)] for answer in message.answers]
    ok = {
        "200": _answer(answers[0] if len(answers) == 1 else {"anyOf": answers}, "The event that accepts it"),
        "202": _answer({"type": "object"}, "Taken; Location says where its outcome will be"),
    }
    text = (message.cls.__doc__ or message.cls.__name__).strip().splitlines()[0]
    body = schema[id(message.cls)]
    return _operation(text, ok, parameters=_asking(), body=body, tag="commands")


def _view(name: str, schema: Any, path: Sequence[Any]) -> dict[str, Any]:
    parameters = [
        *path,
        _parameter(
            "transaction", "query", {"type": "string"}, "Wait until the view has all of this committed transaction."
        ),
        _parameter("at_least", "query", {"type": "string"}, "service@position[,..]: wait until the view has seen it."),
        _parameter("wait", "query", {"type": "number", "minimum": 0}, "Seconds to wait for it."),
    ]
    return _operation(f"One row of {name}", {"200": _answer(schema, "The row")}, parameters=parameters, tag="views")


def _user(user: UserRoute, schema: Mapping[int, Any], service: Service) -> dict[str, Any]:
    path = [_parameter(name, "path", _schema_of(user.hints[name])) for name in user.names]
    text = (user.route.function.__doc__ or user.route.function.__name__).strip().splitlines()[0]
    if user.route.method == "GET":
        return _view(text, {}, path) | {"summary": text}
    ok = {"200": _answer({"type": "object"}, "The event that accepts it"), "202": _answer({"type": "object"}, "Taken")}
    body = schema[id(user.body)] if user.body is not None else None
    return _operation(text, ok, parameters=[*path, *_asking()], body=body, tag=service.name)


def _schema_of(hint: Any) -> dict[str, Any]:
    found = msgspec.json.schema(hint, ref_template=SCHEMAS)
    return {"type": "string", "minLength": 1} if found == {"type": "string"} else found


def _own(event: Any) -> dict[str, Any]:
    """What every service answers; `/exchange` and `/ops` are described in docs/http.md."""
    number = {"type": "integer", "minimum": 0}
    feed = [
        _parameter("after", "query", number, "Position after which to begin."),
        _parameter("limit", "query", {**number, "maximum": EVENTS_MAX, "default": EVENTS_DEFAULT}),
        _parameter("types", "query", {"type": "string"}, "Stored types, separated by commas; none: all."),
        _parameter("wait", "query", {"type": "number", "minimum": 0, "maximum": 1}, "Seconds to wait for the first."),
        _parameter("incarnation", "query", {"type": "string"}, "Of the position: Holdfast-Incarnation of its page."),
    ]
    any_ = {"type": "object"}
    tx = [_parameter("tx", "path", {"type": "string", "minLength": 1})]
    batch = _answer({"type": "array", "items": event}, "Events in commit order", BATCH_TYPE)
    return {
        "/events": {"get": _operation("The feed", {"200": batch}, parameters=feed, tag="feed")},
        "/transactions/{tx}": {
            "get": _operation("A command's outcome", {"200": _answer(any_)}, parameters=tx, tag="commands")
        },
        "/healthz": {"get": _operation("The process lives", {"200": _answer(any_)}, tag="health")},
        "/readyz": {"get": _operation("The service takes work", {"200": _answer(any_)}, tag="health")},
    }
