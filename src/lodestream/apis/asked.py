"""What a request asks for: its JSON body checked against a model, and the format its answer should have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from lodestream.apis.bodies import Room, receive
from lodestream.apis.problems import ProblemError
from lodestream.apis.routing import Body, Component, Shape
from lodestream.apis.rows import WRITERS

BODY_BYTES_MAX = 1 << 20
_TIMEOUT_S = 10.0
_SHOWN = 20
_ROOM = Room(64 << 20)
_ALSO = {"application/jsonl": "ndjson", "application/parquet": "parquet", "text/plain": "csv", "text/json": "json"}
_BY_TYPE = {writer.media_type: name for name, writer in WRITERS.items()} | _ALSO


class Asked(BaseModel):
    """Body of a request; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, strict=True)


M = TypeVar("M", bound=Asked)


async def body_of(request: Request, model: type[M], bytes_max: int = BODY_BYTES_MAX) -> M:
    """The body of a request, read and checked.

    Raises:
        ProblemError: 400 it is not what the model says, 408, 413, 415 it is not JSON, 429.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ProblemError(415, "send application/json", headers={"Accept": "application/json"})
    body = await receive(request, bytes_max, _TIMEOUT_S, _ROOM)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise ProblemError(400, "the body is not what is expected here", errors=_told(error)) from None
    finally:
        _ROOM.used -= len(body)


def _told(error: ValidationError) -> list[dict[str, Any]]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [{"at": ".".join(map(str, one["loc"])), "reason": one["msg"].lower()} for one in found[:_SHOWN]]


def body(model: type[Asked], name: str) -> Body:
    """How a model stands in the table of endpoints."""
    return Body({"application/json": shape(model, name)})


def shape(model: type[BaseModel], name: str) -> Shape:
    """The JSON Schema of a model, with what it refers to in place."""
    schema = model.model_json_schema()
    return Component(name, _inlined(schema, schema.pop("$defs", {})))


def _inlined(told: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(told, dict):
        if "$ref" in told:
            return _inlined(known[told["$ref"].rpartition("/")[2]], known)
        return {name: _inlined(value, known) for name, value in told.items() if name != "title" or value is not str}
    return [_inlined(one, known) for one in told] if isinstance(told, list) else told


def format_of(request: Request, named: str | None) -> str:
    """The format of the answer: the one that is named, else the best that `Accept` names; JSON for any.

    Raises:
        ProblemError: 400 there is none of that name, 406 none is acceptable.
    """
    if named is not None:
        if named not in WRITERS:
            raise ProblemError(400, f"format is one of {', '.join(WRITERS)}")
        return named
    accepted = request.headers.get("accept", "")
    if not accepted.strip():
        return "json"
    wanted: list[tuple[float, int, str]] = []
    for place, part in enumerate(accepted.split(",")):
        kind, *parameters = (text.strip().lower() for text in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        found = "json" if kind in ("*/*", "application/*") else "csv" if kind == "text/*" else _BY_TYPE.get(kind)
        if found is not None and quality > 0:
            wanted.append((-quality, place, found))
    if not wanted:
        known = ", ".join(writer.media_type for writer in WRITERS.values())
        raise ProblemError(406, f"the answer can be one of {known}")
    return min(wanted)[2]
