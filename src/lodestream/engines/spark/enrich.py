"""In-line enrichers on Spark: the same components, in Spark's Python workers."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.enrich import reasons_of
from lodestream.engines.spark.rows import FATE, HITS
from lodestream.engines.spark.workers import plain_settings, with_columns
from lodestream.model.arrow import to_arrow
from lodestream.model.steps import Annotate
from lodestream.model.table import Component
from lodestream.ports.enricher import InlineEnricher
from lodestream.ports.plugins import make_enricher

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def annotated(rows: DataFrame, steps: Sequence[Annotate]) -> DataFrame:
    """The rows with the columns of the enrichers; rows for which one has none are set aside with its reason.

    Args:
        rows: rows with their fate so far; those that do not go on get NULLs.
        steps: the enrichers in their order, references in their settings resolved.
    """
    added = [column for step in steps for column in step.schema]
    settled = [
        replace(step, enricher=Component(step.enricher.name, plain_settings(step.enricher.settings))) for step in steps
    ]

    def enriched(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for piece in pieces:
            made = pa.table(piece)
            for step in settled:
                made = _annotate(made, step, _enricher(step.enricher.name, json.dumps(step.enricher.settings)))
            yield from made.to_batches()

    return rows.mapInArrow(enriched, with_columns(rows, added))


@functools.lru_cache(maxsize=16)
def _enricher(name: str, settings: str) -> InlineEnricher:
    """The enricher, made once in each worker."""
    made = make_enricher(Component(name, json.loads(settings)))
    assert isinstance(made, InlineEnricher)
    return made


def _annotate(rows: pa.Table, step: Annotate, enricher: InlineEnricher) -> pa.Table:
    """The columns of one enricher for the rows that go on; runs in a worker."""
    fates = rows.column(FATE)
    going = np.flatnonzero(pc.is_null(fates).to_numpy())
    found = enricher.enrich(rows.select(list(step.reads)).take(pa.array(going)))
    places = np.full(len(rows), -1, np.int64)
    places[going] = np.arange(len(going))
    taken = pa.array(places, mask=places < 0)
    for field in to_arrow(step.schema):
        column = found.columns.column(field.name).cast(field.type).combine_chunks()
        rows = rows.append_column(field.name, column.take(taken))
    reasons = {int(going[i]): why for i, why in reasons_of(step, found).items()}
    if reasons:
        told = ["quarantine" if i in reasons else fate for i, fate in enumerate(fates.to_pylist())]
        hits = [reasons.get(i, before) for i, before in enumerate(rows.column(HITS).to_pylist())]
        for name, values in ((FATE, told), (HITS, hits)):
            at = rows.schema.get_field_index(name)
            rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
    return rows
