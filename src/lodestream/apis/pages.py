"""The console's files: read once and served from memory, so that no path of a request becomes one of this machine."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

from lodestream.apis.headers import CONSOLE_POLICY
from lodestream.apis.problems import ProblemError
from lodestream.apis.routing import Handler
from lodestream.model.access import Principal

_INDEX = "index.html"
_ASSETS = "assets/"
_NO_PAGES = ("api", "ingest", "delta-sharing", "assets", ".well-known")
"""First parts of paths that are never a page of the console."""
_WITHIN = frozenset({"text/html", "text/css", "text/javascript", "application/json", "image/svg+xml"})
_MISSING = """\
The console is not part of this installation: lodestream/console/static/index.html is missing.

Everything else answers as it should: /openapi.json says what can be asked, /healthz how the server is.
From a checkout, `make console` builds the console.
"""


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    packed: bytes | None
    kind: str
    etag: str
    forever: bool


def console(folder: Traversable | None = None) -> Handler:
    """Answers GET of whatever is not an endpoint: a file of the console, or its first page, which knows all others.

    Args:
        folder: the built console; that of this package when None.
    """
    found = _read(folder or files("lodestream").joinpath("console", "static"))

    async def page(request: Request, _principal: Principal) -> Response:
        path = request.scope["path"].removeprefix("/")
        file = found.get(path)
        if file is None:
            if path.partition("/")[0] in _NO_PAGES:
                raise ProblemError(404, "there is nothing here; /openapi.json says what can be asked")
            file = found.get(_INDEX)
        if file is None:
            return Response(_MISSING, 503, media_type="text/plain")
        return _answer(request, file)

    return page


def _read(folder: Traversable, prefix: str = "") -> Mapping[str, _File]:
    """Every file below a folder, by its path in URLs."""
    found: dict[str, _File] = {}
    if not folder.is_dir():
        return found
    for one in folder.iterdir():
        path = f"{prefix}{one.name}"
        if one.is_dir():
            found |= _read(one, f"{path}/")
        else:
            kind = mimetypes.guess_type(one.name)[0] or "application/octet-stream"
            content = one.read_bytes()
            packed = gzip.compress(content, mtime=0) if kind in _WITHIN else None
            digest = hashlib.sha256(content).hexdigest()[:32]
            found[path] = _File(content, packed, kind, f'W/"{digest}"', path.startswith(_ASSETS))
    return found


def _answer(request: Request, file: _File) -> Response:
    """Names of assets change with their content, so a browser keeps them; it asks again for all else."""
    headers = {
        "Content-Security-Policy": CONSOLE_POLICY, "ETag": file.etag, "Vary": "Accept-Encoding",
        "Cache-Control": "public, max-age=31536000, immutable" if file.forever else "no-cache",
    }  # fmt: skip
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    content = file.content
    if file.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        content = file.packed
        headers["Content-Encoding"] = "gzip"
    return Response(content, headers=headers, media_type=file.kind)
