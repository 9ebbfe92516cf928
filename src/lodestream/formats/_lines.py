"""Finds the lines in a block of bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.int64]


def split_lines(block: npt.NDArray[np.uint8], breaks: Offsets | None = None) -> tuple[Offsets, Offsets]:
    r"""Start and end of each line that is not blank; the end leaves out `\n` and one `\r` before it.

    Blank means: no bytes but spaces, tabs and carriage returns. `breaks` are the line feeds, if already known.
    """
    size = len(block)
    if breaks is None:
        breaks = _newlines(block)
    if size and (not len(breaks) or breaks[-1] != size - 1):
        breaks = np.append(breaks, size)
    if not len(breaks):
        return breaks, breaks
    starts = np.empty_like(breaks)
    starts[0] = 0
    np.add(breaks[:-1], 1, out=starts[1:])
    ends = breaks - ((breaks > starts) & (block[np.maximum(breaks, 1) - 1] == 13))
    full = ends > starts
    if (ends - starts).min(initial=99) < 16:
        for i in np.flatnonzero(full & (ends - starts < 16)):
            full[i] = bool(block[starts[i] : ends[i]].tobytes().strip(b" \t\r"))
    return (starts, ends) if full.all() else (starts[full], ends[full])


_SCAN_BYTES = 1 << 20


def _newlines(block: npt.NDArray[np.uint8]) -> Offsets:
    """Positions of all line feeds, in pieces so that scratch memory stays in the processor's cache."""
    if len(block) <= _SCAN_BYTES:
        return np.flatnonzero(block == 10)
    scratch = np.empty(_SCAN_BYTES, np.bool_)
    found = []
    for at in range(0, len(block), _SCAN_BYTES):
        piece = block[at : at + _SCAN_BYTES]
        mask = scratch[: len(piece)]
        np.equal(piece, 10, out=mask)
        found.append(np.flatnonzero(mask) + at)
    return np.concatenate(found)
