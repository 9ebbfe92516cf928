"""How positive or negative English text is; other languages have no value."""

from __future__ import annotations

import json
from pathlib import Path

from lodestream.enrichers.sentiment import SentimentEnricher, SentimentSettings
from tests.enrichers.inline import LANGUAGES, NEGATIVE, POSITIVE, Notes, enriched


def test_feelings_are_told() -> None:
    found = enriched(SentimentEnricher(SentimentSettings(column="text")), [*POSITIVE, *NEGATIVE])["sentiment"]
    assert all(-1 <= one <= 1 for one in found)
    right = sum(one > 0 for one in found[: len(POSITIVE)]) + sum(one < 0 for one in found[len(POSITIVE) :])
    flipped = sum(one < 0 for one in found[: len(POSITIVE)]) + sum(one > 0 for one in found[len(POSITIVE) :])
    assert right >= 28, right
    assert flipped <= 3, flipped
    assert enriched(SentimentEnricher(SentimentSettings(column="text")), [None, "the table"])["sentiment"] == [
        None,
        0.0,
    ]


def test_text_that_is_not_english_has_no_value(tmp_path: Path) -> None:
    notes = Notes(
        tmp_path,
        "enrich:\n  - language: {column: text}\n  - sentiment: {column: text, language: language, into: mood}\n",
    )
    texts = ["What a wonderful day, I love it!", LANGUAGES["de"][0], None]
    rows = notes.run(*(json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)))
    assert [(row["language"], row["mood"] is None) for row in rows] == [("en", False), ("de", True), (None, True)]
    assert rows[0]["mood"] > 0.5
