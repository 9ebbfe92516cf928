"""One table of everything that can be asked over HTTP: no path without a permission, one application, one document.

A door describes its paths as `Endpoint` values and hands them over as a `Part`. `application` checks who asks before it
calls a handler, turns errors into problems and sets the headers that hold for every answer.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from lodestream.apis.counts import PATTERN, Counted, Counts
from lodestream.apis.events import Streams
from lodestream.apis.headers import SecurityHeaders
from lodestream.apis.problems import ProblemError, http_problem, internal_problem, of_error, problem, translated
from lodestream.apis.received import Received
from lodestream.errors import LodestreamError
from lodestream.model.access import Principal

PUBLIC = "public"
"""Permission of what anybody may ask who may connect."""
SIGNED_IN = "signed in"
"""Permission of what everybody may ask whose credential is good; what they see in it is decided object by object."""
NOBODY = Principal("", "user", scopes=())
"""Who asks for something public."""

Handler = Callable[[Request, Principal], Awaitable[Response]]
Refused = Callable[[Request, Principal, ProblemError], Awaitable[None]]
Where = Literal["path", "query", "header"]
_SCOPE = re.compile(r"[a-z]+:(\*|[a-z][a-z0-9_.]*|\{[a-z_]+\})")
_PATH = re.compile(r"(/[a-z0-9_.-]*|/\{[a-z_]+(:path)?\})+")
_NAMED = re.compile(r"\{([a-z_]+)(?::path)?\}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Component:
    """A JSON Schema that has a name in the document."""

    name: str
    schema: Mapping[str, Any]


Shape = Mapping[str, Any] | Component
"""A JSON Schema; components may stand anywhere in it."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What is given beside the body.

    Attributes:
        name: as it is written.
        where: in the path, the query or a header.
        description: what it means.
        schema: of its value.
        required: whether it has to be given; what is in the path always has to.
        spread: an object whose members are query parameters of their own, such as filters.
    """

    name: str
    where: Where = "query"
    description: str = ""
    schema: Shape = field(default_factory=lambda: MappingProxyType({"type": "string"}))
    required: bool = False
    spread: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries: a schema by media type; None for bytes."""

    content: Mapping[str, Shape | None]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered with one status: a schema by media type; None for bytes, nothing at all for no body."""

    description: str
    content: Mapping[str, Shape | None] = field(default_factory=lambda: MappingProxyType({}))
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Refusals:
    """How something cannot be done, in a protocol that has a form of its own for that.

    Attributes:
        media_type: of the answer.
        shape: of its body.
        told: makes the answer.
    """

    media_type: str
    shape: Shape
    told: Callable[[ProblemError], Response]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path.

    Attributes:
        method: `GET`, `HEAD`, `POST`, `PUT`, `PATCH` or `DELETE`.
        path: with parameters in braces: `/api/tables/{table}`.
        handler: called with the request and who asks.
        permission: `PUBLIC`, `SIGNED_IN`, or the scope that the credential must have, such as `ingest:{stream}`;
            `query:*` is any scope of that family. What somebody may do with one object is decided by the handler.
        summary: one sentence.
        parameters: of the query, headers and path; those of the path that are not here are texts.
        body: None when none is read.
        answers: by status; problems are added for what can go wrong with any.
        problems: further statuses that it may answer.
        tag: heading under which it stands in the document.
        description: more than the summary.
        stands_for: endpoints that stand in the document in its place, made for one principal.
        hidden: left out of the document.
        refusals: in the place of problems as RFC 9457 has them.
    """

    method: str
    path: str
    handler: Handler
    permission: str
    summary: str
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    answers: Mapping[int, Reply] = field(default_factory=lambda: MappingProxyType({200: Reply("Done.")}))
    problems: tuple[int, ...] = ()
    tag: str = ""
    description: str = ""
    stands_for: Callable[[Principal], Iterable[Endpoint]] | None = None
    hidden: bool = False
    refusals: Refusals | None = None

    def __post_init__(self) -> None:
        if self.method not in _METHODS or not _PATH.fullmatch(self.path):
            raise ValueError(f"not an endpoint: {self.method} {self.path}")
        if not is_permission(self.permission):
            raise ValueError(f"{self.method} {self.path} has no permission that can be checked: {self.permission!r}")
        if not set(_NAMED.findall(self.permission)) <= set(self.in_path):
            raise ValueError(f"{self.method} {self.path}: the permission names what is not in the path")

    @property
    def in_path(self) -> tuple[str, ...]:
        """Names of the parameters in the path."""
        return tuple(_NAMED.findall(self.path))

    def scope(self, request: Request) -> str | None:
        """The scope that this request needs, None when any credential will do."""
        if self.permission in (PUBLIC, SIGNED_IN):
            return None
        return _NAMED.sub(lambda match: str(request.path_params[match[1]]), self.permission)


