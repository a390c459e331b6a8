"""`/openapi.json`, made from the table of calls and their structs."""

from __future__ import annotations

import http
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from lineshaft.wire import SESSION_PATH, SUBPROTOCOL, Call, Enqueue, ErrorBody
from lineshaft.wire.grammar import Identifier, KeyId, Name, TaskId
from lineshaft.wire.messages import Raw

_ERRORS = (400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 421, 422, 429, 431, 503)
_REFERENCE = "#/components/schemas/{name}"


def describe(calls: Iterable[Call], *, version: str) -> dict[str, Any]:
    """Return the protocol as an OpenAPI 3.1 document."""
    calls = list(calls)
    messages = [
        message
        for call in calls
        for message in (call.body, call.answer, call.variant)
        if _is_message(message)
    ]
    _, components = msgspec.json.schema_components(
        [*messages, ErrorBody], schema_hook=_schema_of_raw, ref_template=_REFERENCE
    )
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    paths[SESSION_PATH] = {"get": _SESSION}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lineshaft",
            "version": version,
            "description": "A durable task coordinator: it holds tasks and hands them out under leases.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"apiKey": []}, {}],
        "tags": [{"name": section} for section in dict.fromkeys(call.section for call in calls)],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                "Error": {
                    "description": "Why not: "
                    + ", ".join(f"{status} {http.HTTPStatus(status).phrase}" for status in _ERRORS)
                    + ". 429 and 503 carry Retry-After.",
                    "content": {
                        "application/json": {"schema": {"$ref": _REFERENCE.format(name="ErrorBody")}}
                    },
                }
            },
            "securitySchemes": {
                "apiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`ApiKey …`; needed as soon as a key was made",
                }
            },
        },
    }


_SESSION = {
    "operationId": "session",
    "tags": ["workers"],
    "summary": f"Open a push session: a WebSocket with the subprotocol {SUBPROTOCOL}.",
    "description": "Scope: work.",
    "responses": {
        "101": {"description": "Switching Protocols"},
        "default": {"$ref": "#/components/responses/Error"},
    },
}


def _is_message(message: Any) -> bool:
    return message is not None and message not in (str, dict)


def _schema_of_raw(kind: type) -> dict[str, Any]:
    if kind is Raw:
        return {"description": "any JSON value"}
    raise NotImplementedError


def _schema(message: Any) -> dict[str, Any]:
    schema, _ = msgspec.json.schema_components([message], schema_hook=_schema_of_raw, ref_template=_REFERENCE)
    return dict(schema[0])


def _operation(call: Call) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": call.name,
        "tags": [call.section],
        "summary": call.does,
        "parameters": _parameters(call),
        "responses": _responses(call),
    }
    if call.scope:
        operation["description"] = f"Scope: {call.scope.replace('|', ' or ')}."
    else:
        operation["security"] = []
    if call.body is not None:
        content = {"application/json": {"schema": _schema(call.body)}}
        if call.body == list[Enqueue]:
            content["application/x-ndjson"] = {"schema": {"type": "string", "description": "a task a line"}}
        operation["requestBody"] = {"required": not _may_be_empty(call.body), "content": content}
    return operation


def _may_be_empty(body: Any) -> bool:
    try:
        msgspec.json.decode(b"{}", type=body)
    except msgspec.ValidationError:
        return False
    return True


def _parameters(call: Call) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if "{id}" in call.path:
        found.append({"name": "id", "in": "path", "required": True, "schema": _parameter_schema(call.path)})
    if call.query is not None:
        for field in msgspec.structs.fields(call.query):
            schema, _ = msgspec.json.schema_components([field.type], ref_template=_REFERENCE)
            found.append({"name": field.encode_name, "in": "query", "schema": _as_text(dict(schema[0]))})
    return found


_PARAMETERS = {"/_tasks/": TaskId, "/_queues/": Name, "/_workers/": Identifier, "/_keys/": KeyId}


def _parameter_schema(path: str) -> dict[str, Any]:
    for start, kind in _PARAMETERS.items():
        if path.startswith(start):
            return _schema(kind)
    return {"type": "string"}


def _as_text(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out what cannot stand in a query: null, and lists (several words have commas between)."""
    choices = [choice for choice in schema.get("anyOf", []) if choice.get("type") not in ("null", "array")]
    if not choices:
        return schema
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _responses(call: Call) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status in call.statuses:
        responses[str(status)] = {"description": http.HTTPStatus(status).phrase}
        if status != 204:
            responses[str(status)]["content"] = _content(call)
    responses["default"] = {"$ref": "#/components/responses/Error"}
    return responses


def _content(call: Call) -> dict[str, Any]:
    media = re.sub(";.*", "", call.media)
    if call.answer is str:
        return {media: {"schema": {"type": "string"}}}
    if call.answer is dict:
        return {media: {"schema": {"type": "object"}}}
    schema = _schema(call.answer)
    if call.variant is not None:
        schema = {"anyOf": [schema, _schema(call.variant)]}
    content = {media: {"schema": schema}}
    if call.stream is not None:
        content[call.stream] = {"schema": {"type": "string", "description": "each `data:` is one change"}}
    return content
