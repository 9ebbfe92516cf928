"""Collects the mistakes of a project, so that all are reported at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from lodestream.errors import ConfigError
from lodestream.model.diagnostic import Diagnostic, Place
from lodestream.project.codes import remedy


class ProjectError(ConfigError):
    """A project with mistakes; `diagnostics` are all of them, sorted by file and line; `where` is what has them."""

    def __init__(self, diagnostics: Sequence[Diagnostic], where: str = "project") -> None:
        self.diagnostics = tuple(sorted(set(diagnostics), key=lambda d: (d.file, d.line, d.column, d.code, d.message)))
        lines = [f"{d}\n    fix: {d.fix}" if d.fix else str(d) for d in self.diagnostics]
        count = len(self.diagnostics)
        super().__init__("\n".join([f"{count} mistake{'s' if count != 1 else ''} in the {where}", *lines]))


class Mistakes:
    """A growing list of diagnostics."""

    def __init__(self, found: Iterable[Diagnostic] = ()) -> None:
        self.found: list[Diagnostic] = list(found)

    def add(
        self,
        place: Place,
        code: str,
        message: str,
        *,
        nearest: str | None = None,
        fix: str | None = None,
        **facts: object,
    ) -> None:
        """Note one mistake; the fix defaults to the code's remedy, and facts that are None are left out."""
        told = tuple((name, str(value)) for name, value in facts.items() if value is not None)
        fix = remedy(code) if fix is None else fix
        message = " ".join(message.split())  # one mistake is one line
        self.found.append(Diagnostic(place.file, place.line, place.column, code, message, nearest, fix, told))

    def raise_any(self) -> None:
        """Raise ProjectError when there is any mistake."""
        if self.found:
            raise ProjectError(self.found)


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option most like `name`, or None when none is near."""
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(name.lower(), list(by_lower), 1, 0.6)
    return by_lower[close[0]] if close else None
