"""Lines in a block of bytes: finds them, and copies pieces of them into Arrow arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_BLANK = np.isin(np.arange(256), np.frombuffer(b" \t\r", np.uint8))


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of a block: where each begins and ends, and its position in the unit."""

    block: npt.NDArray[np.uint8]
    starts: Ints
    ends: Ints
    positions: Ints

    def __len__(self) -> int:
        return len(self.starts)

    def some(self, rows: Ints) -> Lines:
        """Only these lines."""
        return Lines(self.block, self.starts[rows], self.ends[rows], self.positions[rows])


def split_lines(block: npt.NDArray[np.uint8], breaks: Ints | None = None) -> tuple[Ints, Ints]:
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
    # A blank line begins and ends with a blank; no other line that does is common.
    for i in np.flatnonzero(_BLANK[block[np.minimum(starts, size - 1)]] & _BLANK[block[ends - 1]] & full):
        full[i] = bool(block[starts[i] : ends[i]].tobytes().strip(b" \t\r"))
    return (starts, ends) if full.all() else (starts[full], ends[full])


_SCAN_BYTES = 1 << 20


def _newlines(block: npt.NDArray[np.uint8]) -> Ints:
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


def slices(
    block: npt.NDArray[np.uint8], begins: Ints, ends: Ints, kind: pa.DataType, valid: Mask | None = None
) -> pa.Array:
    """The pieces of the block as a string or binary array, copied by Arrow in one go.

    An array whose items are alternately value and gap needs no copy at all; taking every other item copies the values.
    """
    count = len(begins)
    if not count:
        return pa.array([], kind)
    offsets = np.empty(2 * count, np.int32)
    offsets[0::2] = begins
    offsets[1::2] = ends
    validity = None
    if valid is not None:
        spread = np.ones(2 * count, np.bool_)
        spread[0::2] = valid
        validity = pa.py_buffer(np.packbits(spread, bitorder="little"))
    both = pa.Array.from_buffers(kind, 2 * count - 1, [validity, pa.py_buffer(offsets), pa.py_buffer(block)])
    return both.take(pa.array(np.arange(0, 2 * count - 1, 2, dtype=np.int32)))


def message_lines(values: pa.BinaryArray, positions: Ints) -> Lines:
    """Messages as if each were a line of a block that has no line ends."""
    kind = np.int64 if pa.types.is_large_binary(values.type) else np.int32
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, kind)[values.offset : values.offset + len(values) + 1].astype(np.int64)
    block = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]]
    ends = ends - ends[0]
    return Lines(block, ends[:-1], ends[1:], positions)


def compact(lines: Lines) -> tuple[npt.NDArray[np.uint8], Ints, Ints]:
    """The smallest block with these lines that is cheap to make, and where they begin and end in it."""
    if not len(lines):
        return lines.block[:0], lines.starts, lines.ends
    first, last = int(lines.starts[0]), int(lines.ends[-1])
    sizes = lines.ends - lines.starts
    if int(sizes.sum()) * 2 >= last - first:
        return lines.block[first:last], lines.starts - first, lines.ends - first
    spans = zip(lines.starts.tolist(), lines.ends.tolist(), strict=True)
    ends = np.cumsum(sizes)
    return np.frombuffer(b"".join([lines.block[a:b].tobytes() for a, b in spans]), np.uint8), ends - sizes, ends


def mark(good: Mask, lines: Lines, odd: Ints) -> None:
    """Clear the lines that contain any of the odd positions."""
    if len(odd):
        rows = np.searchsorted(lines.starts, odd, "right") - 1
        inside = (rows >= 0) & (odd < lines.ends[rows])
        good[rows[inside]] = False


def is_utf8(block: npt.NDArray[np.uint8]) -> bool:
    """Whether the bytes are valid UTF-8."""
    offsets = pa.py_buffer(np.array([0, len(block)], np.int64))
    text = pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(np.ascontiguousarray(block))])
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