def is_permission(text: object) -> bool:
    """Whether it is a permission that `application` can check."""
    return text in (PUBLIC, SIGNED_IN) or (isinstance(text, str) and _SCOPE.fullmatch(text) is not None)


def admits(principal: Principal, scope: str) -> bool:
    """Whether a credential has a scope; of `family:*`, any of the family, since each object is decided on its own."""
    if principal.scopes is not None and scope.endswith(":*"):
        return any(one.startswith(scope[:-1]) for one in principal.scopes)
    return principal.may(scope)


@dataclass(frozen=True, slots=True)
class Part:
    """Endpoints that belong together, with what they need while the server runs.

    Attributes:
        endpoints: what can be asked.
        running: entered when the server starts and left when it ends.
        failing: what is wrong with it now, by name; nothing when it is well.
        metrics: counts in the Prometheus text format.
    """

    endpoints: tuple[Endpoint, ...]
    running: Callable[[], contextlib.AbstractAsyncContextManager[None]] | None = None
    failing: Callable[[], Mapping[str, str]] = dict
    metrics: Callable[[], str] = str


class Doorkeeper(Protocol):
    """What `application` needs of a gate."""

    def connect(self, request: Request) -> None:
        """Check what needs no credential. Raises ProblemError 403 or 421."""

    async def arrive(self, request: Request) -> Principal:
        """Who asks. Raises ProblemError 401, 403 or 421."""

    def principal(self, request: Request) -> Principal:
        """Who asked, looked at again while an answer goes on. Raises ProblemError 401, 403 or 421."""


def application(
    parts: Sequence[Part], gate: Doorkeeper, *, otherwise: Handler | None = None, secure: bool = False,
    refused: Refused | None = None, streams: Streams | None = None,
) -> Starlette:  # fmt: skip
    """The one ASGI application of several parts.

    Args:
        parts: endpoints; no two have the same method and path.
        gate: says who asks.
        otherwise: answers GET of any path that no endpoint has (the console); 404 when None.
        secure: whether it is reached by TLS, so that browsers may be told to never come without.
        refused: told of each request that ends with 401 or 403 before its handler decides anything.
        streams: bounds of streams of events.

    Raises:
        ValueError: two endpoints have the same method and path.
    """
    paths: dict[str, dict[str, Endpoint]] = {}
    for part in parts:
        for endpoint in part.endpoints:
            methods = paths.setdefault(endpoint.path, {})
            if endpoint.method in methods:
                raise ValueError(f"two endpoints: {endpoint.method} {endpoint.path}")
            methods[endpoint.method] = endpoint
    routes = [_route(path, methods, gate, refused) for path, methods in sorted(paths.items(), key=_specific)]
    handlers: dict[Any, Any] = {
        ProblemError: problem, LodestreamError: translated, HTTPException: http_problem, Exception: internal_problem,
    }  # fmt: skip
    app = _Application(secure, routes=routes, lifespan=functools.partial(_running, parts), exception_handlers=handlers)
    if otherwise is not None:
        app.router.default = _Open(gate, otherwise)
    app.router.redirect_slashes = False  # one path, one thing; and the target would come from the Host header
    app.state.gate, app.state.streams, app.state.counts = gate, streams or Streams(), app.counts
    app.state.endpoints = tuple(endpoint for part in parts for endpoint in part.endpoints)
    return app


