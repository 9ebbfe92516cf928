"""One request as the answers see it: names in the path, options in the query, JSON in the body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lodestream.apis.registry.problems import unreadable
from lodestream.apis.registry.submissions import id_named, subject_named, version_named

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.

    Attributes:
        path: names in the path, decoded.
        query: options; the last one of a name.
        body: JSON, or None.
        options: every option in order, for those that come more than once.
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None
    options: Sequence[tuple[str, str]] = ()

    @property
    def subject(self) -> str:
        """The subject in the path. Raises Problem."""
        return subject_named(self.path["subject"])

    @property
    def version(self) -> int | None:
        """The version in the path; None is the latest. Raises Problem."""
        return version_named(self.path["version"])

    @property
    def id(self) -> int:
        """The schema id in the path. Raises Problem."""
        return id_named(self.path["id"])

    def flag(self, name: str) -> bool:
        """Whether an option is `true`."""
        return self.query.get(name, "").lower() == "true"

    def page(self, found: Sequence[_T]) -> list[_T]:
        """The part of a list that `offset` and `limit` ask for. Raises Problem."""
        offset, limit = self._number("offset", 0), self._number("limit", -1)
        return list(found[max(offset, 0) :][: None if limit < 0 else limit])

    def _number(self, name: str, default: int) -> int:
        text = self.query.get(name)
        if text is None:
            return default
        if len(text) > 10 or not text.removeprefix("-").isdecimal():
            raise unreadable(f"{name} is a whole number")
        return int(text)
