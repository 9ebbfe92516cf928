"""docs/reference/rest.md: what can be asked over HTTP, from the table of endpoints of a server."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lodestream.apis.openapi import answered
from lodestream.apis.routing import PUBLIC, SIGNED_IN, Body, Endpoint, endpoints
from lodestream.app import open_project

PROJECT = "project: shop\nlake: lake\n"
TABLE = "source: {http: {stream: orders}}\ncolumns: {id: bigint}\n"
HEAD = """\
# What can be asked over HTTP

{note}

Each part of this page is an entry of the server's table of endpoints, from which the checks of permissions,
`GET /openapi.json` and the tests of who may ask what are made too. [The guide](../guides/rest.md) shows how they are
used. A permission is a scope of the credential: `query:*` is any scope that begins so; what somebody may do with one
table is decided by grants. Every error is `application/problem+json`, but under `/delta-sharing`, where it is what that
protocol says; any request can be answered with 403 or 421, any with a credential with 401 or 429.
"""


def table() -> tuple[Endpoint, ...]:
    """The table of a server with one stream."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tables/bronze").mkdir(parents=True)
        (Path(folder) / "lodestream.yaml").write_text(PROJECT)
        (Path(folder) / "tables/bronze/orders.yaml").write_text(TABLE)
        app = open_project(folder)
        return endpoints(app.http(app.serving(), "no token"))


def rest(note: str) -> str:
    """The page."""
    tags: dict[str, list[Endpoint]] = {}
    for endpoint in table():
        if not endpoint.hidden:
            tags.setdefault(endpoint.tag or "other", []).append(endpoint)
    parts = [HEAD.format(note=note)]
    for tag in sorted(tags):
        parts.append(f"## {tag.capitalize()}\n")
        parts += [_endpoint(endpoint) for endpoint in tags[tag]]
    return "\n".join(parts)


def _endpoint(endpoint: Endpoint) -> str:
    allowed = {PUBLIC: "anybody", SIGNED_IN: "any good credential"}.get(endpoint.permission, f"`{endpoint.permission}`")
    lines = [
        f"### `{endpoint.method} {endpoint.path.replace(':path}', '}')}`",
        "",
        f"{endpoint.summary} For {allowed}.",
    ]
    if endpoint.description:
        lines += ["", endpoint.description]
    if endpoint.parameters:
        lines += ["", "| parameter | in | says |", "|---|---|---|"]
        for one in endpoint.parameters:
            needed = " Required." if one.required else ""
            said = (one.description + needed).strip().replace("|", chr(92) + "|") or "–"
            lines.append(f"| `{one.name}` | {one.where} | {said} |")
    if endpoint.body is not None:
        lines += ["", f"Body: {_kinds(endpoint.body)}."]
    statuses = sorted(answered(endpoint) - {401, 403, 421, 429})
    lines += ["", "Answers " + ", ".join(map(str, statuses)) + f": {_answers(endpoint)}.", ""]
    return "\n".join(lines)


def _kinds(body: Body) -> str:
    return ", ".join(f"`{kind}`" for kind in body.content)


def _answers(endpoint: Endpoint) -> str:
    kinds = {kind: None for reply in endpoint.answers.values() for kind in reply.content}
    return ", ".join(f"`{kind}`" for kind in kinds) or "no body"
