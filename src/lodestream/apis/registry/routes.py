"""The registry's paths: which request does what, and how its answer looks."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lodestream.apis.registry.answers import Answers
from lodestream.apis.registry.asked import Asked
from lodestream.apis.registry.database import Database
from lodestream.apis.registry.languages.parsed import InvalidSchemaError, check_depth
from lodestream.apis.registry.problems import Problem, unreadable
from lodestream.apis.registry.users import Users
from lodestream.errors import LodestreamError

MEDIA = "application/vnd.schemaregistry.v1+json"
BODY_BYTES_MAX = 2 << 20

_Answer = Callable[[Asked], Any]


@dataclass(frozen=True, slots=True)
class _Path:
    path: str
    methods: Mapping[str, _Answer]


def registry_app(database: Database, users: Users | None = None) -> ASGIApp:
    """The ASGI application of a registry.

    Args:
        database: where it keeps what it is told.
        users: who may use it; None is everybody.
    """
    routes = [
        Route(one.path, _endpoint(one.methods, users), methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
        for one in _paths(Answers(database))
    ]
    handlers: dict[Any, Any] = {404: _no_path}
    return _RawPath(Starlette(routes=routes, exception_handlers=handlers))


def _paths(do: Answers) -> list[_Path]:
    subject, version = "/subjects/{subject}", "/subjects/{subject}/versions/{version}"
    return [
        _Path("/", {"GET": lambda _: {}}),
        _Path("/schemas/types", {"GET": do.types}),
        _Path("/schemas", {"GET": do.schemas}),
        _Path("/schemas/ids/{id}", {"GET": do.schema}),
        _Path("/schemas/ids/{id}/schema", {"GET": do.schema_text}),
        _Path("/schemas/ids/{id}/subjects", {"GET": do.schema_subjects}),
        _Path("/schemas/ids/{id}/versions", {"GET": do.schema_versions}),
        _Path("/schemas/guids/{guid}", {"GET": do.guid}),
        _Path("/schemas/guids/{guid}/ids", {"GET": do.guid_ids}),
        _Path("/contexts", {"GET": lambda _: ["."]}),
        _Path("/v1/metadata/id", {"GET": lambda _: {"scope": {"path": [], "clusters": {}}, "id": ""}}),
        _Path("/v1/metadata/version", {"GET": do.software}),
        _Path("/subjects", {"GET": do.subjects}),
        _Path(subject, {"POST": do.lookup, "DELETE": do.delete_subject}),
        _Path(f"{subject}/metadata", {"GET": do.with_metadata}),
        _Path(f"{subject}/versions", {"GET": do.versions, "POST": do.register}),
        _Path(version, {"GET": do.version, "DELETE": do.delete_version}),
        _Path(f"{version}/schema", {"GET": do.version_text}),
        _Path(f"{version}/referencedby", {"GET": do.referenced_by}),
        _Path("/compatibility" + subject + "/versions", {"POST": do.compatible_with_all}),
        _Path("/compatibility" + version, {"POST": do.compatible_with}),
        _Path("/config", {"GET": do.config, "PUT": do.put_config, "DELETE": do.delete_config}),
        _Path("/config/{subject}", {"GET": do.config, "PUT": do.put_config, "DELETE": do.delete_config}),
        _Path("/mode", {"GET": do.mode, "PUT": do.put_mode, "DELETE": do.delete_mode}),
        _Path("/mode/{subject}", {"GET": do.mode, "PUT": do.put_mode, "DELETE": do.delete_mode}),
    ]


def _endpoint(methods: Mapping[str, _Answer], users: Users | None) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        try:
            if users is not None and await run_in_threadpool(users.name, request.headers.get("authorization")) is None:
                return _error(401, "Unauthorized", {"WWW-Authenticate": 'Basic realm="schema registry"'})
            work = methods.get(method)
            if work is None:
                return _error(405, "HTTP 405 Method Not Allowed", {"Allow": ", ".join(methods)})
            query = request.query_params
            body = await _body(request, method)
            asked = Asked(_names(request.path_params), dict(query), body, query.multi_items())
            return _answer(200, await run_in_threadpool(work, asked))
        except Problem as problem:
            return _error(problem.code, problem.message)
        except LodestreamError as error:  # the store
            return _error(50001, f"Error in the backend data store: {error.message}", status=503)

    return answer


async def _body(request: Request, method: str) -> Any:
    """The JSON of a request; None without a body. Raises Problem."""
    if method not in ("POST", "PUT"):
        return None
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES_MAX:
            raise Problem(413, f"the body is larger than {BODY_BYTES_MAX} bytes")
    if not data:
        return None
    try:
        found = json.loads(data)
        check_depth(found)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError, InvalidSchemaError) as error:
        raise Problem(400, f"the body is not JSON: {type(error).__name__}") from None
    return found


def _names(params: Mapping[str, str]) -> dict[str, str]:
    """Path parameters, which came percent-encoded. Raises Problem."""
    try:
        return {name: unquote(text, errors="strict") for name, text in params.items()}
    except UnicodeDecodeError:
        raise unreadable("the path is not UTF-8") from None


def _answer(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode(), status, headers, MEDIA)


def _error(code: int, message: str, headers: Mapping[str, str] | None = None, *, status: int | None = None) -> Response:
    said = {"error_code": code, "message": message}
    return _answer(status or int(str(code)[:3]), said, headers)


async def _no_path(_request: Request, _error_: HTTPException) -> Response:
    return _error(404, "HTTP 404 Not Found")


class _RawPath:
    """Routes by the path as it was sent, so that `%2F` in a subject is not a step of the path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            raw = scope["raw_path"].split(b"?")[0].decode("ascii", "replace")
            scope = {**scope, "path": raw.rstrip("/") or "/"}
        await self._app(scope, receive, send)
