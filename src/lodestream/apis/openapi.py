"""The OpenAPI 3.1 document, made from the table of endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lodestream.apis.problems import PROBLEM_TYPE, TITLES
from lodestream.apis.routing import PUBLIC, SIGNED_IN, Body, Component, Endpoint, Parameter, Reply, Shape
from lodestream.model.access import Principal
from lodestream.version import VERSION

PROBLEM = Component("Problem", {
    "type": "object", "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {"anyOf": [
                {
                    "type": "object", "required": ["record", "reasons"],
                    "properties": {
                        "record": {"type": "integer", "description": "Index in the body, from 0."},
                        "reasons": {"type": "array", "items": {"type": "string"}},
                    },
                },
                {
                    "type": "object", "required": ["at", "reason"],
                    "properties": {
                        "at": {"type": "string", "description": "Where in the body, such as `parameters.0`."},
                        "reason": {"type": "string"},
                    },
                },
            ]},
        },
    },
})  # fmt: skip
_SECURITY = {
    "key": {"type": "http", "scheme": "bearer", "bearerFormat": "ls_<env>_<id>_<secret>, or an access token"},
    "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}
_ALWAYS = (403, 421)
_SIGNED_IN = (401, 403, 421, 429)


def document(endpoints: Iterable[Endpoint], principal: Principal, server: str, title: str) -> dict[str, Any]:
    """The document.

    Args:
        endpoints: the table.
        principal: whose document it is: what stands in it for `{stream}` or a saved query depends on them.
        server: URL of the server.
        title: of the project.
    """
    components: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    problems: set[int] = set()
    for endpoint in endpoints:
        if endpoint.hidden:
            continue
        shown = [endpoint] if endpoint.stands_for is None else endpoint.stands_for(principal)
        for one in shown:
            told = _operation(one, components, problems)
            paths.setdefault(one.path.replace(":path}", "}"), {})[one.method.lower()] = told
    schemas = {"Problem": _plain(PROBLEM.schema, components)} | components
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{title}: Lodestream", "version": VERSION},
        "servers": [{"url": server}],
        "security": [{name: []} for name in _SECURITY],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {f"Problem{code}": _problem(code) for code in sorted(problems)},
            "securitySchemes": _SECURITY,
        },
    }


def answered(endpoint: Endpoint) -> set[int]:
    """Every status that an endpoint may answer with."""
    always = _ALWAYS if endpoint.permission == PUBLIC else _SIGNED_IN
    read = (400,) if endpoint.body or endpoint.parameters or endpoint.in_path else ()
    carried = (408, 413, 415) if endpoint.body else ()
    return {*endpoint.answers, *endpoint.problems, *always, *read, *carried}


def _operation(endpoint: Endpoint, components: dict[str, Any], problems: set[int]) -> dict[str, Any]:
    given = {parameter.name for parameter in endpoint.parameters if parameter.where == "path"}
    parameters = [Parameter(name, "path") for name in endpoint.in_path if name not in given]
    told: dict[str, Any] = {"operationId": operation_id(endpoint), "summary": endpoint.summary}
    if endpoint.description:
        told["description"] = endpoint.description
    if endpoint.tag:
        told["tags"] = [endpoint.tag]
    if endpoint.permission == PUBLIC:
        told["security"] = []
    elif endpoint.permission != SIGNED_IN:
        told["x-scope"] = endpoint.permission
    if found := [*parameters, *endpoint.parameters]:
        told["parameters"] = [_parameter(one, components) for one in found]
    if endpoint.body is not None:
        told["requestBody"] = _body(endpoint.body, components)
    refused = answered(endpoint) - {*endpoint.answers}
    told["responses"] = {str(code): _reply(reply, components) for code, reply in endpoint.answers.items()}
    for code in sorted(refused):
        if endpoint.refusals is None:
            problems.add(code)
            told["responses"][str(code)] = {"$ref": f"#/components/responses/Problem{code}"}
        else:
            reply = Reply(TITLES[code], {endpoint.refusals.media_type: endpoint.refusals.shape})
            told["responses"][str(code)] = _reply(reply, components)
    return told


def operation_id(endpoint: Endpoint) -> str:
    """A name for clients that are generated: `get_api_tables_table`."""
    words = endpoint.path.replace(":path", "").replace("{", "").replace("}", "")
    return "_".join([endpoint.method.lower(), *(w for w in words.replace("-", "_").replace(".", "_").split("/") if w)])


def _parameter(parameter: Parameter, components: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": parameter.name, "in": parameter.where, "required": parameter.required or parameter.where == "path",
        "schema": _plain(parameter.schema, components),
    }  # fmt: skip
    if parameter.description:
        told["description"] = parameter.description
    if parameter.spread:
        told |= {"style": "form", "explode": True}
    return told


def _body(body: Body, components: dict[str, Any]) -> dict[str, Any]:
    return {"required": body.required, "content": _content(body.content, components)}


def _reply(reply: Reply, components: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"description": reply.description}
    if reply.content:
        told["content"] = _content(reply.content, components)
    if reply.headers:
        told["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in reply.headers.items()
        }
    return told


def _content(content: Mapping[str, Shape | None], components: dict[str, Any]) -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    return {kind: {"schema": binary if shape is None else _plain(shape, components)} for kind, shape in content.items()}


def _plain(shape: Any, components: dict[str, Any]) -> Any:
    """A schema as JSON has it; components that stand in it are put among those of the document."""
    if isinstance(shape, Component):
        if shape.name not in components:
            components[shape.name] = None  # one that names itself ends here
            components[shape.name] = _plain(shape.schema, components)
        return {"$ref": f"#/components/schemas/{shape.name}"}
    if isinstance(shape, Mapping):
        return {name: _plain(value, components) for name, value in shape.items()}
    return [_plain(one, components) for one in shape] if isinstance(shape, list | tuple) else shape


def _problem(code: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "description": TITLES[code],
        "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if code in (429, 503):
        told["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return told
