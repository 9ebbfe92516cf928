"""Tells how positive or negative an English text is."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
from pydantic import Field
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from lodestream.enrichers._texts import each_text
from lodestream.model.types import DOUBLE, Column, Schema
from lodestream.ports import settings as base
from lodestream.ports.enricher import Enriched, EnricherWants
from lodestream.project.values import COLUMN

_LANGUAGE = "en"


class SentimentSettings(base.Settings):
    """Which text is looked at, and where its sentiment goes."""

    column: str
    """Column with the text, in English."""
    into: str = Field(default="sentiment", pattern=COLUMN.pattern)
    """Name of the new column: from -1, most negative, to 1, most positive; 0 for text without a word of feeling."""
    language: str | None = None
    """Column with the text's language, such as `language` of the enricher of that name. Where it is not `en` the
    sentiment is NULL, for no other language is known. Default: all text is taken as English."""


class SentimentEnricher:
    """VADER's lexicon and rules; the value is its compound score."""

    settings: ClassVar[type[base.Settings]] = SentimentSettings

    def __init__(self, settings: SentimentSettings) -> None:
        self._settings = settings
        self._analyzer = SentimentIntensityAnalyzer()

    @classmethod
    def wants(cls, settings: base.Settings) -> EnricherWants:
        """A text column, and one with its language if there is one."""
        assert isinstance(settings, SentimentSettings)
        reads = [("column", settings.column)]
        if settings.language is not None:
            reads.append(("language", settings.language))
        named = tuple(((key,), column) for key, column in reads)
        return EnricherWants(named, Schema((Column(settings.into, DOUBLE),)), ("string",))

    def enrich(self, rows: pa.Table) -> Enriched:
        """The sentiment of each text."""
        texts = rows.column(self._settings.column)
        if self._settings.language is not None:
            languages = rows.column(self._settings.language).to_pylist()
            kept = [
                text if language == _LANGUAGE else None
                for text, language in zip(texts.to_pylist(), languages, strict=True)
            ]
            texts = pa.chunked_array([pa.array(kept, pa.string())])
        found, errors = each_text(texts, self._sentiment)
        return Enriched(pa.table({self._settings.into: pa.array(found, pa.float64())}), errors)

    def close(self) -> None:
        """Nothing is held."""

    def _sentiment(self, text: str) -> float:
        return float(self._analyzer.polarity_scores(text)["compound"])


component = SentimentEnricher
