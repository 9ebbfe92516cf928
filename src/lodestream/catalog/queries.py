"""Saved queries to entries of the catalog's store, and back."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lodestream.catalog.catalog import Catalog
from lodestream.catalog.store import Entry
from lodestream.model.query import QueryParameter, SavedQuery


def entry(query: SavedQuery, at_us: int) -> Entry:
    """The entry that keeps a query."""
    parameters = [[one.name, one.type, one.default, one.description] for one in query.parameters]
    body = {"sql": query.sql, "title": query.title, "description": query.description, "parameters": parameters}
    return Entry("query", query.name, MappingProxyType(body), "", query.who, at_us)


def saved_queries(catalog: Catalog, declared: Mapping[str, SavedQuery]) -> dict[str, SavedQuery]:
    """By name, those that somebody saved at run time and those that files declare; a file's hides a saved one."""
    return {one.name: _query(one) for one in catalog.entries("query")} | dict(declared)


def _query(kept: Entry) -> SavedQuery:
    body = kept.body
    parameters = tuple(QueryParameter(*one) for one in body["parameters"])
    return SavedQuery(kept.name, body["sql"], parameters, body["title"], body["description"], who=kept.who)
