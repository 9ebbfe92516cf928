"""How a person holds it: one file per verb."""

from __future__ import annotations


def main(arguments: list[str] | None = None) -> None:
    """The `lodestream` command; exits with one of the codes in `lodestream.cli.call.EXIT_CODES`."""
    from lodestream.cli.root import main as run

    run(arguments)