class _Application(Starlette):
    """An application whose every answer, that of a bug too, is counted and has the headers."""

    def __init__(self, secure: bool, **options: Any) -> None:
        self.counts, self._secure = Counts(), secure
        super().__init__(**options)

    def build_middleware_stack(self) -> Any:
        """Ours go around all of the framework's."""
        return Counted(SecurityHeaders(super().build_middleware_stack(), self._secure), self.counts)


def endpoints(app: Starlette) -> tuple[Endpoint, ...]:
    """The table of an application."""
    found: tuple[Endpoint, ...] = app.state.endpoints
    return found


def _specific(item: tuple[str, object]) -> tuple[list[tuple[bool, str]], str]:
    """Fixed names come before parameters, so `/api/tables/search` is not the table `search`."""
    return [(part.startswith("{"), part) for part in item[0].split("/")], item[0]


class _Route(Route):
    """A route that sees at a glance what it is not for: every request is shown to half of all routes."""

    def matches(self, scope: Any) -> tuple[Match, Any]:
        """Whether a request is for it."""
        if scope["path"].startswith(self._lead) or scope.get("root_path"):
            return super().matches(scope)
        return Match.NONE, {}

    @functools.cached_property
    def _lead(self) -> str:
        return self.path.partition("{")[0]


def _route(path: str, methods: Mapping[str, Endpoint], gate: Doorkeeper, refused: Refused | None) -> Route:
    route = _Route(path, _Guarded(gate, methods, refused), methods=sorted(methods))
    route.methods = set(methods)  # a HEAD of a stream would never end
    return route


class _Guarded:
    """ASGI application of one path: nobody gets past it to a handler without its permission."""

    def __init__(self, gate: Doorkeeper, methods: Mapping[str, Endpoint], refused: Refused | None) -> None:
        self._gate, self._methods, self._refused = gate, methods, refused

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        received = Received(receive)
        try:
            response = await self.answer(Request(scope, received, send))
            await response(scope, received, send)
        finally:
            received.close()

    async def answer(self, request: Request) -> Response:
        """Check, then ask the handler."""
        endpoint = self._methods[request.method]
        request.scope[PATTERN] = endpoint.path
        try:
            return await self._answer(endpoint, request)
        except (ProblemError, LodestreamError) as error:
            if endpoint.refusals is None:
                raise
            return endpoint.refusals.told(error if isinstance(error, ProblemError) else of_error(error))

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        principal = NOBODY
        try:
            if endpoint.permission == PUBLIC:
                self._gate.connect(request)
                return await endpoint.handler(request, NOBODY)
            principal = await self._gate.arrive(request)
            scope = endpoint.scope(request)
            if scope is not None and not admits(principal, scope):
                raise ProblemError(403, f"the credential does not have the scope {scope}")
        except ProblemError as error:
            if self._refused is not None and error.status in (401, 403):
                await self._refused(request, principal, error)
            raise
        return await endpoint.handler(request, principal)


class _Open:
    """ASGI application of what is not an endpoint: the console's files, which hold no data."""

    def __init__(self, gate: Doorkeeper, handler: Handler) -> None:
        self._gate, self._handler = gate, handler

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive, send)
        self._gate.connect(request)
        if request.method not in ("GET", "HEAD"):
            raise ProblemError(405, "there is nothing here but pages", headers={"Allow": "GET, HEAD"})
        response = await self._handler(request, NOBODY)
        await response(scope, receive, send)


@contextlib.asynccontextmanager
async def _running(parts: Sequence[Part], _app: Starlette) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for part in parts:
            if part.running is not None:
                await stack.enter_async_context(part.running())
        yield
