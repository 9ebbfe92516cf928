"""Columns of the rows that a take-over begins with, which only make state."""

from __future__ import annotations

ALONE, SEED_ASIDE, MET = "_alone", "_seed_aside", "_met"
"""`ALONE`: NULL when a row takes its key, else a number that keeps it from being a repeat. `SEED_ASIDE`: whether it is
in no window and waits for no partner; NULL in all other rows of a stream. `MET`: whether it had a partner."""


def was(name: str) -> str:
    """The column in which such a row brings along what it met in its time, of a column that is looked up."""
    return f"_was_{name}"
