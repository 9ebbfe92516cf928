"""Users, grants, policies, tags and descriptions over HTTP; who changes what is decided and recorded by the catalog."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from lodestream.apis.asked import Asked, body, body_of
from lodestream.apis.problems import ProblemError
from lodestream.apis.routing import Endpoint, Parameter, Part, Reply
from lodestream.catalog.catalog import Catalog
from lodestream.catalog.changes import Changes, touched
from lodestream.catalog.entries import Policy, policy
from lodestream.catalog.store import Entry
from lodestream.errors import AccessError
from lodestream.model.access import PRIVILEGES, Principal, Privilege
from lodestream.model.policy import Declassified, Grant, Mask, RowFilter, Tagged, TagPolicy, User, parse_column
from lodestream.model.table import TableName

_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_SAID = {"who": _TEXT, "at_us": {"type": "integer"}, "file": {"type": ["string", "null"]}}
_KINDS = ("row_filter", "mask", "tag_policy")
_KIND = Parameter("kind", "path", "What it is.", {"type": "string", "enum": list(_KINDS)})
_NAME = Parameter(
    "name", "path", "Its name; of a tag policy the tag's.", {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"}
)
_ON = Parameter("on", "path", "`gold`, `gold.orders` or `gold.orders.email`.")
_TO, _OBJECT = Parameter("to", required=True), Parameter("on", required=True)
_PRIVILEGE = Parameter("privilege", schema={"type": "string", "enum": list(PRIVILEGES)}, required=True)


class UserAsked(Asked):
    """Who somebody is."""

    kind: Literal["user", "service"] = "user"
    """A person, or a program."""
    groups: list[str] = Field(default=[], max_length=1000)
    """Groups that they are in."""
    attributes: dict[str, str] = Field(default={}, max_length=1000)
    """What row filters may ask for."""
    disabled: bool = False
    """Whether they are refused everywhere."""


class GrantAsked(Asked):
    """One privilege."""

    to: str
    """A user, or `group:name`."""
    privilege: Privilege
    """What they may do."""
    on: str
    """A table, a layer, or `*`."""


class PolicyAsked(Asked):
    """A row filter has `on` tables and `where`, a mask `on` columns and `with`, a tag policy `with` alone."""

    on: list[str] = Field(default=[], max_length=1000)
    """Tables or columns."""
    where: str | None = Field(default=None, max_length=10_000)
    """Condition in Spark SQL."""
    shown: str | None = Field(default=None, alias="with", max_length=10_000)
    """Expression in Spark SQL."""
    exempt: list[str] = Field(default=[], alias="except", max_length=1000)
    """Users and `group:…` whom it does not bind."""


class TextAsked(Asked):
    """A text; empty takes it back."""

    text: str = Field(max_length=4_000)
    """What is said."""


@dataclass(frozen=True)
class Governing:
    """What these endpoints stand on.

    Attributes:
        catalog: of the lake.
        changes: changes in somebody's name.
    """

    catalog: Catalog
    changes: Callable[[Principal], Changes]


def governing_part(about: Governing) -> Part:
    """The endpoints."""
    made = _Endpoints(about)

    def one(
        method: str,
        path: str,
        handler: Any,
        summary: str,
        *given: Parameter,
        asked: tuple[type[Asked], str] | None = None,
    ) -> Endpoint:
        return Endpoint(
            method, path, handler, "admin:*", summary, given, body=body(*asked) if asked else None,
            answers={200: Reply("Done.", {"application/json": {"type": "object"}})},
            problems=(400, 503) if asked is None else (400, 408, 413, 415, 429, 503), tag="governance",
        )  # fmt: skip

    user = Parameter("name", "path", "Who.")
    return Part((
        made.showing("/api/users", "users", ("user",), "Users and service accounts.",
                  {"name": _TEXT, "kind": _TEXT, "groups": _TEXTS, "attributes": {"type": "object"}}),
        one("PUT", "/api/users/{name:path}", made.put_user, "Add or change a user.", user, asked=(UserAsked, "User")),
        one("DELETE", "/api/users/{name:path}", made.drop_user, "Forget a user, with the grants to their name.", user),
        made.showing("/api/grants", "grants", ("grant",), "Grants on what you manage.",
                  {"to": _TEXT, "privilege": _TEXT, "on": _TEXT}),
        one("PUT", "/api/grants", made.put_grant, "Let somebody do something.", asked=(GrantAsked, "Grant")),
        one("DELETE", "/api/grants", made.drop_grant, "Take a grant back.", _TO, _PRIVILEGE, _OBJECT),
        made.showing("/api/policies", "policies", ("row_filter", "mask", "tag", "declassified", "tag_policy"),
                  "Row filters, masks, tags and tag policies on what you manage.", {"kind": _TEXT, "name": _TEXT}),
        one("PUT", "/api/policies/{kind}/{name}", made.put_policy, "Hide rows or columns.", _KIND, _NAME,
            asked=(PolicyAsked, "Policy")),
        one("DELETE", "/api/policies/{kind}/{name}", made.drop_policy, "Take a policy back.", _KIND, _NAME),
        one("PUT", "/api/tags/{name}/{on}", made.put_tag, "Tag a column, or every column of a table.", _NAME, _ON),
        one("DELETE", "/api/tags/{name}/{on}", made.drop_tag, "Take a tag back.", _NAME, _ON),
        one("PUT", "/api/declassified/{name}/{on}", made.put_declassified,
            "Say that a column tells nothing of the tagged ones that it is computed from.", _NAME, _ON),
        one("DELETE", "/api/declassified/{name}/{on}", made.drop_declassified, "Take that back.", _NAME, _ON),
        one("PUT", "/api/comments/{on}", made.comment, "Say what something is for.", _ON, asked=(TextAsked, "Text")),
        one("PUT", "/api/owners/{on}", made.own, "Say who answers for it.", _ON, asked=(TextAsked, "Text")),
    ))  # fmt: skip


class _Endpoints:
    def __init__(self, about: Governing) -> None:
        self._about = about

    def showing(
        self, path: str, key: str, kinds: tuple[str, ...], summary: str, properties: Mapping[str, Any]
    ) -> Endpoint:
        """The endpoint that shows entries of some kinds, as far as the asker manages what they are about."""
        item = {"type": "object", "required": list(properties), "properties": {**properties, **_SAID}}
        told = {"type": "object", "required": [key], "properties": {key: {"type": "array", "items": item}}}

        async def handler(_request: Request, principal: Principal) -> Response:
            return await _answered(lambda: {key: self._listed(kinds, principal)})

        return Endpoint(
            "GET", path, handler, "admin:*", summary, problems=(503,), tag="governance",
            answers={200: Reply("What there is.", {"application/json": told})},
        )  # fmt: skip

    def _listed(self, kinds: tuple[str, ...], principal: Principal) -> list[dict[str, Any]]:
        catalog = self._about.catalog
        found = [
            _told(entry)
            for entry in catalog.entries(*kinds)
            if all(catalog.holds(principal, "manage", one) for one in touched(policy(entry)))
        ]
        if not found and kinds == ("user",) and not catalog.holds(principal, "manage"):
            raise AccessError("only who manages the whole catalog may see its users")
        return found

    async def put_user(self, request: Request, by: Principal) -> Response:
        asked = await body_of(request, UserAsked)
        name = request.path_params["name"]
        if asked.model_fields_set == {"disabled"}:  # also of a user whom a file declares
            return await _answered(lambda: self._shut_out(by, name, disabled=asked.disabled))
        user = User(name, asked.kind, frozenset(asked.groups), dict(asked.attributes), asked.disabled)
        return await self._put(by, user)

    def _shut_out(self, by: Principal, name: str, *, disabled: bool) -> Mapping[str, Any]:
        self._about.changes(by).disable(name, disabled=disabled)
        return {"name": name, "disabled": disabled}

    async def drop_user(self, request: Request, by: Principal) -> Response:
        name = request.path_params["name"]
        return await _answered(lambda: {"declared": self._about.changes(by).remove_user(name)})

    async def put_grant(self, request: Request, by: Principal) -> Response:
        asked = await body_of(request, GrantAsked)
        return await self._put(by, Grant(asked.to, asked.privilege, asked.on))

    async def drop_grant(self, request: Request, by: Principal) -> Response:
        given = {name: request.query_params.get(name, "") for name in ("to", "privilege", "on")}
        if missing := next((name for name, text in given.items() if not text), None):
            raise ProblemError(400, f"say which grant: {missing}=…", parameter=missing)
        privilege = next((one for one in PRIVILEGES if one == given["privilege"]), None)
        if privilege is None:
            raise ProblemError(400, f"the privilege is one of {', '.join(PRIVILEGES)}", parameter="privilege")
        grant = Grant(given["to"], privilege, given["on"])
        return await self._done(lambda: self._about.changes(by).revoke(grant))

    async def put_policy(self, request: Request, by: Principal) -> Response:
        kind, name = request.path_params["kind"], request.path_params["name"]
        return await self._put(by, _policy(kind, name, await body_of(request, PolicyAsked)))

    async def drop_policy(self, request: Request, by: Principal) -> Response:
        kind, name = request.path_params["kind"], request.path_params["name"]
        if kind not in _KINDS:
            raise ProblemError(400, f"the kind is one of {', '.join(_KINDS)}", parameter="kind")
        return await self._done(lambda: self._about.changes(by).drop(kind, name))

    async def put_tag(self, request: Request, by: Principal) -> Response:
        tagged = Tagged(*_tagged(request))
        return await self._put(by, tagged)

    async def drop_tag(self, request: Request, by: Principal) -> Response:
        tagged = Tagged(*_tagged(request))
        return await self._done(lambda: self._about.changes(by).untag(tagged))

    async def put_declassified(self, request: Request, by: Principal) -> Response:
        return await self._put(by, Declassified(*_tagged(request)))

    async def drop_declassified(self, request: Request, by: Principal) -> Response:
        cleared = Declassified(*_tagged(request))
        return await self._done(lambda: self._about.changes(by).untag(cleared))

    async def comment(self, request: Request, by: Principal) -> Response:
        asked = await body_of(request, TextAsked)
        return await self._done(lambda: self._about.changes(by).comment(request.path_params["on"], asked.text))

    async def own(self, request: Request, by: Principal) -> Response:
        asked = await body_of(request, TextAsked)
        return await self._done(lambda: self._about.changes(by).own(request.path_params["on"], asked.text))

    async def _put(self, by: Principal, new: Policy) -> Response:
        return await self._done(lambda: self._about.changes(by).put(new))

    async def _done(self, work: Callable[[], None]) -> Response:
        def done() -> dict[str, Any]:
            work()
            return {"version": self._about.catalog.version()}

        return await _answered(done)


def _tagged(request: Request) -> tuple[str, TableName, str | None]:
    name, on = request.path_params["name"], request.path_params["on"]
    try:
        return (name, TableName.parse(on), None) if on.count(".") == 1 else (name, *parse_column(on))
    except ValueError as error:
        raise ProblemError(400, str(error), parameter="on") from None


def _policy(kind: str, name: str, asked: PolicyAsked) -> Policy:
    wanted = {"row_filter": ("where", True), "mask": ("with", True), "tag_policy": ("with", False)}.get(kind)
    if wanted is None:
        raise ProblemError(400, f"the kind is one of {', '.join(_KINDS)}", parameter="kind")
    given = [key for key, text in (("where", asked.where), ("with", asked.shown)) if text is not None]
    if given != [wanted[0]] or bool(asked.on) != wanted[1]:
        raise ProblemError(400, f"a {kind.replace('_', ' ')} has {'on and ' if wanted[1] else ''}{wanted[0]}, no more")
    exempt = tuple(asked.exempt)
    try:
        if kind == "row_filter":
            return RowFilter(name, tuple(TableName.parse(text) for text in asked.on), asked.where or "", exempt)
        if kind == "mask":
            return Mask(name, tuple(parse_column(text) for text in asked.on), asked.shown or "", exempt)
    except ValueError as error:
        raise ProblemError(400, str(error), parameter="on") from None
    return TagPolicy(name, asked.shown or "", exempt)


def _told(entry: Entry) -> dict[str, Any]:
    told = {("with" if key == "shown" else key): value for key, value in entry.body.items()}
    named = {"name": entry.name} if entry.kind != "grant" else {}
    kind = {} if entry.kind in ("user", "grant") else {"kind": entry.kind}
    return {**told, **named, **kind, "who": entry.who, "at_us": entry.at_us, "file": entry.origin or None}


async def _answered(work: Callable[[], Mapping[str, Any]]) -> Response:
    return Response(json.dumps(await asyncio.to_thread(work), ensure_ascii=False), media_type="application/json")
