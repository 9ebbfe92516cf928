"""Schemas that messages name by id: the Confluent header, and looking schemas up with all that they build on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lodestream.errors import ConfigError
from lodestream.formats._lines import Ints, Lines, Mask
from lodestream.ports.registry import RegisteredSchema, SchemaKind, SchemaRegistry, UnknownSchemaError

HEADER_BYTES = 5
"""A zero byte and the schema id, big endian (Confluent wire format)."""
REFERENCES_MAX = 200
CHUNK_ROWS = 1 << 14
CHUNK_BYTES = 64 << 20


class UnusableSchemaError(ValueError):
    """The schema of an id cannot be had or used; the text is the reason of its records."""


def read_headers(lines: Lines) -> tuple[Ints, Mask]:
    """Schema ids, and which messages begin with a header; ids of others are -1."""
    fits = lines.ends - lines.starts >= HEADER_BYTES
    if not fits.any():
        return np.full(len(lines), -1, np.int64), fits
    at = lines.starts if fits.all() else np.where(fits, lines.starts, lines.starts[np.argmax(fits)])
    # Every four bytes of the block as one number; one of them begins at each byte.
    numbers: npt.NDArray[np.uint32] = np.ndarray((len(lines.block) - 3,), ">u4", buffer=lines.block, strides=(1,))
    ids = numbers[at + 1].astype(np.int64)
    fits &= lines.block[at] == 0
    return ids if fits.all() else np.where(fits, ids, -1), fits


def schema_with_references(
    registry: SchemaRegistry, schema_id: int, kind: SchemaKind
) -> tuple[RegisteredSchema, list[tuple[str, RegisteredSchema]]]:
    """The schema of an id, and what it builds on with the name each is known by, the deepest first.

    Raises:
        UnusableSchemaError: `parse:schema_id:unknown`, `parse:schema_id:kind` when it is in another language.
        TransientError: the registry does not answer.
    """
    try:
        found = registry.schema(schema_id)
        if found.kind != kind:
            raise UnusableSchemaError("parse:schema_id:kind")
        return found, references_of(registry, found)
    except UnknownSchemaError:
        raise UnusableSchemaError("parse:schema_id:unknown") from None


def references_of(registry: SchemaRegistry, schema: RegisteredSchema) -> list[tuple[str, RegisteredSchema]]:
    """What a schema builds on, the deepest first, each once. Raises UnknownSchemaError, UnusableSchemaError."""
    found: dict[tuple[str, int], tuple[str, RegisteredSchema]] = {}
    _collect(registry, schema, found, set())
    return list(found.values())


def _collect(
    registry: SchemaRegistry, schema: RegisteredSchema, found: dict[tuple[str, int], tuple[str, RegisteredSchema]],
    begun: set[tuple[str, int]],
) -> None:  # fmt: skip
    for reference in schema.references:
        key = (reference.subject, reference.version)
        if key in begun:
            continue
        begun.add(key)
        if len(begun) > REFERENCES_MAX:
            raise UnusableSchemaError("parse:schema_id:invalid")
        inner = registry.version(*key)
        _collect(registry, inner, found, begun)
        found[key] = (reference.name, inner)


def latest_of(registry: SchemaRegistry, subject: str, kind: SchemaKind) -> RegisteredSchema | None:
    """The newest schema of a subject. Raises ConfigError when it is in another language."""
    found = registry.latest(subject)
    if found is not None and found.kind != kind:
        raise ConfigError(
            "the subject's schema is in another language; change `format:`", subject=subject, kind=found.kind
        )
    return found


def frequent(ids: Ints, most: int) -> tuple[Ints, Ints]:
    """Different ids, those of most messages first, at most that many; and for each message which of them, or -1."""
    if len(ids) and (ids == ids[0]).all():
        return ids[:1], np.zeros(len(ids), np.int64)
    names, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    order = np.lexsort((names, -counts))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    rank[rank >= most] = -1
    return names[order[:most]], rank[inverse]


def chunks(lines: Lines) -> Iterator[Ints]:
    """Row numbers in pieces that fit into a processor's cache, and never into more memory than one message needs."""
    begin = 0
    while begin < len(lines):
        end = min(begin + CHUNK_ROWS, len(lines))
        if int(lines.ends[end - 1] - lines.starts[begin]) > CHUNK_BYTES:
            end = begin + int(np.searchsorted(lines.ends[begin:end], lines.starts[begin] + CHUNK_BYTES, "right"))
            end = max(end, begin + 1)
        yield np.arange(begin, end)
        begin = end
