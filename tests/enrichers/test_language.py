"""The language of a text, and rows whose text cannot be looked at."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest

from lodestream.app import open_project
from lodestream.enrichers._texts import TEXT_CHARS_MAX
from lodestream.enrichers.language import LanguageEnricher, LanguageSettings
from lodestream.planning.explain import explain
from lodestream.project.mistakes import ProjectError
from lodestream.project.schema import table_schema
from tests.enrichers.inline import LANGUAGES, Notes, enriched


def test_languages_are_told() -> None:
    sentences = [(code, text) for code, texts in LANGUAGES.items() for text in texts]
    found = enriched(LanguageEnricher(LanguageSettings(column="text")), [text for _, text in sentences])["language"]
    wrong = [(text, got) for (code, text), got in zip(sentences, found, strict=True) if got != code]
    assert len(wrong) <= 1, wrong


def test_where_there_is_no_language_there_is_none() -> None:
    enricher = LanguageEnricher(LanguageSettings(column="text"))
    assert enriched(enricher, [None, "", "12 34", "ok"])["language"] == [None] * 4
    assert enriched(LanguageEnricher(LanguageSettings(column="text", letters_min=20)), ["hello there"])["language"] == [
        None
    ]


def test_only_given_languages_are_told() -> None:
    enricher = LanguageEnricher(LanguageSettings(column="text", languages=("de", "fr"), into="lang"))
    assert set(enriched(enricher, [text for texts in LANGUAGES.values() for text in texts])["lang"]) <= {"de", "fr"}


def test_a_table_gets_the_column_and_what_is_too_long_is_set_aside(tmp_path: Path) -> None:
    notes = Notes(tmp_path, "enrich: {language: {column: text}}\nexpect: {known: id > 0}\n")
    lines = [{"id": 1, "text": LANGUAGES["fr"][0]}, {"id": 2, "text": "x" * (TEXT_CHARS_MAX + 1)}, {"id": 3}, {"id": 0}]
    rows = notes.run(*map(json.dumps, lines))
    assert [(row["id"], row["language"]) for row in rows] == [(1, "fr"), (3, None)]
    aside = notes.rows("silver/notes__quarantine")
    assert [row["reasons"] for row in aside] == [["enrich:language:too_long"], ["expect:known"]]
    with open_project(str(tmp_path)) as app:
        told = explain(next(plan for name, plan in app.flows.items() if name.layer == "silver"))
    assert "enrich with language: language from text" in told.steps
    assert {str(table) + "." + column for table, column in told.columns["language"]} == {"bronze.notes.text"}


@pytest.mark.parametrize(
    ("enrich", "code", "line"),
    [
        ("enrich: {language: {column: txt}}", "P110", 2),
        ("enrich: {language: {column: id}}", "D308", 2),
        ("enrich: {language: {column: text, into: text}}", "D307", 2),
        ("enrich: {language: {column: text, languages: [xx]}}", "D203", 2),
        ("enrich:\n  language: {column: text}\n  langage: {column: text}", "D103", 4),
        ("enrich:\n  - language: text", "D104", 3),
        ("enrich: {}", "D105", 2),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, enrich: str, code: str, line: int) -> None:
    Notes(tmp_path, enrich)
    with pytest.raises(ProjectError) as told, open_project(str(tmp_path)) as app:
        _ = app.plans
    assert [(one.code, one.line) for one in told.value.diagnostics] == [(code, line)], told.value


def test_the_schema_for_editors_knows_enrichers(tmp_path: Path) -> None:
    check = jsonschema_rs.Draft202012Validator(table_schema())
    good = {"from": "stream(bronze.notes)", "enrich": [{"language": {"column": "text"}}, {"pii": {"column": "text"}}]}
    both = {"from": "stream(bronze.notes)", "enrich": {"language": {"column": "text"}, "pii": {"column": "text"}}}
    lookup = {"lookup": {"table": "bronze.x", "on": "id", "columns": ["y"]}}
    assert check.is_valid(good)
    assert check.is_valid(both)
    assert check.is_valid({"from": "stream(bronze.notes)", "enrich": lookup})
    assert not check.is_valid({"from": "stream(bronze.notes)", "enrich": {"language": {}}})
    assert not check.is_valid({"from": "stream(bronze.notes)", "enrich": {"langage": {"column": "text"}}})
