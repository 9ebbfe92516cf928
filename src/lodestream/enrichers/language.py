"""Tells the language of a text."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from pydantic import Field, field_validator

from lodestream.enrichers._texts import each_text
from lodestream.model.types import STRING, Column, Schema
from lodestream.ports import settings as base
from lodestream.ports.enricher import Enriched, EnricherWants
from lodestream.project.values import COLUMN

_NO_LANGUAGE = "zxx"


class LanguageSettings(base.Settings):
    """Which text is looked at, and where its language goes."""

    column: str
    """Column with the text."""
    into: str = Field(default="language", pattern=COLUMN.pattern)
    """Name of the new column: ISO 639 codes, such as `en`; NULL where there is no language or too little of it."""
    languages: tuple[str, ...] | None = None
    """Languages that there may be; fewer of them are told apart better. Default: all 97 that are known."""
    letters_min: int = Field(default=3, ge=1)
    """Texts with fewer letters have no language."""

    @field_validator("languages")
    @classmethod
    def _known(cls, languages: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = sorted(set(languages or ()) - set(LanguageIdentifier.from_model_file(MODEL_FILE).labels))
        if unknown or languages == ():
            raise ValueError(f"not known languages, as ISO 639 codes: {', '.join(unknown)}")
        return languages


class LanguageEnricher:
    """A naive Bayes classifier over byte sequences (langid.py), its model in the package."""

    settings: ClassVar[type[base.Settings]] = LanguageSettings

    def __init__(self, settings: LanguageSettings) -> None:
        self._settings = settings
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
        if settings.languages is not None:
            self._identifier.set_languages(list(settings.languages))

    @classmethod
    def wants(cls, settings: base.Settings) -> EnricherWants:
        """One text column in, one out."""
        assert isinstance(settings, LanguageSettings)
        return EnricherWants(((("column",), settings.column),), Schema((Column(settings.into, STRING),)), ("string",))

    def enrich(self, rows: pa.Table) -> Enriched:
        """The language of each text."""
        found, errors = each_text(rows.column(self._settings.column), self._language)
        return Enriched(pa.table({self._settings.into: pa.array(found, pa.string())}), errors)

    def close(self) -> None:
        """Nothing is held."""

    def _language(self, text: str) -> str | None:
        if sum(map(str.isalpha, text)) < self._settings.letters_min:
            return None
        code: str = self._identifier.classify(text)[0]
        return None if code == _NO_LANGUAGE else code


component = LanguageEnricher
